"""Commands about SAEs themselves: import, remove and formats."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from app.settings import load_settings

Home = Annotated[Path | None, typer.Option(help="Folder for the database, models and SAEs.")]


def import_sae(
    source: Annotated[str, typer.Argument(help="A folder or file, or hf:owner/repo[/folder][@revision].")],
    format: Annotated[str, typer.Option(help="auto, or one that 'saescope formats' lists.")] = "auto",  # noqa: A002
    subject: Annotated[str | None, typer.Option(help="The subject: a Hugging Face folder, or just its name.")] = None,
    hook: Annotated[str | None, typer.Option(help="Where the SAE reads, e.g. model.layers.9:out.")] = None,
    slug: Annotated[str | None, typer.Option(help="The SAE's name in URLs.")] = None,
    k: Annotated[int | None, typer.Option(min=1, help="Active latents a token, where the files do not say.")] = None,
    check: Annotated[bool, typer.Option("--check", help="Run it on a few hundred tokens first.")] = False,
    corpus: Annotated[str, typer.Option(help="Text for --check.")] = "pkg:wikipedia-demo",
    ignore_unknown: Annotated[bool, typer.Option("--ignore-unknown", help="Pass over unknown keys.")] = False,
    replace: Annotated[bool, typer.Option("--replace", help="Replace an import of the same name.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what was read; keep nothing.")] = False,
    home: Home = None,
) -> None:
    """Read an SAE in any known format, show what it is, and keep it for 'saescope harvest --sae SLUG'."""
    from app.corpus.sequences import cut
    from app.corpus.sources import documents
    from app.errors import BadRequest, InvalidSAE
    from app.harvest import hub, imports
    from app.harvest.job import read_sae, resolved
    from app.harvest.names import check_slug, default_slug
    from app.sae.base import SAEFormatError
    from app.sae.formats import recognise
    from app.sae.formats.files import Options, Source
    from app.subject.load import load_subject

    settings = load_settings(home=home)
    origin: dict[str, object] = {"source": source}
    path = Path(source)
    if source.startswith("hf:"):
        path, origin["commit"] = hub.fetch(hub.parse(source), settings.home / "hub", on_file=downloading)
    folder = Path(subject).expanduser() if subject else None
    local = folder is not None and folder.is_dir()
    name = folder.resolve().name if folder is not None and local else subject
    options = Options(subject=name, hook=hook, k=k, ignore_unknown=ignore_unknown)
    try:
        found = format if format != "auto" else recognise(Source.at(path))
    except SAEFormatError as error:
        raise InvalidSAE(str(error), path=str(path)) from None
    sae = read_sae(path, options, found)
    loaded = load_subject(folder, str(name), settings.dtype, settings.device) if folder is not None and local else None
    if loaded is not None:
        sae = resolved(sae, loaded)
    rows = imports.describe(sae, found)
    table(rows)
    if check:
        if loaded is None:
            raise BadRequest("--check needs the subject itself: give --subject FOLDER.")
        bos = loaded.bos_id if sae.config.prepend_bos else None
        texts = documents(corpus, settings.home / "packages")
        sequences = list(cut(texts, loaded.encode, bos_id=bos, context=128, tokens=512))
        result = imports.check(sae, loaded, sequences)
        fvu = "not defined" if result.fvu is None else f"{result.fvu:.4f}"
        table([("checked on", f"{result.tokens} tokens"), ("FVU", fvu), ("L0", f"{result.l0:.1f}"),
               ("alive", f"{result.alive:.1%}")])  # fmt: skip
        for warning in result.warnings:
            typer.echo(f"warning: {warning}", err=True)
    if dry_run:
        return
    as_slug = check_slug(slug or default_slug(sae))
    imports.keep(sae, as_slug, settings.home, origin | {"format": found}, replace=replace)
    typer.echo(f"Imported as {as_slug}; 'saescope harvest --sae {as_slug} --model FOLDER --corpus ...' fills it.")


def formats() -> None:
    """List the formats that are read."""
    from app.sae.formats import READERS

    table([(name, reader.DETAIL) for name, reader in READERS.items()])


def table(rows: list[tuple[str, str]]) -> None:
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        typer.echo(f"{name.ljust(width)}  {value}")


def downloading(name: str, size: int) -> None:
    typer.echo(f"{name} ({size / 1e6:,.1f} MB) ...", err=True)


def remove(
    sae: Annotated[
        str, typer.Argument(metavar="NAME[@REVISION]", help="A harvested SAE; all of its revisions or one.")
    ],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    home: Home = None,
) -> None:
    """Remove a harvested SAE, or one revision of it, with its files and the text that no other harvest is over."""
    from app.errors import BadRequest
    from app.store.engine import explained
    from app.store.migrate import migrated
    from app.store.replace import remove as drop
    from app.store.replace import sweep
    from app.store.revisions import known

    settings = load_settings(home=home)
    slug, _, revision = sae.partition("@")
    with migrated(settings) as engine:
        sweep(engine)  # what one that was killed had left
        with explained(), engine.connect() as connection:
            going = known(connection, slug, revision or None)
        typer.echo(f"This removes, for good: {', '.join(f'{slug}@{one}' for one in going)}.", err=True)
        if not yes:
            if not sys.stdin.isatty():
                raise BadRequest("Removing asks first, and there is no terminal to ask on; say --yes.")
            if not typer.confirm("Remove it?" if len(going) == 1 else "Remove them?", err=True):
                typer.echo("Nothing was removed.", err=True)
                return
        gone = drop(engine, settings.home, slug, revision or None)
    typer.echo(f"Removed {', '.join(f'{slug}@{one}' for one in gone)}.")
    imported = settings.home / "imports" / slug
    if imported.is_dir() and not revision:
        typer.echo(f"Its import stays, at {imported}; 'saescope harvest --sae {slug}' starts from it.", err=True)
