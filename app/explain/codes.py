"""The pass that explanations are made from: an SAE's activations over a sample of its harvest's sequences."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from sqlalchemy import Engine

from app.atlas.kept import Arrays, Kept
from app.corpus.sequences import Held, Sequence
from app.errors import CorpusUnavailable, InvalidSAE
from app.explain.sample import Chosen, choose
from app.explain.samples import Codes
from app.harvest.batches import groups
from app.harvest.job import in_dtype, read_sae, resolved
from app.harvest.reader import Reader
from app.store.engine import explained
from app.store.explain_sources import CorpusIndex, ExplainSource, corpus_index, read_sequences
from app.subject.load import Subject, load_subject

TOKENS = 262_144
PART = 16_384  # tokens that are read again after a kill, at most
VERSION = 1


@dataclass(frozen=True)
class Sampled:
    """name: of the sample, from all that decides it; kept_apart: what no two splits share, documents or blocks."""

    codes: Codes
    chosen: Chosen
    name: str


def sample_name(corpus_sha256: str, tokens: int) -> str:
    return f"v{VERSION}-{corpus_sha256[:10]}-{tokens}"


def kept_codes(folder: Path) -> Kept:
    """The activations that lie with the SAE in ``folder``."""
    return Kept(folder, "codes", "What latents do on the sample")


def part_of(sample: str, revision: str, part: int, parts: int) -> dict[str, Any]:
    """What a file of activations is kept by."""
    return {"sample": sample, "revision": revision, "part": part, "parts": parts}


def chosen_of(index: CorpusIndex, tokens: int) -> Chosen:
    """The sample of at most ``tokens`` tokens of a corpus."""
    return choose(index.names, np.maximum(index.lengths - 1, 0), tokens, packed=index.packed)


def read_codes(
    engine: Engine,
    source: ExplainSource,
    home: Path,
    tokens: int = TOKENS,
    *,
    device: str = "auto",
    doing: Callable[[str], None] = lambda stage: None,
    step: Callable[[int, int], None] = lambda done, total: None,
) -> Sampled:
    """The activations over at most ``tokens`` tokens of the corpus that ``source`` was harvested over: from files, or
    by a pass with the subject. What a killed pass had done is kept.

    Raises:
        SubjectUnavailable, InvalidSAE: their files are gone or no longer fit each other.
        CorpusUnavailable: the sample leaves a split without text.
    """
    with explained(), engine.connect() as connection:
        index = corpus_index(connection, source.corpus_id)
        chosen = chosen_of(index, tokens)
        if len(np.unique(chosen.split)) < 3:
            raise CorpusUnavailable(
                f"{len(index.names)} sequences of {source.slug}'s corpus cannot be kept apart for learning and "
                "testing; harvest more text, or give more --tokens.",
                sae=source.slug,
            )
        ids = read_sequences(connection, source.corpus_id, chosen.sequence.tolist())
    kept, sample = kept_codes(home / source.path), sample_name(source.corpus_sha256, tokens)
    parts = parts_of([len(row) for row in ids])
    read = _Pass(source, home, device, doing)
    held: list[Arrays] = []
    for number, part in enumerate(parts):
        of = part_of(sample, source.revision, number, len(parts))
        held.append(kept.get("codes", of, partial(read, ids[part.start : part.stop])))
        step(number + 1, len(parts))
    doing("sorting activations by latent")
    return Sampled(_joined(source.n_latents, chosen, ids, parts, held), chosen, sample)


def parts_of(lengths: Iterable[int]) -> list[range]:
    """Consecutive sequences of at least PART tokens together, but for the last. lengths: in tokens, of each."""
    out, start, size, number = [], 0, 0, -1
    for number, length in enumerate(lengths):
        size += length
        if size >= PART:
            out.append(range(start, number + 1))
            start, size = number + 1, 0
    return [*out, range(start, number + 1)] if start <= number else out


class _Pass:
    """Reads sequences; the subject is loaded when there is something to read."""

    def __init__(self, source: ExplainSource, home: Path, device: str, doing: Callable[[str], None]) -> None:
        self._source, self._home, self._device, self._doing = source, home, device, doing
        self._reader: Reader | None = None
        self._subject: Subject | None = None

    def _load(self) -> Reader:
        source, dtype = self._source, self._source.parameters
        self._doing("loading the subject")
        subject = load_subject(
            self._home / source.subject_path, source.subject, dtype.get("dtype", "auto"), self._device
        )
        sae = resolved(read_sae(self._home / source.path), subject).to(subject.device)
        if sae.config.n_latents != source.n_latents:
            raise InvalidSAE(
                f"The files of {source.slug} hold {sae.config.n_latents:,} latents where {source.n_latents:,} were "
                "harvested; harvest it again.",
                sae=source.slug,
            )
        self._subject = subject
        self._doing("reading what latents do on the sample")
        return Reader(subject, [in_dtype(sae, dtype.get("sae_dtype", "float32"))], names=[source.slug])

    def __call__(self, ids: list[npt.NDArray[np.int32]]) -> Arrays:
        if self._reader is None:
            self._reader = self._load()
        begin = np.concatenate([[0], np.cumsum([len(row) for row in ids])])
        counted = np.zeros(begin[-1], bool)
        latents, places, values = [], [], []
        rows = Held(Sequence(row, "") for row in ids)
        for first, some in groups(rows, int(self._source.parameters.get("batch_tokens", 8192))):
            for (read,) in self._reader.read(first, some):
                batch = read.batch
                at = begin[batch.first_sequence + batch.sequence.cpu().numpy()] + batch.place.cpu().numpy()
                counted[at] = True
                latents.append(batch.acts.latent.cpu().numpy().astype(np.int32))
                places.append(at[batch.acts.position.cpu().numpy()].astype(np.int32))
                values.append(batch.acts.value.float().cpu().numpy())
        latent, place, value = map(np.concatenate, (latents, places, values))
        active = value != 0
        return {"latent": latent[active], "place": place[active], "value": value[active], "counted": counted}


def _joined(
    n_latents: int,
    chosen: Chosen,
    ids: list[npt.NDArray[np.int32]],
    parts: list[range],
    held: list[Arrays],
) -> Codes:
    begin = np.concatenate([[0], np.cumsum([len(row) for row in ids])])
    latent = np.concatenate([one["latent"] for one in held])
    place = np.concatenate([
        one["place"] + np.int32(begin[part.start]) for part, one in zip(parts, held, strict=True)
    ])  # fmt: skip
    order = np.lexsort((place, latent))
    return Codes(
        chosen.sequence,
        begin,
        chosen.split,
        chosen.document,
        np.concatenate(ids),
        np.concatenate([one["counted"] for one in held]),
        np.concatenate([[0], np.cumsum(np.bincount(latent, minlength=n_latents))]),
        place[order],
        np.concatenate([one["value"] for one in held])[order],
    )
