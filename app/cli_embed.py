"""The command that embeds explanations, so that they are found by meaning."""

from pathlib import Path
from typing import Annotated

import typer

from app.cli_runs import recorded
from app.settings import load_settings


def embed(
    sae: Annotated[
        str | None,
        typer.Argument(metavar="[NAME[@REVISION]]", help="One SAE; left out, the newest revision of every one."),
    ] = None,
    home: Annotated[Path | None, typer.Option(help="Folder for the database, models and SAEs.")] = None,
    run: Annotated[int | None, typer.Option(hidden=True)] = None,
) -> None:
    """Embed the explanations that are not embedded yet; a killed run carries on when started again."""
    from app.embed.folder import fetched_model
    from app.embed.missing import embed_missing
    from app.embed.model import SentenceModel
    from app.store.embeddings import find_saes
    from app.store.migrate import migrated

    settings = load_settings(home=home)
    with migrated(settings) as engine:
        saes = find_saes(engine, sae)
        if not saes:
            typer.echo("There is no SAE here yet.")
            return
        named = [address.partition("@")[0] for _, address in saes]
        with recorded(engine, "embed", named, {"sae": sae} if sae else {}, run, keeps=True) as work:
            work.doing("Getting the sentence model")
            model = SentenceModel(fetched_model(settings), settings.device)
            for sae_id, address in saes:
                work.doing(f"Embedding the explanations of {address}")
                done = embed_missing(engine, sae_id, model, step=work.done)
                work.made(address.partition("@")[2])
                again = f"; {done.other}'s vectors were given up for them" if done.other else ""
                told = f"{address}: {done.embedded:,} embedded, {done.there:,} were there, by {model.name}{again}."
                work.tell([told])
