"""Writing a harvest: binary COPY into fresh partitions, attached at the end of one transaction."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from psycopg import sql
from sqlalchemy import Connection, Engine, delete, select, text, update
from sqlalchemy.dialects.postgresql import insert

from app.errors import HarvestRunning
from app.store import tables as t
from app.store.copying import Column, Fixed, Raw, copy_in, ragged
from app.store.engine import explained
from app.store.locks import sole_right
from app.store.plain import plain, storable

Ints = npt.NDArray[np.integer[Any]]
Chunks = Iterable[dict[str, Column]]


@dataclass(frozen=True)
class SubjectRow:
    """``sha256`` tells subjects apart: two of one name are two."""

    name: str
    path: str
    facts: dict[str, Any]
    sha256: str


@dataclass(frozen=True)
class CorpusRows:
    """A corpus with its sequences (token ids with BOS, document name) in order, and its documents' numbers and
    names."""

    name: str
    sha256: str
    context: int
    tokens: int
    sequences: Callable[[], Iterator[tuple[Ints, str]]]
    documents: Callable[[], Iterator[tuple[int, str]]]


@dataclass(frozen=True)
class SAERow:
    slug: str
    revision: str
    reads: list[str]
    writes: list[str]
    architecture: str
    d_in: int
    n_latents: int
    signed: bool
    config: dict[str, Any]
    path: str
    sha256: str


@dataclass(frozen=True)
class HarvestRow:
    parameters: dict[str, Any]
    metrics: dict[str, Any]
    density_edges: list[float]
    density_counts: list[int]
    tokens: int
    dead: int
    seconds: float
    facts: dict[str, Any]


_LATENT_TYPES = {
    "sae_id": "int4", "index": "int4", "fired": "int8", "density": "float4", "mean": "float4", "std": "float4",
    "maximum": "float4", "minimum": "float4", "histogram_first": "int2", "histogram": "int4[]",
    "histogram_negative": "int4[]", "promoted_ids": "int4[]", "promoted_logits": "float4[]",
    "suppressed_ids": "int4[]", "suppressed_logits": "float4[]", "neighbour_ids": "int4[]",
    "neighbour_cosines": "float4[]", "decoder_norm": "float4", "encoder_decoder_cosine": "float4", "label": "text",
    "label_source": "text", "label_score": "float4", "head_shares": "float4[]", "place_counts": "int4[]",
    "first_fired": "int8", "last_fired": "int8", "token_mean_ids": "int4[]", "token_mean_values": "float4[]",
    "token_probability_ids": "int4[]", "token_probability_values": "float4[]", "token_probability_seen": "int4[]",
    "coactive_ids": "int4[]", "coactive_phi": "float4[]", "coactive_together": "int4[]", "documents": "int8",
    "document_ids": "int4[]", "document_fires": "int4[]",
}  # fmt: skip
_EXAMPLE_TYPES = {
    "sae_id": "int4", "latent": "int4", "sign": "int2", "interval": "int2", "rank": "int2", "sequence_id": "int4",
    "position": "int4", "start": "int4", "activation": "float4", "offsets": "int2[]", "shares": "bytea",
}  # fmt: skip
_CONTEXT_TYPES = {"sae_id": "int4", "id": "int4", "sequence_id": "int4", "start": "int4", "norm": "float4"}
_POSTING_TYPES = {"sae_id": "int4", "latent": "int4", "contexts": "bytea", "weights": "bytea", "offsets": "bytea"}


def harvest_lock(engine: Engine, slug: str) -> AbstractContextManager[None]:
    """Hold the only right to harvest ``slug`` in this database.

    Raises (when entered):
        HarvestRunning: another process holds it.
    """
    told = f"A harvest of {slug!r} is already running; wait for it or stop it first."
    return sole_right(engine, f"harvest {slug}", HarvestRunning(told, sae=slug))


def save_harvest(
    engine: Engine,
    subject: SubjectRow,
    corpus: CorpusRows,
    sae: SAERow,
    harvest: HarvestRow,
    latents: Chunks,
    examples: Chunks,
    contexts: Chunks,
    postings: Chunks,
) -> int:
    """Write everything in one transaction and return the new sae id; on any failure nothing of it is there.

    latents, examples, contexts and postings are columns of their tables without sae_id, some rows at a time, in order
    of the primary key.

    A revision that is there already (the same weights, subject, corpus and parameters) is replaced.
    """
    with explained(), engine.begin() as connection:
        subject_id = _upsert_subject(connection, subject)
        corpus_id = _upsert_corpus(connection, corpus)
        _drop_revision(connection, sae.slug, sae.revision)
        sae_id = int(
            connection.execute(
                insert(t.sae)
                .values(subject_id=subject_id, **plain({**vars(sae), "signed": int(sae.signed)}))
                .returning(t.sae.c.id)
            ).scalar_one()
        )
        connection.execute(insert(t.harvest).values(sae_id=sae_id, corpus_id=corpus_id, **plain(vars(harvest))))
        for table, types, chunks in (
            (t.latent, _LATENT_TYPES, latents),
            (t.example, _EXAMPLE_TYPES, examples),
            (t.context, _CONTEXT_TYPES, contexts),
            (t.posting, _POSTING_TYPES, postings),
        ):
            fill_partition(connection, table.name, sae_id, types, chunks)
        return sae_id


def _upsert_subject(connection: Connection, subject: SubjectRow) -> int:
    """The row of this very model, which lies at ``path`` now. Another model of the same name keeps its row, and this
    one is called ``name (first digits of its hash)``. A row without a hash is this model if it is of the same folder.
    """
    s = t.subject.c
    same_folder = (s.sha256.is_(None)) & (s.name == subject.name) & (s.path == subject.path)
    mine = select(s.id).where((s.sha256 == subject.sha256) | same_folder).order_by(s.sha256.nulls_last()).limit(1)
    names = [subject.name, f"{subject.name} ({subject.sha256[:8]})", f"{subject.name} ({subject.sha256})"]
    while True:  # again where another harvest has just taken the name, or has just saved this model
        if (known := connection.execute(mine).scalar()) is not None:
            now = {"path": subject.path, "facts": subject.facts, "sha256": subject.sha256}
            connection.execute(update(t.subject).where(s.id == known).values(now))
            return int(known)
        taken = set(connection.execute(select(s.name).where(s.name.in_(names))).scalars())
        name = next(name for name in names if name not in taken)
        statement = insert(t.subject).values(**{**vars(subject), "name": name}).on_conflict_do_nothing()
        if (made := connection.execute(statement.returning(s.id)).scalar()) is not None:
            return int(made)


def _upsert_corpus(connection: Connection, corpus: CorpusRows) -> int:
    # Locked, so that nobody takes it for unused before this harvest refers to it.
    there = select(t.corpus.c.id).where(t.corpus.c.sha256 == corpus.sha256)
    known = connection.execute(there.with_for_update(read=True, key_share=True)).scalar()
    if known is not None:
        return int(known)
    facts = {"name": storable(corpus.name), "sha256": corpus.sha256, "context": corpus.context, "tokens": corpus.tokens}
    statement = insert(t.corpus).values(sequences=0, documents=0, **facts)
    corpus_id = int(connection.execute(statement.returning(t.corpus.c.id)).scalar_one())
    n_sequences = copy_in(
        connection,
        sql.Identifier("sequence"),
        {"corpus_id": "int4", "id": "int4", "token_ids": "int4[]", "document": "text"},
        _sequence_chunks(corpus_id, corpus.sequences()),
    )
    n_documents = copy_in(
        connection,
        sql.Identifier("document"),
        {"corpus_id": "int4", "id": "int4", "name": "text"},
        _document_chunks(corpus_id, corpus.documents()),
    )
    counts = update(t.corpus).where(t.corpus.c.id == corpus_id)
    connection.execute(counts.values(sequences=n_sequences, documents=n_documents))
    return corpus_id


def _sequence_chunks(corpus_id: int, sequences: Iterator[tuple[Ints, str]]) -> Iterator[dict[str, Column]]:
    first = 0
    for chunk in _batched(sequences):
        number = np.arange(first, first + len(chunk))
        yield {
            "corpus_id": Fixed(np.full(len(chunk), corpus_id)),
            "id": Fixed(number),
            "token_ids": ragged([ids for ids, _ in chunk], np.int32),
            "document": Raw.of_strings([name for _, name in chunk]),
        }
        first += len(chunk)


def _document_chunks(corpus_id: int, documents: Iterator[tuple[int, str]]) -> Iterator[dict[str, Column]]:
    for chunk in _batched(documents):
        yield {
            "corpus_id": Fixed(np.full(len(chunk), corpus_id)),
            "id": Fixed(np.array([number for number, _ in chunk])),
            "name": Raw.of_strings([name for _, name in chunk]),
        }


_T = TypeVar("_T")


def _batched(items: Iterator[_T], size: int = 4096) -> Iterator[list[_T]]:
    while chunk := list(islice(items, size)):
        yield chunk


def _drop_revision(connection: Connection, slug: str, revision: str) -> None:
    old = connection.execute(select(t.sae.c.id).where(t.sae.c.slug == slug, t.sae.c.revision == revision)).scalar()
    if old is not None:
        for table in t.PARTITIONED:
            connection.execute(text(f"DROP TABLE IF EXISTS {table.name}_{int(old)}"))
        connection.execute(delete(t.sae).where(t.sae.c.id == old))


def fill_partition(connection: Connection, table: str, sae_id: int, types: dict[str, str], chunks: Chunks) -> None:
    """Copy rows (without sae_id) into the SAE's partition of ``table``, which is made and attached if there is none."""
    partition = f"{table}_{sae_id}"
    fresh = _made(connection, table, partition)
    whole = ({"sae_id": Fixed(np.full(_rows(chunk), sae_id)), **chunk} for chunk in chunks)
    copy_in(connection, sql.Identifier(partition), types, whole)
    if fresh:
        _attach(connection, table, partition, sae_id)
    connection.execute(text(f"ANALYZE {partition}"))


def make_partition(connection: Connection, table: str, sae_id: int) -> None:
    """The SAE's partition of ``table``, empty, if there is none."""
    partition = f"{table}_{sae_id}"
    if _made(connection, table, partition):
        _attach(connection, table, partition, sae_id)


def _made(connection: Connection, table: str, partition: str) -> bool:
    if connection.execute(text("SELECT to_regclass(:name)"), {"name": partition}).scalar() is not None:
        return False
    like = f"LIKE {table} INCLUDING DEFAULTS INCLUDING STORAGE INCLUDING GENERATED"
    connection.execute(text(f"CREATE TABLE {partition} ({like})"))
    return True


def _attach(connection: Connection, table: str, partition: str, sae_id: int) -> None:
    # The check spares ATTACH its scan of the rows.
    connection.execute(text(f"ALTER TABLE {partition} ADD CHECK (sae_id = {sae_id})"))
    connection.execute(text(f"ALTER TABLE {table} ATTACH PARTITION {partition} FOR VALUES IN ({sae_id})"))


def _rows(chunk: dict[str, Column]) -> int:
    column = next(iter(chunk.values()))
    return len(column.values if isinstance(column, Fixed) else column.lengths)
