"""Commands that keep an instance: backup and restore."""

from pathlib import Path
from typing import Annotated

import typer

from app.settings import load_settings

Home = Annotated[Path | None, typer.Option(help="Folder for the database, models and SAEs.")]


def backup(
    file: Annotated[Path, typer.Argument(help="The file to write; it must not exist.")],
    home: Home = None,
) -> None:
    """Write the database and the files of SAEs to FILE; models, packages and checkpoints stay out."""
    from app.backup.make import back_up
    from app.store.engine import database_url

    settings = load_settings(home=home)
    made = back_up(database_url(settings), settings.home, file.expanduser(), _say)
    size = file.expanduser().stat().st_size
    typer.echo(f"{file}: {len(made.entries)} files, {size / 1e9:.2f} GB, schema {made.schema_revision}.")
    for path in made.left_out:
        typer.echo(f"Not in it: the model at {settings.home / path}; prompts need it where you restore.", err=True)


def restore(
    file: Annotated[Path, typer.Argument(help="A file that saescope backup has written.")],
    check: Annotated[bool, typer.Option("--check", help="Look at every sum in it; restore nothing.")] = False,
    home: Home = None,
) -> None:
    """Restore FILE, which you trust, into an empty database and a home without SAEs."""
    from app.backup.archive import opened
    from app.backup.restore import restore as restore_all
    from app.store.engine import database_url

    path = file.expanduser()
    if check:
        with opened(path) as archive:
            archive.verify()
            typer.echo(
                f"{file} is whole: {len(archive.manifest.entries)} files, made {archive.manifest.made:%Y-%m-%d}."
            )
        return
    settings = load_settings(home=home)
    made = restore_all(database_url(settings), settings.home, path, _say)
    typer.echo(f"Restored what was backed up {made.made:%Y-%m-%d %H:%M} UTC; 'saescope doctor' looks it over.")


def _say(line: str) -> None:
    typer.echo(f"{line} ...", err=True)
