"""Addresses of training runs."""


def training() -> str:
    return "/training"


def training_json() -> str:
    return "/training.json"


def training_run(name: str) -> str:
    return f"/training/{name}"


def training_run_json(name: str) -> str:
    return f"/training/{name}.json"
