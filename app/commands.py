"""The command lines that jobs are: what a run's ``command`` means to a shell, and to the process that runs it."""

import os
import shlex
import sys
from typing import Any

from app.settings import Settings


def options(command: dict[str, Any]) -> list[str]:
    """``{"sae": "x", "tokens": 5, "ignore_unknown": True}`` as ``--sae=x --tokens=5 --ignore-unknown``; a list gives
    its option once for each entry, None and False none."""
    given = []
    for name, value in command.items():
        option = f"--{name.replace('_', '-')}"
        for one in value if isinstance(value, list) else [value]:
            if one is True:
                given.append(option)
            elif one is not None and one is not False:
                given.append(f"{option}={one}")
    return given


def words(kind: str, command: dict[str, Any]) -> list[str]:
    """What stands behind ``saescope``. Only a harvest's SAE is an option; other commands take it as it is."""
    if kind == "harvest":
        return [kind, *options(command)]
    rest = {name: value for name, value in command.items() if name != "sae"}
    return [kind, *([str(command["sae"])] if command.get("sae") else []), *options(rest)]


def command_line(kind: str, command: dict[str, Any]) -> str:
    """As one types it."""
    return shlex.join(["saescope", *words(kind, command)])


def argv(command: dict[str, Any], run_id: int, kind: str = "harvest") -> list[str]:
    """The command line of the process that does a run."""
    return [sys.executable, "-m", "app.cli", *words(kind, command), f"--run={run_id}"]


def environment(settings: Settings) -> dict[str, str]:
    """This process's environment with every setting spelled out, so that the job has the server's own."""
    given = {f"SAESCOPE_{name.upper()}": str(value) for name, value in settings if value is not None}
    return {**os.environ, **given}
