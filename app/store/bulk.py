"""Writing a harvest: binary COPY into fresh partitions, attached at the end of one transaction."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import psycopg
from psycopg import sql
from sqlalchemy import Connection, Engine, delete, select, text
from sqlalchemy.dialects.postgresql import insert

from app.errors import HarvestRunning
from app.store import tables as t
from app.store.engine import explained

Ints = npt.NDArray[np.integer[Any]]
Floats = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class SubjectRow:
    name: str
    path: str
    facts: dict[str, Any]


@dataclass(frozen=True)
class CorpusRows:
    """A corpus with its sequences (token ids with BOS, document name) in order."""

    name: str
    sha256: str
    context: int
    documents: int
    tokens: int
    sequences: list[tuple[Ints, str]]


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


@dataclass(frozen=True)
class LatentRows:
    """Columns of the latent table; entry i is latent i. Lists hold one array a latent."""

    columns: dict[str, Any]


@dataclass(frozen=True)
class ExampleRows:
    """Columns of the example table, sorted by its primary key; offsets and shares hold one array a row."""

    columns: dict[str, Any]


_LATENT_TYPES = {
    "sae_id": "int4", "index": "int4", "fired": "int8", "density": "float4", "mean": "float4", "std": "float4",
    "maximum": "float4", "minimum": "float4", "histogram_first": "int2", "histogram": "int4[]",
    "histogram_negative": "int4[]", "promoted_ids": "int4[]", "promoted_logits": "float4[]",
    "suppressed_ids": "int4[]", "suppressed_logits": "float4[]", "neighbour_ids": "int4[]",
    "neighbour_cosines": "float4[]", "decoder_norm": "float4", "encoder_decoder_cosine": "float4", "label": "text",
    "label_source": "text", "label_score": "float4", "head_shares": "float4[]",
}  # fmt: skip
_EXAMPLE_TYPES = {
    "sae_id": "int4", "latent": "int4", "sign": "int2", "interval": "int2", "rank": "int2", "sequence_id": "int4",
    "position": "int4", "start": "int4", "activation": "float4", "offsets": "int2[]", "shares": "bytea",
}  # fmt: skip


@contextmanager
def harvest_lock(engine: Engine, slug: str) -> Iterator[None]:
    """Hold the only right to harvest ``slug`` in this database; it goes with the connection, however that ends.

    Raises:
        HarvestRunning: another process holds it.
    """
    with explained(), engine.connect() as connection:
        key = text("SELECT pg_try_advisory_lock(hashtextextended(:slug, 7))")
        if not connection.execute(key, {"slug": f"harvest {slug}"}).scalar():
            raise HarvestRunning(f"A harvest of {slug!r} is already running; wait for it or stop it first.", sae=slug)
        connection.commit()
        try:
            yield
        finally:
            connection.execute(
                text("SELECT pg_advisory_unlock(hashtextextended(:slug, 7))"), {"slug": f"harvest {slug}"}
            )
            connection.commit()


def save_harvest(
    engine: Engine,
    subject: SubjectRow,
    corpus: CorpusRows,
    sae: SAERow,
    harvest: HarvestRow,
    latents: LatentRows,
    examples: ExampleRows,
) -> int:
    """Write everything in one transaction and return the new sae id; on any failure nothing of it is there.

    A revision that is there already (the same weights, corpus and parameters) is replaced.
    """
    with explained(), engine.begin() as connection:
        subject_id = _upsert_subject(connection, subject)
        corpus_id = _upsert_corpus(connection, corpus)
        _drop_revision(connection, sae.slug, sae.revision)
        sae_id = int(
            connection.execute(
                insert(t.sae)
                .values(subject_id=subject_id, **{**vars(sae), "signed": int(sae.signed)})
                .returning(t.sae.c.id)
            ).scalar_one()
        )
        connection.execute(insert(t.harvest).values(sae_id=sae_id, corpus_id=corpus_id, **vars(harvest)))
        for table, types, columns in (
            (t.latent, _LATENT_TYPES, latents.columns),
            (t.example, _EXAMPLE_TYPES, examples.columns),
        ):
            _fill_partition(connection, table.name, sae_id, types, columns)
        return sae_id


def _upsert_subject(connection: Connection, subject: SubjectRow) -> int:
    statement = insert(t.subject).values(**vars(subject))
    statement = statement.on_conflict_do_update(
        index_elements=["name"], set_={"path": subject.path, "facts": subject.facts}
    )
    return int(connection.execute(statement.returning(t.subject.c.id)).scalar_one())


def _upsert_corpus(connection: Connection, corpus: CorpusRows) -> int:
    known = connection.execute(select(t.corpus.c.id).where(t.corpus.c.sha256 == corpus.sha256)).scalar()
    if known is not None:
        return int(known)
    facts = {name: value for name, value in vars(corpus).items() if name != "sequences"}
    statement = insert(t.corpus).values(sequences=len(corpus.sequences), **facts)
    corpus_id = int(connection.execute(statement.returning(t.corpus.c.id)).scalar_one())
    rows = ((corpus_id, number, ids.tolist(), document) for number, (ids, document) in enumerate(corpus.sequences))
    _copy(connection, sql.Identifier("sequence"), ["corpus_id", "id", "token_ids", "document"],
          ["int4", "int4", "int4[]", "text"], rows)  # fmt: skip
    return corpus_id


def _drop_revision(connection: Connection, slug: str, revision: str) -> None:
    old = connection.execute(select(t.sae.c.id).where(t.sae.c.slug == slug, t.sae.c.revision == revision)).scalar()
    if old is not None:
        for table in t.PARTITIONED:
            connection.execute(text(f"DROP TABLE IF EXISTS {table.name}_{int(old)}"))
        connection.execute(delete(t.sae).where(t.sae.c.id == old))


def _fill_partition(
    connection: Connection, table: str, sae_id: int, types: dict[str, str], columns: dict[str, Any]
) -> None:
    partition = f"{table}_{sae_id}"
    connection.execute(text(f"CREATE TABLE {partition} (LIKE {table} INCLUDING DEFAULTS)"))
    names = [name for name in types if name != "sae_id"]
    lists = [_as_list(columns[name]) for name in names]
    rows = ((sae_id, *row) for row in zip(*lists, strict=True))
    _copy(connection, sql.Identifier(partition), ["sae_id", *names], ["int4", *(types[n] for n in names)], rows)
    # The check spares ATTACH its scan of the rows.
    connection.execute(text(f"ALTER TABLE {partition} ADD CHECK (sae_id = {sae_id})"))
    connection.execute(text(f"ALTER TABLE {table} ATTACH PARTITION {partition} FOR VALUES IN ({sae_id})"))
    connection.execute(text(f"ANALYZE {partition}"))


def _as_list(column: Any) -> list[Any]:
    return column.tolist() if isinstance(column, np.ndarray) else list(column)


def _copy(
    connection: Connection,
    table: sql.Identifier,
    names: list[str],
    types: list[str],
    rows: Iterable[tuple[Any, ...]],
) -> None:
    raw: psycopg.Connection = connection.connection.driver_connection  # type: ignore[assignment]
    query = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT BINARY)").format(
        table, sql.SQL(", ").join(map(sql.Identifier, names))
    )
    with raw.cursor() as cursor, cursor.copy(query) as copy:
        copy.set_types(types)
        for row in rows:
            copy.write_row(row)
