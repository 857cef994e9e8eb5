"""One harvest from an SAE folder and a corpus to the database: what the CLI and the demo call."""

import hashlib
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Engine, select

from app.corpus.sequences import Sequence, corpus_hash
from app.errors import BadRequest, CorpusUnavailable, InvalidSAE
from app.harvest.results import density_histogram, example_rows, latent_rows
from app.harvest.run import Parameters, Progress, harvest, parameters_json
from app.sae import saelens
from app.sae.base import SAE, SAEFormatError
from app.store import tables as t
from app.store.bulk import CorpusRows, HarvestRow, SAERow, SubjectRow, harvest_lock, save_harvest
from app.store.engine import explained
from app.subject.load import Subject


@dataclass(frozen=True)
class Job:
    """What to harvest. ``folder`` is a SAELens folder; ``corpus`` is the name the corpus is shown by."""

    slug: str
    folder: Path
    corpus: str
    context: int
    parameters: Parameters


def read_sae(folder: Path) -> SAE:
    """The SAE in ``folder``; a refusal becomes the user's error."""
    try:
        return saelens.read(folder)
    except SAEFormatError as error:
        raise InvalidSAE(str(error), path=str(folder)) from error


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
    if not re.fullmatch(r"[a-z0-9]+(?:[-.][a-z0-9]+)*", slug) or slug.endswith(".json"):
        raise BadRequest(
            f"{slug!r} cannot name an SAE; use lower-case letters and digits, separated by '-' or '.'.",
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
    sae = read_sae(job.folder).to(subject.device)
    if not sequences:
        raise CorpusUnavailable(f"Corpus {job.corpus!r} holds no text of at least 16 tokens.", corpus=job.corpus)
    weights = _sha256(job.folder / saelens.WEIGHTS, job.folder / "cfg.json")
    text_sha256 = corpus_hash(sequences)
    revision = revision_of(weights, job.parameters, text_sha256)
    with harvest_lock(engine, job.slug):
        if _saved(engine, job.slug, revision):
            return revision
        checkpoint = home / "work" / f"harvest-{job.slug}-{revision}.pt"
        harvester, seconds = harvest(
            subject, sae, sequences, job.parameters, checkpoint=checkpoint, on_progress=on_progress
        )
        stored = _keep(job.folder, home / "saes" / f"{job.slug}-{weights[:10]}")
        edges, counts = density_histogram(harvester.stats)
        counted_tokens = harvester.stats.positions
        save_harvest(
            engine,
            SubjectRow(
                subject.name,
                str(subject.path),
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
                str(stored),
                weights,
            ),
            HarvestRow(
                parameters_json(job.parameters) | {"dtype": str(subject.dtype).removeprefix("torch.")},
                harvester.reconstruction.result(),
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


def _saved(engine: Engine, slug: str, revision: str) -> bool:
    with explained(), engine.connect() as connection:
        query = select(t.sae.c.id).where(t.sae.c.slug == slug, t.sae.c.revision == revision)
        return connection.execute(query).scalar() is not None


def _keep(folder: Path, to: Path) -> Path:
    """A copy of the SAE in the home, for inspection after the original has moved."""
    if not to.is_dir():
        partial = to.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        for name in ("cfg.json", saelens.WEIGHTS):
            shutil.copy2(folder / name, partial / name)
        partial.rename(to)
    return to


def _sha256(*files: Path) -> str:
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            while chunk := stream.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()
