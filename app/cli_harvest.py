"""The command that harvests."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli_progress import watching
from app.paths import expanded
from app.settings import Settings, load_settings

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from app.harvest.job import Job, Made
    from app.harvest.names import Known
    from app.harvest.text import Text
    from app.sae.formats.files import Options
    from app.store.runs import RunLog


def harvest(
    sae: Annotated[
        list[str],
        typer.Option(
            help="An import's or a harvested SAE's name (NAME@REVISION is that one), or a folder or file in any known "
            "format; several share one pass."
        ),
    ],
    corpus: Annotated[str, typer.Option(help="text:, jsonl: or parquet:PATH, hf:OWNER/NAME or pkg:NAME.")],
    model: Annotated[
        str | None,
        typer.Option(help="The subject: a Hugging Face folder, or a known one's name. Default: the SAE's own."),
    ] = None,
    tokens: Annotated[int | None, typer.Option(min=16, help="At most this many tokens of text.")] = None,
    context: Annotated[int, typer.Option(min=16, help="Tokens in a sequence.")] = 128,
    pack: Annotated[bool, typer.Option("--pack", help="Documents one after another in full sequences.")] = False,
    chat: Annotated[bool, typer.Option("--chat", help="Plain documents as messages in the chat template.")] = False,
    slug: Annotated[list[str] | None, typer.Option(help="The SAE's name in URLs; once for each --sae.")] = None,
    hook: Annotated[str | None, typer.Option(help="Where the SAE reads, e.g. model.layers.9:out.")] = None,
    k: Annotated[int | None, typer.Option(min=1, help="Active latents a token, where the files do not say.")] = None,
    ignore_unknown: Annotated[bool, typer.Option("--ignore-unknown", help="Pass over unknown keys.")] = False,
    replace: Annotated[bool, typer.Option("--replace", help="Drop the SAE's older revisions afterwards.")] = False,
    ray: Annotated[str | None, typer.Option(help="Shard over a Ray cluster: its address, or auto.")] = None,
    home: Annotated[Path | None, typer.Option(help="Folder for the database, models and SAEs.")] = None,
    run: Annotated[int | None, typer.Option(hidden=True)] = None,
) -> None:
    """Harvest one or several SAEs over a corpus into the database, in one pass."""
    from app.errors import BadRequest
    from app.harvest.names import Known, imported
    from app.harvest.text import Text
    from app.sae.formats.files import Options
    from app.store.engine import explained
    from app.store.migrate import migrated
    from app.store.runs import RunLog

    settings = load_settings(home=home)
    if slug and len(slug) != len(sae):
        raise BadRequest(f"There are {len(sae)} --sae but {len(slug)} --slug; give one for each, or none.")
    text = Text(corpus, context, tokens, pack=pack, chat=chat)
    options = Options(hook=hook, k=k, ignore_unknown=ignore_unknown)
    with migrated(settings) as engine:
        with explained(), engine.connect() as connection:
            known = Known.read(connection, settings.home, imported(settings.home))
        jobs, folder = _jobs(sae, slug, model, known, text, settings, options)
        command = {
            "sae": [str(job.folder.absolute()) for job in jobs],
            "model": str(folder.absolute()),
            "corpus": _absolute(corpus),
            "tokens": tokens,
            "context": context,
            "pack": pack,
            "chat": chat,
            "slug": [job.slug for job in jobs],
            "hook": hook,
            "k": k,
            "ignore-unknown": ignore_unknown,
            "replace": replace,
            "ray": ray,
        }
        log = RunLog.start(engine, [job.slug for job in jobs], command, run)
        with logged(log) as ended:
            ended.made = _run(jobs, text, folder, settings, engine, log, replace, ray)
    for one in ended.made:
        typer.echo(f"{one.address} is ready; 'saescope serve' shows it." if one.fresh else already(one))
        if one.dropped:
            typer.echo(f"Dropped {', '.join(f'{one.slug}@{revision}' for revision in one.dropped)}.")


def _absolute(corpus: str) -> str:
    """The corpus's spec with the whole path, for a process that runs elsewhere."""
    kind, _, where = corpus.partition(":")
    return f"{kind}:{expanded(where).absolute()}" if kind in ("text", "jsonl", "parquet") else corpus


def _jobs(
    saes: list[str],
    slugs: list[str] | None,
    model: str | None,
    known: "Known",
    text: "Text",
    settings: Settings,
    options: "Options",
) -> "tuple[list[Job], Path]":
    """What to harvest, and the subject's folder."""
    from app.errors import BadRequest
    from app.harvest.job import Job, read_sae
    from app.harvest.names import check_slug, default_slug
    from app.harvest.parameters import Parameters

    jobs, models = [], []
    for number, sae in enumerate(saes):
        named = known.sae(sae)
        found = read_sae(named.folder, options)
        given = slugs[number] if slugs else named.slug or default_slug(found)
        parameters = Parameters(batch_tokens=settings.batch_tokens)
        job = Job(
            check_slug(given), named.folder, text.name, text.context, parameters, options, settings.sae_dtype,
            settings.checkpoint_seconds, found.config.prepend_bos,
        )  # fmt: skip
        jobs.append(job)
        models.append(named.model or known.subjects.get(found.config.subject))
    if len({job.slug for job in jobs}) < len(jobs):
        raise BadRequest(f"Two SAEs would have one name ({', '.join(job.slug for job in jobs)}); give each a --slug.")
    if len({job.prepend_bos for job in jobs}) > 1:
        raise BadRequest("Some of these SAEs were trained with BOS and some without; harvest them in two passes.")
    return jobs, known.model(model, models)


def _run(
    jobs: "list[Job]",
    text: "Text",
    model: Path,
    settings: Settings,
    engine: "Engine",
    log: "RunLog",
    replace: bool,
    ray: str | None,
) -> "list[Made]":
    import dataclasses

    from app.corpus.scratch import scratch
    from app.corpus.sources import Skipped
    from app.explain.overheard import overheard
    from app.harvest.job import run_jobs
    from app.harvest.run import harvest as one_machine
    from app.harvest.text import sequences
    from app.subject.load import load_subject

    text = dataclasses.replace(text, prepend_bos=jobs[0].prepend_bos)
    harvester = one_machine
    if ray is not None:
        from app.harvest.cluster import cluster

        harvester = cluster(ray)
    skipped = Skipped()
    try:
        with watching(log) as watch, scratch(settings.home / "work", "heard") as heard:
            watch.doing("loading the subject")
            subject = load_subject(model, model.resolve().name, settings.dtype, settings.device)
            with sequences(text, subject, settings.home, skipped) as corpus:
                return run_jobs(
                    jobs, subject, corpus, engine, settings.home, harvester=harvester, total=text.tokens,
                    watch=overheard(watch, heard), skipped=skipped, replace_older=replace,
                )  # fmt: skip
    finally:
        if skipped.count:
            log.skipped(skipped.count, skipped.named)
            typer.echo(f"{skipped.sentence()}.", err=True)


@dataclass
class Ended:
    """What a run has made."""

    made: "list[Made]" = field(default_factory=list)


@contextmanager
def logged(log: "RunLog") -> "Iterator[Ended]":
    """Close the run in the way the block ends."""
    from app.errors import SaescopeError

    ended = Ended()
    try:
        yield ended
    except SaescopeError as error:
        log.finish("failed", error.message)
        raise
    except (KeyboardInterrupt, SystemExit):
        on = "it carries on from its last checkpoint when resumed" if log.resumable else "it had read nothing yet"
        log.finish("stopped", f"Stopped; {on}.")
        raise
    except BaseException as error:
        log.finish("failed", f"{type(error).__name__}: {error}")
        raise
    log.already([one.address for one in ended.made if not one.fresh])
    message = " ".join(already(one) for one in ended.made if not one.fresh) or None
    log.finish("done", message, revisions=[one.revision for one in ended.made])


def already(one: "Made") -> str:
    done = "its older revisions were dropped" if one.dropped else "nothing was done"
    return f"Already harvested as {one.address}; {done}."
