"""The command that takes explanations in and out."""

from pathlib import Path
from typing import Annotated

import typer

from app.errors import BadRequest
from app.settings import load_settings


def explanations(
    sae: Annotated[
        str, typer.Argument(metavar="NAME[@REVISION]", help="A harvested SAE; its newest revision, or one.")
    ],
    take_in: Annotated[
        Path | None, typer.Option("--import", help="Neuronpedia's JSON lines (also .gz), or a folder of delphi's.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--export", help="A file .jsonl or .jsonl.gz, or else a folder for delphi.")
    ] = None,
    source: Annotated[
        str | None, typer.Option(help="With --import: the layer or hook point to take, where there are several.")
    ] = None,
    home: Annotated[Path | None, typer.Option(help="Folder for the database, models and SAEs.")] = None,
) -> None:
    """Import explanations from Neuronpedia's or delphi's files, or export them."""
    from app.explain.exchange import read_told, write_folder, write_lines
    from app.explain.llm_exchange import read_all, save_told
    from app.store.engine import explained
    from app.store.explain_sources import find_explain_source
    from app.store.migrate import migrated
    from app.store.revisions import known

    if (take_in is None) == (out is None):
        raise BadRequest("Give either --import or --export.")
    settings = load_settings(home=home)
    slug, _, revision = sae.partition("@")
    with migrated(settings) as engine:
        with explained(), engine.connect() as connection:
            known(connection, slug, revision or None)
            found = find_explain_source(connection, slug, revision or None)
            told = [] if out is None else read_all(connection, found.id)
        if take_in is not None:
            count = save_told(engine, found.id, read_told(take_in, found.n_latents, source), take_in.name)
            typer.echo(f"{found.slug}@{found.revision}: {count:,} explanations imported.")
            return
        assert out is not None
        try:
            if out.name.endswith((".jsonl", ".jsonl.gz")):
                count = write_lines(out, found.subject, found.slug, told)
            else:
                count = write_folder(out, found.slug, told)
        except OSError as error:
            raise BadRequest(f"{out} cannot be written: {error.strerror}.", path=str(out)) from None
        typer.echo(f"{found.slug}@{found.revision}: {count:,} explanations are in {out}.")
