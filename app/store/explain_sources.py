"""What explanations are made from, besides activations: an SAE's row and its latents', and its corpus."""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from sqlalchemy import Connection, func, select

from app.errors import BadRequest, UnknownSAE
from app.store import tables as t

CHUNK = 20_000
Ints = npt.NDArray[np.int64]


class ExplainSource(NamedTuple):
    """An SAE's row, its subject's and its harvest's; paths are in the home if they are not absolute."""

    id: int
    slug: str
    revision: str
    n_latents: int
    signed: bool
    path: str
    subject: str
    subject_path: str
    corpus_id: int
    corpus_sha256: str
    parameters: dict[str, Any]


class CorpusIndex(NamedTuple):
    """names, lengths: of every sequence, in order; packed: whether sequences hold several documents."""

    names: list[str]
    lengths: Ints
    packed: bool


class LatentFacts(NamedTuple):
    """neighbours: int64 [n, k], -1 for none; maxima: float32 [n, 2], of either sign; promoted, suppressed: int64
    [n, k], -1 for none; labels: (label, source) of each; fired: int64 [n]."""

    neighbours: Ints
    maxima: npt.NDArray[np.float32]
    promoted: Ints
    suppressed: Ints
    labels: list[tuple[str, str]]
    fired: Ints


def find_explain_source(connection: Connection, slug: str, revision: str | None) -> ExplainSource:
    """The newest revision of ``slug``, or ``revision``.

    Raises:
        UnknownSAE: it has just been removed.
    """
    s, m, h, c = t.sae.c, t.subject.c, t.harvest.c, t.corpus.c
    query = (
        select(
            s.id, s.slug, s.revision, s.n_latents, s.signed != 0, s.path, m.name, m.path, c.id, c.sha256, h.parameters
        )
        .select_from(t.sae.join(t.subject).join(t.harvest).join(t.corpus))
        .where(s.slug == slug, *([s.revision == revision] if revision else []))
        .order_by(s.id.desc())
        .limit(1)
    )
    row = connection.execute(query).first()
    if row is None:
        raise UnknownSAE(f"There is no SAE {slug!r} here any more.", sae=slug)
    return ExplainSource(*row)


def check_harvested(source: ExplainSource) -> None:
    """
    Raises:
        BadRequest: it was imported, and its corpus is nothing but contexts in which something fires.
    """
    if tool := source.parameters.get("imported"):
        raise BadRequest(
            f"{source.slug}@{source.revision} was imported from {tool}: contexts that were chosen for what fires in "
            "them say nothing of the rest of a text; harvest the SAE here, then explain it.",
            sae=source.slug,
        )


def corpus_index(connection: Connection, corpus_id: int) -> CorpusIndex:
    c = t.sequence.c
    query = select(c.document, func.cardinality(c.token_ids)).where(c.corpus_id == corpus_id).order_by(c.id)
    rows = connection.execute(query).all()
    named = connection.execute(select(func.count()).where(t.document.c.corpus_id == corpus_id)).scalar_one()
    return index_of([row[0] for row in rows], np.array([row[1] for row in rows], np.int64), named)


def index_of(names: list[str], lengths: Ints, documents: int) -> CorpusIndex:
    """names: of the document that each sequence begins in; documents: how many there are."""
    begun = len({name for number, name in enumerate(names) if number == 0 or names[number - 1] != name})
    return CorpusIndex(names, lengths, documents > begun)


def read_sequences(connection: Connection, corpus_id: int, numbers: list[int]) -> list[npt.NDArray[np.int32]]:
    """Token ids of these sequences, in order of number."""
    c = t.sequence.c
    query = select(c.token_ids).where(c.corpus_id == corpus_id, c.id.in_(numbers)).order_by(c.id)
    return [np.array(ids, np.int32) for ids in connection.execute(query).scalars()]


def read_facts(connection: Connection, sae_id: int) -> LatentFacts:
    c = t.latent.c
    query = (
        select(
            c.neighbour_ids, c.maximum, c.minimum, c.promoted_ids, c.suppressed_ids, c.label, c.label_source, c.fired
        )
        .where(c.sae_id == sae_id)
        .order_by(c.index)
    )
    rows: list[Any] = []
    for some in connection.execution_options(stream_results=True, yield_per=CHUNK).execute(query).partitions():
        rows += some
    return LatentFacts(
        _rectangle([row[0] for row in rows]),
        np.maximum(np.array([(row[1], -row[2]) for row in rows], np.float32).reshape(-1, 2), 0),
        _rectangle([row[3] for row in rows]),
        _rectangle([row[4] for row in rows]),
        [(row[5], row[6]) for row in rows],
        np.array([row[7] for row in rows], np.int64),
    )


def _rectangle(rows: list[list[int]]) -> Ints:
    """[rows, longest], -1 where a row is shorter."""
    out = np.full((len(rows), max(map(len, rows), default=0)), -1, np.int64)
    for to, row in zip(out, rows, strict=True):
        to[: len(row)] = row
    return out
