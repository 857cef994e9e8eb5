"""What pages read: each query returns typed rows, newest revision first.

Statements that every page asks are made once, with bound parameters: making them anew takes longer than asking.
"""

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Integer,
    Select,
    and_,
    bindparam,
    func,
    literal_column,
    or_,
    select,
    tuple_,
)
from sqlalchemy.dialects.postgresql import ARRAY, aggregate_order_by
from sqlalchemy.ext.asyncio import AsyncConnection

from app.errors import UnknownSAE
from app.store import tables as t
from app.store.pipeline import Asked, Rows, ask
from app.store.reader import visible
from app.store.references import Feature


@dataclass(frozen=True)
class SAERecord:
    """An SAE revision with its subject, harvest and corpus."""

    id: int
    slug: str
    revision: str
    subject: str
    subject_path: str
    subject_facts: dict[str, Any]
    subject_sha256: str | None
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
    facts: dict[str, Any]
    edition: int  # grows whenever a latent's row changes
    lists: int  # grows whenever what lists there are, what they are called or what they hold changes
    pinned: bool = False

    @property
    def address(self) -> str:
        """What stands for it in URLs: its slug, or ``slug@revision`` where it was asked for by revision."""
        return f"{self.slug}@{self.revision}" if self.pinned else self.slug


@dataclass(frozen=True)
class LatentRecord:
    """Every column of a latent, see app.store.tables, and the names of its documents."""

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
    explanation_id: int | None
    head_shares: list[float] | None
    # None in harvests older than these statistics:
    place_counts: list[int] | None
    first_fired: int | None
    last_fired: int | None
    token_mean_ids: list[int] | None
    token_mean_values: list[float] | None
    token_probability_ids: list[int] | None
    token_probability_values: list[float] | None
    token_probability_seen: list[int] | None
    coactive_ids: list[int] | None
    coactive_phi: list[float] | None
    coactive_together: list[int] | None
    documents: int | None
    document_ids: list[int] | None
    document_fires: list[int] | None
    document_names: list[str | None] | None  # of document_ids, in their order
    note: dict[str, Any] | None  # the newest row of the note on it, see app.store.notes
    lists: list[tuple[str, str]] | None  # that it is on, by title: name, title


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
    """A stored context with its window of token ids. activations: one a token."""

    sign: int
    interval: int
    rank: int
    sequence_id: int
    position: int
    start: int
    activation: float
    token_ids: list[int]
    document: str
    activations: list[float]


MOST_LISTS = 20  # that a feature's page names
ANY_OF = func.any(bindparam("indices", type_=ARRAY(Integer)))  # latents asked for together
_OF_LATENT = t.latent.c.sae_id == bindparam("sae")
_FIRED_IN = func.unnest(t.latent.c.document_ids).table_valued("id", with_ordinality="place").render_derived()
_NAMES = (
    select(func.array_agg(aggregate_order_by(t.document.c.name, _FIRED_IN.c.place)))
    .select_from(_FIRED_IN)
    .outerjoin(t.document, and_(t.document.c.corpus_id == bindparam("corpus"), t.document.c.id == _FIRED_IN.c.id))
    .scalar_subquery()
)
_n = (
    select(t.note)
    .where(t.note.c.weights == bindparam("weights"), t.note.c.latent == bindparam("index"))
    .order_by(t.note.c.id.desc())
    .limit(1)
    .subquery("n")
)
_NOTE = select(func.to_jsonb(literal_column("n"))).select_from(_n).where(visible(_n)).scalar_subquery()
_l = (
    select(t.list_.c.slug, t.list_.c.title)
    .join(t.list_item, t.list_item.c.list_id == t.list_.c.id)
    .where(t.list_item.c.reference == bindparam("reference"), visible(t.list_))
    .order_by(t.list_.c.title, t.list_.c.id)
    .limit(MOST_LISTS)
    .subquery("l")
)
_LISTS = select(func.jsonb_agg(func.jsonb_build_array(_l.c.slug, _l.c.title))).scalar_subquery()
_LATENT = select(*[t.latent.c[field.name] for field in fields(LatentRecord)[:-3]], _NAMES, _NOTE, _LISTS).where(
    _OF_LATENT, t.latent.c.index == bindparam("index")
)
_SUMMARIES = select(*[t.latent.c[field.name] for field in fields(LatentSummary)]).where(
    _OF_LATENT, t.latent.c.index == ANY_OF
)


def _saes() -> Select[Any]:
    s, h, c, m = t.sae.c, t.harvest.c, t.corpus.c, t.subject.c
    return (
        select(
            s.id, s.slug, s.revision, m.name.label("subject"), m.path.label("subject_path"),
            m.facts.label("subject_facts"), m.sha256.label("subject_sha256"), s.reads, s.writes, s.architecture,
            s.d_in, s.n_latents, s.signed, s.config, s.path, s.sha256, h.corpus_id, c.name.label("corpus"),
            c.sha256.label("corpus_sha256"), c.sequences.label("corpus_sequences"),
            c.documents.label("corpus_documents"), c.context.label("corpus_context"), h.parameters,
            h.metrics, h.density_edges, h.density_counts, h.tokens, h.dead, h.seconds, h.finished, h.facts, s.edition,
            select(t.list_edition.c.number).scalar_subquery().label("lists"),
        )
        .join(t.subject, s.subject_id == m.id)
        .join(t.harvest, h.sae_id == s.id)
        .join(t.corpus, h.corpus_id == c.id)
    )  # fmt: skip


_NAMED = _saes().where(t.sae.c.slug == bindparam("slug")).order_by(t.sae.c.id.desc()).limit(1)
_NEWEST = _saes().where(t.sae.c.id.in_(select(func.max(t.sae.c.id)).group_by(t.sae.c.slug))).order_by(t.sae.c.slug)
_PINNED = _NAMED.where(t.sae.c.revision == bindparam("revision"))


_ASKED = (
    func.unnest(bindparam("saes", type_=ARRAY(Integer)), bindparam("indices", type_=ARRAY(Integer)))
    .table_valued("sae_id", "index")
    .render_derived(name="asked")
)
_SUMMARIES_OF = select(t.latent.c.sae_id, *[t.latent.c[field.name] for field in fields(LatentSummary)]).join(
    _ASKED, and_(t.latent.c.sae_id == _ASKED.c.sae_id, t.latent.c.index == _ASKED.c.index)
)
_LABELLED = (
    select(t.latent.c.sae_id, t.latent.c.index)
    .join(_ASKED, and_(t.latent.c.sae_id == _ASKED.c.sae_id, t.latent.c.index == _ASKED.c.index))
    .where(t.latent.c.label.icontains(bindparam("text"), autoescape=False))
)


_SAE_COLUMNS = list(_NAMED.selected_columns.keys())


def _sae(row: dict[str, Any], *, pinned: bool = False) -> SAERecord:
    return SAERecord(**{**row, "signed": bool(row["signed"])}, pinned=pinned)


async def list_saes(connection: AsyncConnection) -> list[SAERecord]:
    """The newest revision of every SAE, by slug."""
    return [_sae(dict(row)) for row in (await connection.execute(_NEWEST)).mappings()]


async def get_sae(connection: AsyncConnection, address: str) -> SAERecord:
    """The newest revision of the SAE ``address``, or exactly the one it names as ``slug@revision``.

    Raises:
        UnknownSAE: there is none; names those there are.
    """
    found = await ask(connection, sae_asked(address))
    if found is not None:
        return found
    slug, at, revision = address.partition("@")
    revisions = select(t.sae.c.revision).where(t.sae.c.slug == slug).order_by(t.sae.c.id.desc()).limit(20)
    if at and (known := (await connection.execute(revisions)).scalars().all()):
        raise UnknownSAE(
            f"{slug} has no revision {revision!r} here; there are: {', '.join(known)}.", sae=slug, revision=revision
        )
    slugs = (await connection.execute(select(t.sae.c.slug).distinct().order_by(t.sae.c.slug).limit(20))).scalars()
    raise UnknownSAE(f"There is no SAE {slug!r} here; there are: {', '.join(slugs) or 'none yet'}.", sae=slug)


def sae_asked(address: str) -> Asked[SAERecord | None]:
    """
    Raises:
        UnknownSAE: no SAE can be called so.
    """
    if "\0" in address or any("\ud800" <= ch <= "\udfff" for ch in address):  # no text of a database
        raise UnknownSAE(f"There is no SAE {address[:60]!r} here.", sae=repr(address[:60]))
    slug, at, revision = address.partition("@")
    asked = {"slug": slug, "revision": revision} if at else {"slug": slug}

    def read(rows: Rows) -> SAERecord | None:
        return _sae(dict(zip(_SAE_COLUMNS, rows[0], strict=True)), pinned=bool(at)) if rows else None

    return Asked(_PINNED if at else _NAMED, asked, read)


def sae_of(connection: Connection, slug: str, revision: str | None) -> SAERecord:
    """The newest revision of ``slug``, or ``revision``; one that is known to be there."""
    asked = {"slug": slug, "revision": revision} if revision else {"slug": slug}
    return _sae(dict(connection.execute(_PINNED if revision else _NAMED, asked).mappings().one()))


async def get_latent(connection: AsyncConnection, sae: SAERecord, index: int) -> LatentRecord | None:
    return await ask(connection, latent_asked(sae, index))


def latent_asked(sae: SAERecord, index: int) -> Asked[LatentRecord | None]:
    asked = {"sae": sae.id, "corpus": sae.corpus_id, "weights": sae.sha256, "index": index,
             "reference": str(Feature(sae.slug, sae.revision, index))}  # fmt: skip
    return Asked(_LATENT, asked, lambda rows: LatentRecord(*rows[0]) if rows else None)


async def get_summaries(connection: AsyncConnection, sae_id: int, indices: list[int]) -> dict[int, LatentSummary]:
    """The latents asked for, by index, in one query."""
    if not indices:
        return {}
    rows = await ask(connection, Asked(_SUMMARIES, {"sae": sae_id, "indices": indices}, lambda rows: rows))
    found = [LatentSummary(*row) for row in rows]
    return {latent.index: latent for latent in found}


async def get_summaries_of(
    connection: AsyncConnection, latents: list[tuple[int, int]]
) -> dict[tuple[int, int], LatentSummary]:
    """Latents of several SAEs, named by (SAE's id, index), in one query."""
    if not latents:
        return {}
    first = latents[0][0]
    if all(sae_id == first for sae_id, _ in latents):
        found = await get_summaries(connection, first, [index for _, index in latents])
        return {(first, index): latent for index, latent in found.items()}
    rows = await ask(connection, Asked(_SUMMARIES_OF, _pairs(latents), lambda rows: rows))
    return {(row[0], row[1]): LatentSummary(*row[1:]) for row in rows}


async def labelled(connection: AsyncConnection, latents: list[tuple[int, int]], text: str) -> list[tuple[int, int]]:
    """Those of ``latents`` whose label holds ``text``, whatever its case."""
    if not latents:
        return []
    rows = await connection.execute(_LABELLED, {**_pairs(latents), "text": text})
    return [(row[0], row[1]) for row in rows]


def _pairs(latents: list[tuple[int, int]]) -> dict[str, list[int]]:
    return {"saes": [sae for sae, _ in latents], "indices": [index for _, index in latents]}


async def find_revisions(
    connection: AsyncConnection, revisions: list[tuple[str, str]]
) -> dict[tuple[str, str], SAERecord]:
    """Those (slug, revision) that are here."""
    if not revisions:
        return {}
    named = tuple_(t.sae.c.slug, t.sae.c.revision).in_(revisions)
    found = [_sae(dict(row), pinned=True) for row in (await connection.execute(_saes().where(named))).mappings()]
    return {(sae.slug, sae.revision): sae for sae in found}


async def find_named(
    connection: AsyncConnection, revisions: list[tuple[str, str]]
) -> tuple[dict[tuple[str, str], SAERecord], dict[str, SAERecord]]:
    """Those (slug, revision) that are here, and the newest revision of each slug, in one query."""
    if not revisions:
        return {}, {}
    slugs = {slug for slug, _ in revisions}
    newest = select(func.max(t.sae.c.id)).where(t.sae.c.slug.in_(slugs)).group_by(t.sae.c.slug)
    wanted = _saes().where(or_(tuple_(t.sae.c.slug, t.sae.c.revision).in_(revisions), t.sae.c.id.in_(newest)))
    rows = (await connection.execute(wanted.order_by(t.sae.c.id))).mappings()
    found = [_sae(dict(row), pinned=True) for row in rows]
    return {(sae.slug, sae.revision): sae for sae in found}, {sae.slug: sae for sae in found}


def example_columns() -> list[ColumnElement[Any]]:
    """What ``example_record`` reads, with the parameters of ``example_parameters``."""
    e, s = t.example.c, t.sequence.c
    window = s.token_ids[e.start + 1 : e.start + bindparam("width", type_=Integer)]
    return [
        e.sign, e.interval, e.rank, e.sequence_id, e.position, e.start, e.activation, e.offsets, e.shares,
        window.label("token_ids"), s.document,
    ]  # fmt: skip


def example_parameters(sae: SAERecord) -> dict[str, int]:
    return {"sae": sae.id, "corpus": sae.corpus_id, "width": int(sae.parameters["width"])}


example_of = t.example.c.sae_id == bindparam("sae", type_=Integer)
sequence_of = and_(t.sequence.c.corpus_id == bindparam("corpus"), t.sequence.c.id == t.example.c.sequence_id)
_EXAMPLES = (
    select(*example_columns())
    .join(t.sequence, sequence_of)
    .where(example_of, t.example.c.latent == bindparam("index"))
    .order_by(t.example.c.sign.desc(), (t.example.c.interval == t.TOP).desc(), t.example.c.interval, t.example.c.rank)
)
_EXAMPLE = (
    select(*example_columns(), t.sequence.c.token_ids.label("whole"))
    .join(t.sequence, sequence_of)
    .where(example_of, *(t.example.c[name] == bindparam(name) for name in ("latent", "sign", "interval", "rank")))
)


async def get_examples(connection: AsyncConnection, sae: SAERecord, index: int) -> list[ExampleRecord]:
    """All stored examples of a latent: top first, then the intervals upwards; by rank within each."""
    return await ask(connection, examples_asked(sae, index))


def examples_asked(sae: SAERecord, index: int) -> Asked[list[ExampleRecord]]:
    asked = {**example_parameters(sae), "index": index}
    return Asked(_EXAMPLES, asked, lambda rows: [example_record(row) for row in rows])


async def get_example(
    connection: AsyncConnection, sae: SAERecord, index: int, sign: int, interval: int, rank: int
) -> tuple[ExampleRecord, list[int]] | None:
    """One stored context of a latent, and the token ids of its whole sequence."""
    which = {"latent": index, "sign": sign, "interval": interval, "rank": rank}
    row = (await connection.execute(_EXAMPLE, {**example_parameters(sae), **which})).first()
    return None if row is None else (example_record(row), row.whole)


def example_record(row: Sequence[Any]) -> ExampleRecord:
    sign, interval, rank, sequence, position, start, activation, offsets, shares, token_ids, document = row[:11]
    activations = [0.0] * len(token_ids)
    # Seven digits of the strongest: more than the stored half precision holds, and shorter to write.
    digits = 6 - math.floor(math.log10(abs(activation))) if activation else 0
    for offset, share in zip(offsets, struct.unpack(f"<{len(offsets)}e", shares), strict=True):
        activations[offset] = round(share * activation, digits)
    return ExampleRecord(sign, interval, rank, sequence, position, start, activation, token_ids, document, activations)
