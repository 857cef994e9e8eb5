"""Dashboards of other tools into the database, in the place of a harvest of an SAE that is here."""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from sqlalchemy import Engine, select

from app.bounded_json import lines
from app.corpus.scratch import scratch
from app.disk import room
from app.errors import BadRequest
from app.explain.exchange import Told, read_told
from app.explain.llm_exchange import save_told
from app.harvest.artefact import artefact, kept
from app.harvest.job import Job, read_sae, resolved, revision_of
from app.harvest.labels import peak_label, vocabulary_label
from app.harvest.latents import weight_columns
from app.harvest.parameters import Parameters, parameters_json
from app.harvest.subjects import HASHES, inside, subject_row
from app.interop.gathered import Gathered
from app.interop.strings import Strings
from app.interop.told import Files, found
from app.sae.base import SAE
from app.store import tables as t
from app.store.bulk import CorpusRows, HarvestRow, SAERow, harvest_lock, save_harvest
from app.store.copying import Column, Fixed, Ragged, Raw
from app.store.engine import explained
from app.subject.identity import fingerprint
from app.subject.load import Subject

SAMPLE = 2000  # contexts by which it is told how a file writes tokens
MOST_CONTEXTS = 20_000  # of a latent
MOST_UNREAD = 0.1  # of the contexts; beyond, the tokenizer is another one

Array = npt.NDArray[Any]


class Imported(NamedTuple):
    """What came of it. unread: contexts whose tokens are not known for sure; silent: contexts without an activation;
    missing: latents that the files do not tell of."""

    address: str
    contexts: int
    unread: int
    silent: int
    missing: int
    explanations: int


@dataclass(frozen=True)
class _Read:
    """densities: [n], NaN for latents that are missing; maxima: [n], as the files say, 0 where they do not."""

    densities: Array
    maxima: Array
    unread: int
    silent: int


def import_dashboards(
    folder: Path,
    job: Job,
    subject: Subject,
    engine: Engine,
    home: Path,
    *,
    tokens: int | None = None,
    doing: Callable[[str], None] = lambda stage: None,
) -> Imported:
    """Read ``folder`` and save what it tells as a revision of ``job``'s SAE; all of it or nothing. ``tokens`` is how
    many the densities are over, where the files do not say.

    Raises:
        BadRequest: the folder holds something else, or is of another model or SAE.
        InvalidSAE, HarvestRunning, DiskFull.
    """
    files = found(folder)
    with ExitStack() as stack:
        sae = resolved(read_sae(job.folder, job.options), subject)
        stored, weights = stack.enter_context(artefact(sae, home))
        stack.enter_context(harvest_lock(engine, job.slug))
        gathered = stack.enter_context(Gathered(stack.enter_context(scratch(home / "work", "dashboards"))))
        doing("reading the files")
        with room(home / "work", "What is read"):
            read = _read(files, sae, subject, gathered)
        over = files.tokens or tokens
        if over is None:
            raise BadRequest(
                f"{folder} does not say how many tokens its densities are over; give --tokens.", path=str(folder)
            )
        told = _explanations(files, sae.config.n_latents)
        sha256 = gathered.sha256()
        numbers = hashlib.sha256(
            read.densities.tobytes() + read.maxima.tobytes() + gathered.activations_sha256.encode()
        )
        parameters = Parameters(width=gathered.width)
        subject_sha256 = fingerprint(subject, home / HASHES)
        revision = revision_of(weights, f"{subject_sha256} {numbers.hexdigest()} {over}", parameters, sha256)
        _not_there(engine, job.slug, revision)
        doing("finding neighbours, promoted tokens and labels")
        columns = _latents(sae, subject, read, gathered, parameters, over)
        doing("copying into the database")
        with kept(stored, home / "saes" / f"{job.slug}-{weights[:10]}") as place:
            sae_id = save_harvest(
                engine,
                subject_row(subject, subject_sha256, engine, home),
                _corpus(files, gathered, sha256),
                _sae_row(job, sae, revision, inside(place, home), weights),
                _harvest_row(files, read, gathered, columns, parameters, over, subject, sae),
                [columns],
                gathered.rows(*_extremes(read, gathered)),
                [],
                [],
            )
        if told:
            save_told(engine, sae_id, told, folder.name)
    missing = int(np.isnan(read.densities).sum())
    return Imported(f"{job.slug}@{revision}", len(gathered), read.unread, read.silent, missing, len(told))


def _read(files: Files, sae: SAE, subject: Subject, gathered: Gathered) -> _Read:
    n = sae.config.n_latents
    densities, maxima = np.full(n, np.nan), np.zeros(n)
    for told in files.features():
        i = told.latent
        if i >= n:
            raise BadRequest(f"{files.folder} holds feature {i}; this SAE's are 0 to {n - 1}.", feature=i)
        if told.density is None:
            raise BadRequest(f"{files.folder} has no frac_nonzero of feature {i}.", feature=i)
        densities[i], maxima[i] = told.density, told.maximum
    strings = Strings(subject.tokenizer)
    way = strings.way(one.tokens for one in islice(files.contexts(), SAMPLE))
    held = np.zeros(n, np.int64)
    unread = silent = 0
    for one in files.contexts():
        if one.latent >= n or np.isnan(densities[one.latent]):
            raise BadRequest(f"{files.folder} has contexts of feature {one.latent}, and no such feature.")
        values = np.array(one.values, dtype=np.float32)
        if not values.any():
            silent += 1
        elif (ids := strings.ids(one.tokens, way)) is None:
            unread += 1
        else:
            if (values < 0).any() and not sae.config.signed:
                raise BadRequest(f"{files.folder} has a negative activation of feature {one.latent}, which a "
                                 f"{sae.config.architecture} SAE has not.")  # fmt: skip
            gathered.add(one.latent, ids, values, one.top)
            held[one.latent] += 1
            if held[one.latent] > MOST_CONTEXTS:
                raise BadRequest(f"{files.folder} has more than {MOST_CONTEXTS:,} contexts of feature {one.latent}.")
    if unread > MOST_UNREAD * (unread + len(gathered)):
        raise BadRequest(
            f"{unread:,} of the {unread + len(gathered):,} contexts of {files.folder} hold tokens that "
            f"{subject.name}'s tokenizer does not have; they are of another model.",
            path=str(files.folder),
        )
    if not len(gathered):
        raise BadRequest(f"{files.folder} holds no context with an activation.", path=str(files.folder))
    return _Read(densities, maxima, unread, silent)


def _explanations(files: Files, n_latents: int) -> list[Told]:
    folder, root = files.explanations, files.folder.resolve()
    paths = sorted(folder.glob("*.jsonl*")) if folder is not None else []
    inside_it = [path for path in paths if path.is_file() and path.resolve().is_relative_to(root)]
    held = [path for path in inside_it if next(lines(path), None) is not None]
    return [one for path in held for one in read_told(path, n_latents, None)]


def _not_there(engine: Engine, slug: str, revision: str) -> None:
    with explained(), engine.connect() as connection:
        query = select(t.sae.c.id).where(t.sae.c.slug == slug, t.sae.c.revision == revision)
        if connection.execute(query).scalar() is not None:
            raise BadRequest(f"These files are imported already, as {slug}@{revision}.", sae=slug, revision=revision)


def _extremes(read: _Read, gathered: Gathered) -> tuple[Array, Array]:
    high, low = gathered.extremes(len(read.densities))
    return np.maximum(high, read.maxima.astype(np.float32)), low


def _latents(
    sae: SAE, subject: Subject, read: _Read, gathered: Gathered, parameters: Parameters, over: int
) -> dict[str, Column]:
    n = sae.config.n_latents
    weights, promoted = weight_columns(sae, parameters, subject)
    high, low = _extremes(read, gathered)
    density = np.nan_to_num(read.densities)
    fired = np.maximum(np.round(density * over).astype(np.int64), density > 0)
    labels, sources = [], []
    text = subject.vocabulary.text
    for tokens, best in zip(gathered.peak_tokens(n), promoted.tolist(), strict=True):
        labels.append(peak_label([*map(text, tokens)]) if tokens else vocabulary_label([*map(text, best)]))
        sources.append("top-tokens" if tokens else "vocab-projection")
    unknown, nothing = np.full(n, np.nan, np.float32), np.zeros(n, np.int64)
    empty = Ragged(np.zeros(0, np.int32), nothing)
    null = Ragged(np.zeros(0, np.int32), nothing, np.ones(n, dtype=bool))
    null_real = null._replace(values=np.zeros(0, np.float32))
    no_count = Fixed(nothing, np.ones(n, dtype=bool))
    return {
        "index": Fixed(np.arange(n)), "fired": Fixed(fired), "density": Fixed(density.astype(np.float32)),
        "mean": Fixed(unknown), "std": Fixed(unknown), "maximum": Fixed(high), "minimum": Fixed(low),
        "histogram_first": Fixed(nothing), "histogram": empty, "histogram_negative": empty, **weights,
        "label": Raw.of_strings(labels), "label_source": Raw.of_strings(sources),
        "label_score": Fixed(np.zeros(n), np.ones(n, dtype=bool)), "place_counts": null, "first_fired": no_count,
        "last_fired": no_count, "token_mean_ids": null, "token_mean_values": null_real, "token_probability_ids": null,
        "token_probability_values": null_real, "token_probability_seen": null, "coactive_ids": null,
        "coactive_phi": null_real, "coactive_together": null, "documents": no_count, "document_ids": null,
        "document_fires": null,
    }  # fmt: skip


def _corpus(files: Files, gathered: Gathered, sha256: str) -> CorpusRows:
    name = files.dataset or files.folder.name

    def sequences() -> Iterator[tuple[Array, str]]:
        return ((ids, name) for ids in gathered.token_sequences())

    count = sum(len(ids) for ids in gathered.token_sequences())
    return CorpusRows(f"contexts of {name}", f"contexts {sha256}", gathered.width, count, sequences,
                      lambda: iter([(0, name)]))  # fmt: skip


def _sae_row(job: Job, sae: SAE, revision: str, path: str, weights: str) -> SAERow:
    c = sae.config
    config = {"prepend_bos": c.prepend_bos, "context": c.context, **c.extra}
    return SAERow(job.slug, revision, list(c.reads), list(c.writes), c.architecture, c.d_in, c.n_latents, c.signed,
                  config, path, weights)  # fmt: skip


def _harvest_row(
    files: Files,
    read: _Read,
    gathered: Gathered,
    columns: dict[str, Column],
    parameters: Parameters,
    over: int,
    subject: Subject,
    sae: SAE,
) -> HarvestRow:
    alive = np.log10(read.densities[read.densities > 0])
    edges = np.arange(min(np.floor(alive.min(initial=0) * 4) / 4, -0.25), 0.25, 0.25)
    counts, _ = np.histogram(alive, edges)
    fired = columns["fired"]
    assert isinstance(fired, Fixed)
    told = {
        "tool": files.tool,
        "folder": files.folder.resolve().name,
        "contexts": len(gathered),
        "unread": read.unread,
        "silent": read.silent,
        "missing": int(np.isnan(read.densities).sum()),
    }
    dtypes = {"dtype": str(subject.dtype).removeprefix("torch."), "sae_dtype": "float32", "imported": files.tool}
    return HarvestRow(
        parameters_json(parameters) | dtypes,
        {},
        edges.tolist(),
        counts.tolist(),
        over,
        int((fired.values == 0).sum()),
        0.0,
        {"imported": told},
    )
