"""The command that writes a list or an SAE as a folder: one that opens without a server, or for other tools."""

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.errors import BadRequest
from app.settings import Settings, load_settings

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from app.web.static_site import Wanted

MANY = 1000  # pages that are not written without being asked for


def export(
    what: Annotated[str, typer.Argument(metavar="LIST|SAE", help="A list's name, or NAME[@REVISION] of an SAE.")],
    static: Annotated[
        Path | None, typer.Option("--static", help="A folder of HTML and JSON; not there yet, or empty.")
    ] = None,
    neuronpedia: Annotated[
        Path | None, typer.Option("--neuronpedia", help="A folder for Neuronpedia's importer; not there yet, or empty.")
    ] = None,
    delphi: Annotated[
        Path | None,
        typer.Option("--delphi", help="A folder with latents as delphi keeps them; not there yet, or empty."),
    ] = None,
    tokens: Annotated[
        int, typer.Option(min=1000, help="With --delphi: tokens of the harvest's text to read.")
    ] = 262_144,
    latents: Annotated[str, typer.Option(help="Only these features of an SAE: 0-99,812.")] = "",
    yes: Annotated[bool, typer.Option("--yes", "-y", help=f"Write more than {MANY:,} pages.")] = False,
    home: Annotated[Path | None, typer.Option(help="Folder for the database, models and SAEs.")] = None,
) -> None:
    """Write a list or an SAE's features as HTML and JSON that open without a server, or an SAE for other tools."""
    import asyncio

    from app.interop.exports import export_delphi, export_neuronpedia
    from app.paths import expanded
    from app.store.engine import explained
    from app.store.migrate import migrated

    settings, chosen = load_settings(home=home), ranges(latents)
    if sum(way is not None for way in (static, neuronpedia, delphi)) != 1:
        raise BadRequest("Give one of --static, --neuronpedia and --delphi, each with a folder.")
    if chosen is not None and static is None:
        raise BadRequest("--latents goes with --static; other tools get the whole SAE.")
    with migrated(settings) as engine, explained():
        if static is not None:
            asyncio.run(_export(settings, what, expanded(str(static)).absolute(), chosen, yes))
            return
        out = expanded(str(neuronpedia or delphi)).absolute()
        if neuronpedia is not None:
            told = export_neuronpedia(engine, settings.home, what, out, _progress())
        else:
            told = export_delphi(engine, settings.home, what, out, tokens, settings.device, _progress())
    typer.echo(told)


def ranges(text: str) -> list[tuple[int, int]] | None:
    """First and last of each part of ``0-99,812``; None where there is nothing.

    Raises:
        BadRequest: a part is no number and no range of them.
    """
    if not text.strip():
        return None
    out = []
    for part in text.split(","):
        found = re.fullmatch(r"\s*([0-9]{1,9})(?:\s*-\s*([0-9]{1,9}))?\s*", part)
        if found is None or int(found[2] or found[1]) < int(found[1]):
            raise BadRequest(f"--latents holds {part.strip()[:40]!r}; write numbers and ranges, such as 0-99,812.")
        out.append((int(found[1]), int(found[2] or found[1])))
    return out


async def _export(settings: Settings, what: str, out: Path, chosen: list[tuple[int, int]] | None, yes: bool) -> None:
    from app.interop.folders import check_free
    from app.store.engine import async_engine, database_url
    from app.web.static_site import Export

    engine = async_engine(database_url(settings))
    try:
        async with engine.execution_options(isolation_level="REPEATABLE READ").connect() as db:
            check_free(out)
            wanted = await find(db, what, chosen)
            job = Export(db, settings.home, wanted)
            told = f"{wanted.pages:,} page{'s' if wanted.pages != 1 else ''}, about {await job.megabytes():,.1f} MB"
            if wanted.pages > MANY and not yes:
                raise BadRequest(
                    f"{what} makes {told}; choose some with --latents 0-99,812, or say --yes.", pages=wanted.pages
                )
            typer.echo(f"Writing {told} ...", err=True)
            await job.write(out, _pages(wanted.pages))
    finally:
        await engine.dispose()
    typer.echo(f"{out / 'index.html'}")


async def find(db: "AsyncConnection", what: str, chosen: list[tuple[int, int]] | None) -> "Wanted":
    """
    Raises:
        UnknownList: there is neither an SAE nor a list of that name. UnknownSAE, LatentOutOfRange.
    """
    from app.errors import UnknownList, UnknownSAE
    from app.web.static_site import of_list, of_sae

    try:
        return await of_sae(db, what, chosen)
    except UnknownSAE as error:
        if "@" in what:
            raise
        try:
            wanted = await of_list(db, what)
        except UnknownList:
            raise UnknownList(f"There is no list and no SAE {what[:80]!r} here. {error.message}", list=what) from None
    if chosen is not None:
        raise BadRequest(f"--latents chooses features of an SAE; {what} is a list.")
    return wanted


def _progress() -> Callable[[int, int], None]:
    def shown(done: int, total: int) -> None:
        if sys.stderr.isatty():
            typer.echo(f"\r{done:,} of {total:,}", nl=done == total, err=True)

    return shown


def _pages(total: int) -> Callable[[int], None]:
    def shown(done: int) -> None:
        if sys.stderr.isatty() and (done % 20 == 0 or done == total):
            typer.echo(f"\rpages {done:,} of {total:,}", nl=done == total, err=True)

    return shown
