"""The command that takes dashboards of other tools in the place of a harvest."""

from pathlib import Path
from typing import Annotated

import typer

from app.settings import load_settings


def import_dashboard(
    folder: Annotated[Path, typer.Argument(help="What SAEDashboard wrote, or one source of Neuronpedia's exports.")],
    sae: Annotated[str, typer.Option(help="The SAE they are of: an import's name, or a folder in any known format.")],
    model: Annotated[
        str | None, typer.Option(help="The subject: a Hugging Face folder, or a known one's name.")
    ] = None,
    slug: Annotated[str | None, typer.Option(help="The SAE's name in URLs.")] = None,
    tokens: Annotated[
        int | None, typer.Option(min=1, help="Tokens that their densities are over, where the files do not say.")
    ] = None,
    hook: Annotated[str | None, typer.Option(help="Where the SAE reads, e.g. model.layers.9:out.")] = None,
    k: Annotated[int | None, typer.Option(min=1, help="Active latents a token, where the files do not say.")] = None,
    ignore_unknown: Annotated[bool, typer.Option("--ignore-unknown", help="Pass over unknown keys.")] = False,
    home: Annotated[Path | None, typer.Option(help="Folder for the database, models and SAEs.")] = None,
) -> None:
    """Show what SAEDashboard or Neuronpedia found of an SAE, without harvesting it here."""
    from app.harvest.job import Job, read_sae
    from app.harvest.names import Known, check_slug, default_slug, imported
    from app.harvest.parameters import Parameters
    from app.interop.attach import import_dashboards
    from app.sae.formats.files import Options
    from app.store.engine import explained
    from app.store.migrate import migrated
    from app.subject.load import load_subject

    settings = load_settings(home=home)
    options = Options(hook=hook, k=k, ignore_unknown=ignore_unknown)
    with migrated(settings) as engine:
        with explained(), engine.connect() as connection:
            known = Known.read(connection, settings.home, imported(settings.home))
        named = known.sae(sae)
        found = read_sae(named.folder, options)
        where = known.model(model, [named.model or known.subjects.get(found.config.subject)])
        job = Job(
            check_slug(slug or named.slug or default_slug(found)), named.folder, "", found.config.context or 128,
            Parameters(), options,
        )  # fmt: skip
        subject = load_subject(where, where.resolve().name, settings.dtype, settings.device)
        made = import_dashboards(
            folder.expanduser(), job, subject, engine, settings.home, tokens=tokens,
            doing=lambda stage: typer.echo(f"{stage[0].upper()}{stage[1:]} ...", err=True),
        )  # fmt: skip
    notes = [
        f"{count:,} {what.format(s='s' if count != 1 else '')}"
        for count, what in (
            (made.explanations, "explanation{s}"),
            (made.unread, "context{s} left out, whose tokens are not known for sure"),
            (made.silent, "context{s} left out, without an activation"),
            (made.missing, "feature{s} that the files do not tell of"),
        )
        if count
    ]
    typer.echo(f"{made.address}: {', '.join([f'{made.contexts:,} contexts', *notes])}.")
