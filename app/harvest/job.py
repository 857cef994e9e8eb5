"""One harvest from an SAE folder and a corpus to the database: what the CLI and the demo call."""

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from sqlalchemy import Engine, select

from app.corpus.sequences import Sequence, corpus_hash
from app.errors import BadRequest, CorpusUnavailable, InvalidSAE
from app.harvest.recovery import recovered
from app.harvest.results import density_histogram, example_rows, latent_rows
from app.harvest.run import Parameters, Progress, harvest, parameters_json
from app.sae.base import SAE, SAEFormatError
from app.sae.formats import read, save
from app.sae.formats.files import Options
from app.sae.linear import halved
from app.store import tables as t
from app.store.bulk import CorpusRows, HarvestRow, SAERow, SubjectRow, harvest_lock, save_harvest
from app.store.engine import explained
from app.subject.hook_names import hook_point
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


def default_slug(sae: SAE) -> str:
    """``{subject}-l{layer}-{architecture}-{n_latents}``."""
    layer = re.search(r"\.(\d+)(?:\.|:|$)", sae.config.reads[0])
    parts = [
        sae.config.subject,
        f"l{layer[1]}" if layer else None,
        sae.config.architecture,
        str(sae.config.n_latents),
    ]
    return re.sub(r"[^a-z0-9]+", "-", "-".join(p for p in parts if p).lower()).strip("-")


def check_slug(slug: str) -> str:
    if not re.fullmatch(r"[a-z0-9]+(?:[-.][a-z0-9]+)*", slug) or slug.endswith(".json") or len(slug) > 80:
        raise BadRequest(
            f"{slug[:100]!r} cannot name an SAE; use up to 80 lower-case letters and digits, separated by '-' or '.'.",
            slug=slug,
        )
    return slug


def revision_of(sha256: str, parameters: Parameters, corpus_sha256: str) -> str:
    """First 10 hex digits of SHA-256 over weights, harvest parameters and corpus."""
    told = json.dumps([sha256, parameters_json(parameters), corpus_sha256], sort_keys=True)
    return hashlib.sha256(told.encode()).hexdigest()[:10]


def run_job(
    job: Job,
    subject: Subject,
    sequences: list[Sequence],
    engine: Engine,
    home: Path,
    *,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> str:
    """Harvest and save; returns the revision. A revision that is saved already is left as it is.

    Raises:
        InvalidSAE, CorpusUnavailable, HarvestRunning, DiskFull, DatabaseUnavailable: nothing is left behind but
            a checkpoint to carry on from.
    """
    sae = resolved(read_sae(job.folder, job.options), subject).to(subject.device)
    if not sequences:
        raise CorpusUnavailable(f"Corpus {job.corpus!r} holds no text of at least 16 tokens.", corpus=job.corpus)
    with _artefact(sae, home) as (artefact, weights):
        running = in_dtype(sae, job.sae_dtype)
        return _harvest_and_save(job, subject, sequences, engine, home, running, artefact, weights, on_progress)


def _harvest_and_save(
    job: Job,
    subject: Subject,
    sequences: list[Sequence],
    engine: Engine,
    home: Path,
    sae: SAE,
    artefact: Path,
    weights: str,
    on_progress: Callable[[Progress], None],
) -> str:
    text_sha256 = corpus_hash(sequences)
    told = weights if job.sae_dtype == "float32" else f"{weights} {job.sae_dtype}"
    revision = revision_of(told, job.parameters, text_sha256)
    with harvest_lock(engine, job.slug):
        if _saved(engine, job.slug, revision):
            return revision
        checkpoint = home / "work" / f"harvest-{job.slug}-{revision}.pt"
        harvester, seconds = harvest(
            subject,
            sae,
            sequences,
            job.parameters,
            checkpoint=checkpoint,
            checkpoint_seconds=job.checkpoint_seconds,
            on_progress=on_progress,
        )
        target = home / "saes" / f"{job.slug}-{weights[:10]}"
        with _kept(artefact, target) as stored:
            edges, counts = density_histogram(harvester.stats)
            dtypes = {"dtype": str(subject.dtype).removeprefix("torch."), "sae_dtype": job.sae_dtype}
            counted_tokens = harvester.stats.positions
            save_harvest(
                engine,
                SubjectRow(
                    subject.name,
                    _inside(subject.path, home),
                    {"parameters": subject.n_parameters, "layers": subject.n_layers, "d_model": subject.d_model},
                ),
                CorpusRows(
                    job.corpus,
                    text_sha256,
                    job.context,
                    len({s.document for s in sequences}),
                    sum(len(s.token_ids) for s in sequences),
                    [(s.token_ids, s.document) for s in sequences],
                ),
                SAERow(
                    job.slug,
                    revision,
                    list(sae.config.reads),
                    list(sae.config.writes),
                    sae.config.architecture,
                    sae.config.d_in,
                    sae.config.n_latents,
                    sae.config.signed,
                    {"prepend_bos": sae.config.prepend_bos, "context": sae.config.context, **sae.config.extra},
                    _inside(stored, home),
                    weights,
                ),
                HarvestRow(
                    parameters_json(job.parameters) | dtypes,
                    harvester.reconstruction.result()
                    | recovered(subject, sae, sequences, job.parameters.recovery_sequences),
                    edges,
                    counts,
                    counted_tokens,
                    int((harvester.stats.count == 0).sum()),
                    seconds,
                ),
                latent_rows(harvester, sae, subject, sequences, job.parameters),
                example_rows(harvester, sequences, job.parameters),
            )
        checkpoint.unlink(missing_ok=True)
    return revision


def _inside(path: Path, home: Path) -> str:
    """``path`` relative to the home if it lies there, so that a home can be moved; else absolute."""
    path, home = path.resolve(), home.resolve()
    return str(path.relative_to(home)) if path.is_relative_to(home) else str(path)


def _saved(engine: Engine, slug: str, revision: str) -> bool:
    with explained(), engine.connect() as connection:
        query = select(t.sae.c.id).where(t.sae.c.slug == slug, t.sae.c.revision == revision)
        return connection.execute(query).scalar() is not None


@contextmanager
def _artefact(sae: SAE, home: Path) -> Iterator[tuple[Path, str]]:
    """The SAE in normal form in a folder of its own, and the SHA-256 of its files; the folder goes at the end."""
    (home / "work").mkdir(parents=True, exist_ok=True)
    for left in (home / "work").glob("sae-*-*"):  # of processes that were killed
        owner = left.name.split("-")[1]
        if owner.isdigit() and not Path(f"/proc/{owner}").exists() and Path("/proc").exists():
            shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=home / "work", prefix=f"sae-{os.getpid()}-") as folder:
        save(Path(folder), sae)
        yield Path(folder), _sha256(*sorted(Path(folder).iterdir()))


@contextmanager
def _kept(folder: Path, to: Path) -> Iterator[Path]:
    """A copy of the SAE in the home, for inspection after the original has moved; taken back if the block fails."""
    fresh = not to.is_dir()
    if fresh:
        partial = to.with_name(to.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(folder, partial)
        partial.rename(to)
    try:
        yield to
    except BaseException:
        if fresh:
            shutil.rmtree(to, ignore_errors=True)
        raise


def _sha256(*files: Path) -> str:
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            while chunk := stream.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()
