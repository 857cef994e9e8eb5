"""Commands for whoever looks after an instance: doctor and assets."""

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import typer

from app.settings import load_settings

_MARKS = {"ok": "ok", "note": "note", "fault": "FAULT"}


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    full: Annotated[bool, typer.Option("--full", help="Read every file of models and SAEs again.")] = False,
    home: Annotated[Path | None, typer.Option(help="Folder for the database, models and SAEs.")] = None,
    port: Annotated[int | None, typer.Option(help="Port that is served on (default 8000).")] = None,
) -> None:
    """Look at everything saescope needs here, and say what to do about each fault; status 1 if there is one."""
    from app.doctor.examination import examination

    found = []
    for finding in examination(load_settings(home=home, port=port), full=full):
        found.append(finding)
        if not as_json:
            typer.echo(f"{_MARKS[finding.state]:<6} {finding.what}: {finding.told}")
            if finding.remedy:
                typer.echo(f"{'':<7}-> {finding.remedy}")
    faults = sum(finding.state == "fault" for finding in found)
    if as_json:
        told = {"faults": faults, "findings": [dataclasses.asdict(finding) for finding in found]}
        typer.echo(json.dumps(told, indent=2, ensure_ascii=False))
    else:
        typer.echo("No faults." if not faults else f"{faults} {'fault' if faults == 1 else 'faults'}.")
    if faults:
        raise SystemExit(1)


def assets() -> None:
    """Fetch the browser's libraries that package-lock.json names, unless they are here."""
    from app.web.assets import VENDOR, install_assets

    install_assets()
    typer.echo(f"The browser's libraries are in {VENDOR}.")
