"""What pages read: each query returns typed rows, newest revision first."""

import base64
import binascii
import json
import struct
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from sqlalchemy import Select, and_, func, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from app.errors import BadRequest, UnknownSAE
from app.store import tables as t

Sort = Literal["index", "density", "max"]


@dataclass(frozen=True)
class SAERecord:
    """An SAE revision with its subject, harvest and corpus."""

    id: int
    slug: str
    revision: str
    subject: str
    subject_path: str
    subject_facts: dict[str, Any]
    reads: list[str]
    writes: list[str]
    architecture: str
    d_in: int
    n_latents: int
    signed: bool
    config: dict[str, Any]
    path: str
    sha256: str
    corpus_id: int
    corpus: str
    corpus_sha256: str
    corpus_sequences: int
    corpus_documents: int
    corpus_context: int
    parameters: dict[str, Any]
    metrics: dict[str, Any]
    density_edges: list[float]
    density_counts: list[int]
    tokens: int
    dead: int
    seconds: float
    finished: datetime
    pinned: bool = False

    @property
    def address(self) -> str:
        """What stands for it in URLs: its slug, or ``slug@revision`` where it was asked for by revision."""
        return f"{self.slug}@{self.revision}" if self.pinned else self.slug


@dataclass(frozen=True)
class LatentRecord:
    """Every column of a latent; see app.store.tables."""

    index: int
    fired: int
    density: float
    mean: float
    std: float
    maximum: float
    minimum: float
    histogram_first: int
    histogram: list[int]
    histogram_negative: list[int]
    promoted_ids: list[int]
    promoted_logits: list[float]
    suppressed_ids: list[int]
    suppressed_logits: list[float]
    neighbour_ids: list[int]
    neighbour_cosines: list[float]
    decoder_norm: float
    encoder_decoder_cosine: float
    label: str
    label_source: str
    label_score: float | None
    head_shares: list[float] | None


@dataclass(frozen=True)
class LatentSummary:
    """What tables, neighbours and prompts show of a latent."""

    index: int
    label: str
    label_source: str
    density: float
    maximum: float
    minimum: float
    promoted_ids: list[int]


@dataclass(frozen=True)
class ExampleRecord:
    """A stored context with its window of token ids. activations: [len(token_ids)] fp32."""

    sign: int
    interval: int
    rank: int
    sequence_id: int
    position: int
    start: int
    activation: float
    token_ids: list[int]
    document: str
    activations: npt.NDArray[np.float32]


_SUMMARY = [
    t.latent.c[name] for name in ("index", "label", "label_source", "density", "maximum", "minimum", "promoted_ids")
]


def _saes() -> Select[Any]:
    s, h, c, m = t.sae.c, t.harvest.c, t.corpus.c, t.subject.c
    return (
        select(
            s.id, s.slug, s.revision, m.name.label("subject"), m.path.label("subject_path"),
            m.facts.label("subject_facts"), s.reads, s.writes, s.architecture, s.d_in, s.n_latents, s.signed,
            s.config, s.path, s.sha256, h.corpus_id, c.name.label("corpus"), c.sha256.label("corpus_sha256"),
            c.sequences.label("corpus_sequences"), c.documents.label("corpus_documents"),
            c.context.label("corpus_context"), h.parameters, h.metrics, h.density_edges, h.density_counts,
            h.tokens, h.dead, h.seconds, h.finished,
        )
        .join(t.subject, s.subject_id == m.id)
        .join(t.harvest, h.sae_id == s.id)
        .join(t.corpus, h.corpus_id == c.id)
    )  # fmt: skip


def _sae(row: Any, *, pinned: bool = False) -> SAERecord:
    values = dict(row._mapping)
    return SAERecord(**{**values, "signed": bool(values["signed"])}, pinned=pinned)


async def list_saes(connection: AsyncConnection) -> list[SAERecord]:
    """The newest revision of every SAE, by slug."""
    newest = select(func.max(t.sae.c.id)).group_by(t.sae.c.slug).scalar_subquery()
    found = await connection.execute(_saes().where(t.sae.c.id.in_(newest)).order_by(t.sae.c.slug))
    return [_sae(row) for row in found]


async def get_sae(connection: AsyncConnection, address: str) -> SAERecord:
    """The newest revision of the SAE ``address``, or exactly the one it names as ``slug@revision``.

    Raises:
        UnknownSAE: there is none; names those there are.
    """
    if "\0" in address or any("\ud800" <= ch <= "\udfff" for ch in address):  # no text of a database
        raise UnknownSAE(f"There is no SAE {address[:60]!r} here.", sae=repr(address[:60]))
    slug, at, revision = address.partition("@")
    query = _saes().where(t.sae.c.slug == slug).order_by(t.sae.c.id.desc()).limit(1)
    row = (await connection.execute(query.where(t.sae.c.revision == revision) if at else query)).first()
    if row is not None:
        return _sae(row, pinned=bool(at))
    revisions = select(t.sae.c.revision).where(t.sae.c.slug == slug).order_by(t.sae.c.id.desc()).limit(20)
    if at and (known := (await connection.execute(revisions)).scalars().all()):
        raise UnknownSAE(
            f"{slug} has no revision {revision!r} here; there are: {', '.join(known)}.", sae=slug, revision=revision
        )
    slugs = (await connection.execute(select(t.sae.c.slug).distinct().order_by(t.sae.c.slug).limit(20))).scalars()
    raise UnknownSAE(f"There is no SAE {slug!r} here; there are: {', '.join(slugs) or 'none yet'}.", sae=slug)


async def get_latent(connection: AsyncConnection, sae_id: int, index: int) -> LatentRecord | None:
    columns = [column for column in t.latent.c if column.name != "sae_id"]
    found = await connection.execute(select(*columns).where(t.latent.c.sae_id == sae_id, t.latent.c.index == index))
    row = found.first()
    return None if row is None else LatentRecord(**row._mapping)


async def get_summaries(connection: AsyncConnection, sae_id: int, indices: list[int]) -> dict[int, LatentSummary]:
    """The latents asked for, by index, in one query."""
    if not indices:
        return {}
    wanted = select(*_SUMMARY).where(t.latent.c.sae_id == sae_id, t.latent.c.index.in_(indices))
    found = [LatentSummary(**row._mapping) for row in await connection.execute(wanted)]
    return {latent.index: latent for latent in found}


async def get_examples(connection: AsyncConnection, sae: SAERecord, index: int) -> list[ExampleRecord]:
    """All stored examples of a latent: top first, then the intervals upwards; by rank within each."""
    e, s = t.example.c, t.sequence.c
    width = int(sae.parameters["width"])
    query = (
        select(
            e.sign, e.interval, e.rank, e.sequence_id, e.position, e.start, e.activation, e.offsets, e.shares,
            s.token_ids, s.document,
        )
        .join(t.sequence, and_(s.corpus_id == sae.corpus_id, s.id == e.sequence_id))
        .where(e.sae_id == sae.id, e.latent == index)
        .order_by(e.sign.desc(), (e.interval == t.TOP).desc(), e.interval, e.rank)
    )  # fmt: skip
    examples = []
    for row in await connection.execute(query):
        ids = row.token_ids[row.start : row.start + width]
        activations = np.zeros(len(ids), dtype=np.float32)
        shares = np.frombuffer(row.shares, dtype="<f2").astype(np.float32)
        activations[np.asarray(row.offsets, dtype=np.int64)] = shares * np.float32(row.activation)
        examples.append(
            ExampleRecord(
                row.sign, row.interval, row.rank, row.sequence_id, row.position, row.start, row.activation, ids,
                row.document, activations,
            )
        )  # fmt: skip
    return examples


async def page_latents(
    connection: AsyncConnection,
    sae_id: int,
    *,
    sort: Sort,
    descending: bool,
    cursor: str | None,
    limit: int,
    label: str | None = None,
) -> tuple[list[LatentSummary], str | None]:
    """One keyset page and the cursor of the next (None at the end); ``label`` keeps latents whose label holds it,
    whatever its case.

    Raises:
        BadRequest: the cursor was not made by this function for this order.
    """
    by = {"index": t.latent.c.index, "density": t.latent.c.density, "max": t.latent.c.maximum}[sort]
    key = (by, t.latent.c.index)
    query = select(*_SUMMARY).where(t.latent.c.sae_id == sae_id)
    if label:
        query = query.where(t.latent.c.label.icontains(label, autoescape=True))
    if cursor:
        value, index = _read_cursor(cursor, sort, descending)
        after = (value, index)
        query = query.where(tuple_(*key) < tuple_(*after) if descending else tuple_(*key) > tuple_(*after))
    query = query.order_by(*(k.desc() if descending else k.asc() for k in key)).limit(limit + 1)
    rows = [LatentSummary(**row._mapping) for row in await connection.execute(query)]
    if len(rows) <= limit:
        return rows, None
    last = rows[limit - 1]
    value = {"index": last.index, "density": last.density, "max": last.maximum}[sort]
    return rows[:limit], _write_cursor(sort, descending, value, last.index)


def _write_cursor(sort: str, descending: bool, value: float, index: int) -> str:
    raw = json.dumps([sort, descending, value, index], separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def _read_cursor(cursor: str, sort: str, descending: bool) -> tuple[float, int]:
    try:
        if len(cursor) > 200:
            raise ValueError("cursor")
        made_for, order, value, index = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        value = int(value) if sort == "index" else struct.unpack("f", struct.pack("f", float(value)))[0]
        index = int(index)
        if not -(2**31) <= index < 2**31 or (sort == "index" and not -(2**31) <= value < 2**31):
            raise ValueError("index")
    except (ValueError, TypeError, OverflowError, struct.error, binascii.Error, UnicodeDecodeError, RecursionError):
        made_for, order, value, index = None, None, 0.0, 0
    if made_for != sort or order is not descending:
        raise BadRequest(
            f"Cursor {cursor[:40]!r} does not belong to this table's order; start again without a cursor.",
            cursor=cursor[:200],
        )
    return value, index
