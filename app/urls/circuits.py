"""Addresses of circuits."""

from urllib.parse import quote


def circuits() -> str:
    """Every search for a circuit that is kept here."""
    return "/circuits"


def circuits_json() -> str:
    return "/circuits.json"


def circuit(name: str) -> str:
    return f"/circuits/{quote(name, safe='')}"


def circuit_json(name: str) -> str:
    return circuit(name) + ".json"
