"""One harvest from an SAE folder and a corpus to the database: what the CLI and the demo call."""

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import Engine, select

from app.corpus.sequences import Corpus, Sequence
from app.corpus.sources import Skipped
from app.errors import CorpusUnavailable, InvalidSAE
from app.harvest.artefact import artefact, kept
from app.harvest.context_columns import context_columns, posting_columns, vectors
from app.harvest.examples import example_columns
from app.harvest.harvester import Harvester
from app.harvest.latents import density_histogram, facts, latent_columns
from app.harvest.parameters import Parameters, parameters_json
from app.harvest.recovery import recovered
from app.harvest.run import Harvested, Watch, forget, harvest
from app.harvest.standing import standing
from app.harvest.subjects import HASHES, inside, subject_row
from app.sae.base import SAE, SAEFormatError
from app.sae.formats import read
from app.sae.formats.files import Options
from app.sae.linear import halved
from app.store import tables as t
from app.store.bulk import CorpusRows, HarvestRow, SAERow, harvest_lock, save_harvest
from app.store.engine import explained
from app.store.replace import drop_older
from app.subject.hook_names import hook_point
from app.subject.identity import fingerprint
from app.subject.load import Subject


@dataclass(frozen=True)
class Job:
    """What to harvest. ``folder`` holds an SAE in any format; ``corpus`` is the name the corpus is shown by."""

    slug: str
    folder: Path
    corpus: str
    context: int
    parameters: Parameters
    options: Options = Options()
    sae_dtype: str = "float32"
    checkpoint_seconds: float = 20.0
    prepend_bos: bool = True


def read_sae(path: Path, options: Options = Options(), format: str = "auto") -> SAE:  # noqa: A002
    """The SAE at ``path``, in whatever format; a refusal becomes the user's error."""
    try:
        return read(path, options, format)
    except SAEFormatError as error:
        raise InvalidSAE(str(error), path=str(path)) from error


def in_dtype(sae: SAE, dtype: str) -> SAE:
    """``sae`` with its matrices in ``dtype``, float32 or bfloat16."""
    made: SAE = halved(sae) if dtype == "bfloat16" else sae
    return made


def resolved(sae: SAE, subject: Subject) -> SAE:
    """The same SAE with its hooks as hook points of ``subject``, and the heads of an attention output.

    Raises:
        SubjectUnavailable: the subject has no such place; names what comes near.
    """
    reads, writes = (
        tuple(str(hook_point(name, subject.model)) for name in names) for names in (sae.config.reads, sae.config.writes)
    )
    heads = sae.config.heads
    if heads is None and re.search(r"(?:o_proj|attn\.c_proj|attention\.dense):in$", reads[0]):
        heads = getattr(subject.model.config, "num_attention_heads", None)
    return replace(sae, config=replace(sae.config, reads=reads, writes=writes, heads=heads))  # type: ignore[type-var]


def revision_of(sha256: str, subject: str, parameters: Parameters, corpus_sha256: str) -> str:
    """First 10 hex digits of SHA-256 over weights, subject, harvest parameters and corpus."""
    told = json.dumps([sha256, subject, parameters_json(parameters), corpus_sha256], sort_keys=True)
    return hashlib.sha256(told.encode()).hexdigest()[:10]


@dataclass(frozen=True, eq=False)
class Ready:
    """An SAE about to be harvested: as the subject has it, in the dtype it runs in, and in normal form on disk."""

    job: Job
    sae: SAE
    artefact: Path
    weights: str  # SHA-256 of the files in normal form
    subject_sha256: str
    subject_dtype: str

    @property
    def identity(self) -> str:
        """Weights and the dtype they run in."""
        return self.weights if self.job.sae_dtype == "float32" else f"{self.weights} {self.job.sae_dtype}"

    @property
    def subject(self) -> str:
        """What its activations come from, and the dtype that runs in."""
        return f"{self.subject_sha256} {self.subject_dtype}"

    def revision(self, corpus_sha256: str) -> str:
        return revision_of(self.identity, self.subject, self.job.parameters, corpus_sha256)


class AlreadySaved(Exception):
    """Every SAE of the jobs has been harvested over this very corpus."""


class Made(NamedTuple):
    """What became of a job: its revision, whether that is new, and the older ones that went for it."""

    slug: str
    revision: str
    fresh: bool
    dropped: list[str]

    @property
    def address(self) -> str:
        return f"{self.slug}@{self.revision}"


def run_job(job: Job, subject: Subject, corpus: Corpus, engine: Engine, home: Path, **options: Any) -> str:
    """run_jobs for a single SAE; returns its revision."""
    return run_jobs([job], subject, corpus, engine, home, **options)[0].revision


def run_jobs(
    jobs: list[Job],
    subject: Subject,
    corpus: Corpus,
    engine: Engine,
    home: Path,
    *,
    harvester: Callable[..., Harvested] = harvest,
    watch: Watch | None = None,
    total: int | None = None,
    skipped: Skipped | None = None,
    replace_older: bool = False,
) -> list[Made]:
    """Harvest the SAEs of ``jobs`` in one pass and save them. A revision that is saved already is left as it is. All
    jobs share corpus, context, parameters and dtype. Notes say beforehand which SAEs these make or add to.

    ``harvester`` makes the pass (app.harvest.run.harvest, or app.harvest.cluster's); ``total`` is the tokens wanted;
    ``skipped`` tells of documents left out of the corpus; ``replace_older`` drops the slugs' older revisions once the
    new ones are there.

    Raises:
        InvalidSAE, CorpusUnavailable, HarvestRunning, DiskFull, OutOfMemory, DatabaseUnavailable: nothing is left
            behind but a checkpoint to carry on from.
    """
    sha256, dtype = fingerprint(subject, home / HASHES), str(subject.dtype).removeprefix("torch.")
    watch = watch or Watch()
    with ExitStack() as stack:
        ready = []
        for job in jobs:
            sae = resolved(read_sae(job.folder, job.options), subject).to(subject.device)
            folder, weights = stack.enter_context(artefact(sae, home))
            ready.append(Ready(job, in_dtype(sae, job.sae_dtype), folder, weights, sha256, dtype))
        for slug in sorted({job.slug for job in jobs}):
            stack.enter_context(harvest_lock(engine, slug))
        with explained(), engine.connect() as connection:
            for one in ready:
                for line in standing(connection, one.job.slug, one.weights, replace=replace_older):
                    watch.note(line)
        saved: list[Ready] = []
        with suppress(AlreadySaved):
            saved = _pass_and_save(ready, subject, corpus, engine, home, harvester, watch, total, skipped or Skipped())
        made = [Made(one.job.slug, one.revision(corpus.sha256()), one in saved, []) for one in ready]
        if replace_older:
            watch.doing("dropping older revisions")
            made = [one._replace(dropped=drop_older(engine, home, one.slug, one.revision)) for one in made]
    return made


def _pass_and_save(
    ready: list[Ready],
    subject: Subject,
    corpus: Corpus,
    engine: Engine,
    home: Path,
    harvester: Callable[..., Harvested],
    watch: Watch,
    total: int | None,
    skipped: Skipped,
) -> list[Ready]:
    """Those that were not there yet, harvested and saved.

    Raises:
        AlreadySaved: there is none.
    """
    job = ready[0].job
    checkpoint = _checkpoint(ready, home, total)
    wanted: list[Ready] | None = None

    def look() -> None:
        """Once the whole corpus is known, see whether there is anything to do."""
        nonlocal wanted
        if wanted is None and corpus.complete:
            sha256 = corpus.sha256()
            wanted = [one for one in ready if not _saved(engine, one.job.slug, one.revision(sha256))]
            if not wanted:
                forget(checkpoint)
                raise AlreadySaved

    look()
    watch = replace(watch, between=_both(watch.between, look))
    done = harvester(
        subject,
        [one.sae for one in ready],
        corpus,
        job.parameters,
        context=job.context,
        total=total,
        checkpoint=checkpoint,
        checkpoint_seconds=job.checkpoint_seconds,
        watch=watch,
        names=[one.job.slug for one in ready],
    )
    if not done.harvesters[0].stats.positions:
        forget(checkpoint)
        raise CorpusUnavailable(
            f"No token of {job.corpus} counts: all {int(corpus.lengths().sum()):,} are BOS, EOS or padding; give text.",
            corpus=job.corpus,
        )
    look()
    for number, (one, accumulated) in enumerate(zip(ready, done.harvesters, strict=True)):
        if wanted is None or one in wanted:
            folder = _save(one, accumulated, done, subject, corpus, engine, home, skipped, _naming(watch, one, ready))
            watch.saved(number, one.revision(corpus.sha256()), folder)
    forget(checkpoint)
    return wanted or []


def _checkpoint(ready: list[Ready], home: Path, total: int | None) -> Path:
    """Named by what was asked for; what it holds says what was read."""
    job = ready[0].job
    told = json.dumps(
        [[one.identity, one.job.slug] for one in ready] + [job.corpus, job.context, ready[0].subject, total]
    )
    name = hashlib.sha256((told + json.dumps(parameters_json(job.parameters))).encode()).hexdigest()[:16]
    return home / "work" / f"harvest-{job.slug}-{name}.pt"


def _both(first: Callable[[], None], second: Callable[[], None]) -> Callable[[], None]:
    def run() -> None:
        first()
        second()

    return run


def _save(
    ready: Ready,
    harvester: Harvester,
    done: Harvested,
    subject: Subject,
    corpus: Corpus,
    engine: Engine,
    home: Path,
    skipped: Skipped,
    doing: Callable[[str], None],
) -> Path:
    """The folder of the SAE's files."""
    job, sae = ready.job, ready.sae
    lengths = corpus.lengths()
    edges, counts = density_histogram(harvester.stats)
    dtypes = {"dtype": ready.subject_dtype, "sae_dtype": job.sae_dtype}
    doing("measuring loss recovered")
    metrics = harvester.reconstruction.result() | recovered(subject, sae, corpus, job.parameters.recovery_sequences)
    doing("finding neighbours, promoted tokens and labels")
    columns = latent_columns(harvester, subject)
    found = vectors(harvester.contexts, harvester.stats, job.parameters.context_latents)
    doing("copying into the database")
    with kept(ready.artefact, home / "saes" / f"{job.slug}-{ready.weights[:10]}") as stored:
        save_harvest(
            engine,
            subject_row(subject, ready.subject_sha256, engine, home),
            CorpusRows(
                job.corpus,
                corpus.sha256(),
                job.context,
                int(lengths.sum()),
                lambda: ((s.token_ids, s.document) for s in _sequences(corpus)),
                corpus.names,
            ),
            SAERow(
                job.slug,
                ready.revision(corpus.sha256()),
                list(sae.config.reads),
                list(sae.config.writes),
                sae.config.architecture,
                sae.config.d_in,
                sae.config.n_latents,
                sae.config.signed,
                {"prepend_bos": sae.config.prepend_bos, "context": sae.config.context, **sae.config.extra},
                inside(stored, home),
                ready.weights,
            ),
            HarvestRow(
                parameters_json(job.parameters) | dtypes,
                metrics,
                edges,
                counts,
                harvester.stats.positions,
                int((harvester.stats.count == 0).sum()),
                done.seconds,
                facts(harvester) | {"halved": done.halved, "skipped": {"count": skipped.count, "named": skipped.named}},
            ),
            iter([columns]),
            example_columns(harvester, lengths),
            [context_columns(found)],
            posting_columns(found),
        )
    return stored


def _naming(watch: Watch, one: Ready, ready: list[Ready]) -> Callable[[str], None]:
    """``watch.doing``, which says of which SAE where there are several."""
    return lambda stage: watch.doing(f"{one.job.slug}: {stage}" if len(ready) > 1 else stage)


def _sequences(corpus: Corpus) -> Iterator[Sequence]:
    for number in range(len(corpus)):
        yield corpus[number]


def _saved(engine: Engine, slug: str, revision: str) -> bool:
    with explained(), engine.connect() as connection:
        query = select(t.sae.c.id).where(t.sae.c.slug == slug, t.sae.c.revision == revision)
        return connection.execute(query).scalar() is not None
