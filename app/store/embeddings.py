"""Explanations' vectors: which are missing, whose they are, and writing them.

An SAE's vectors are all of one model, which the table ``embedding`` names; a trigger takes the vector away from an
explanation whose text changes.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from sqlalchemy import Connection, Engine, case, func, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from app.errors import EmbeddingRunning, UnknownSAE
from app.store import tables as t
from app.store.engine import explained
from app.store.locks import sole_right

Floats = npt.NDArray[np.float32]
_e = t.explanation.c
# A rule's sentence lists up to twenty tokens; what it is about is in the first, which the label has.
_SAID = case((_e.rule.is_(None), _e.text), else_=_e.label)
_WRITE = text(
    """
    UPDATE explanation SET embedding = given.vector::halfvec
    FROM unnest(CAST(:ids AS int8[]), CAST(:texts AS text[]), CAST(:vectors AS text[])) AS given (id, text, vector)
    WHERE explanation.sae_id = :sae AND explanation.id = given.id
    AND given.text = CASE WHEN explanation.rule IS NULL THEN explanation.text ELSE explanation.label END
    AND EXISTS (SELECT FROM embedding WHERE embedding.sae_id = :sae AND embedding.model = :model)
    """
)


class Pending(NamedTuple):
    """An explanation without a vector; text: what is embedded of it."""

    id: int
    text: str


class Standing(NamedTuple):
    """An SAE's vectors: whose they are (None: nobody embedded it), whether there is anything to embed, and whether any
    of it is not; methods: what explanations were made by and labels come from."""

    sae_id: int
    model: str | None
    explained: bool
    missing: bool
    methods: list[str]


def embedding_lock(engine: Engine, sae_id: int) -> AbstractContextManager[None]:
    """Hold the only right to embed the SAE's explanations.

    Raises (when entered):
        EmbeddingRunning: another process holds it.
    """
    told = "Another process is embedding this SAE's explanations; wait for it."
    return sole_right(engine, f"embed {sae_id}", EmbeddingRunning(told, sae=sae_id))


def find_saes(engine: Engine, address: str | None) -> list[tuple[int, str]]:
    """(id, slug@revision) of the SAE ``address``, or of the newest revision of every one.

    Raises:
        UnknownSAE: there is none.
    """
    s = t.sae.c
    query = select(s.id, s.slug, s.revision).order_by(s.slug, s.id.desc())
    if address is None:
        query = query.where(s.id.in_(select(func.max(s.id)).group_by(s.slug)))
    else:
        slug, _, revision = address.partition("@")
        query = query.where(s.slug == slug, *([s.revision == revision] if revision else [])).limit(1)
    with explained(), engine.connect() as connection:
        found = [(int(row.id), f"{row.slug}@{row.revision}") for row in connection.execute(query)]
    if address is not None and not found:
        raise UnknownSAE(f"There is no SAE {address[:60]!r} here.", sae=address[:60])
    return found


def begin(engine: Engine, sae_id: int, model: str) -> str | None:
    """Say that the SAE's vectors are ``model``'s; those of another model are taken away, and its name is returned."""
    with explained(), engine.begin() as connection:
        one = t.embedding.c
        before = connection.execute(select(one.model).where(one.sae_id == sae_id)).scalar()
        if before == model:
            return None
        if before is not None:
            connection.execute(
                update(t.explanation).where(_e.sae_id == sae_id, _e.embedding.is_not(None)).values(embedding=None)
            )
        row = insert(t.embedding).values(sae_id=sae_id, model=model)
        connection.execute(row.on_conflict_do_update(index_elements=[one.sae_id], set_={"model": model}))
        return None if before is None else str(before)


def counts(engine: Engine, sae_id: int) -> tuple[int, int]:
    """How many explanations have a vector, and how many lack one."""
    with explained(), engine.connect() as connection:
        lacking = func.count().filter(_e.embedding.is_(None))
        query = select(func.count(), lacking).where(_e.sae_id == sae_id, _e.status == "ok")
        every, missing = connection.execute(query).one()
        return int(every - missing), int(missing)


def pending(engine: Engine, sae_id: int, after: int, limit: int) -> list[Pending]:
    """Explanations without a vector, by id, from the one after ``after``."""
    with explained(), engine.connect() as connection:
        return _pending(connection, sae_id, after, limit)


def _pending(connection: Connection, sae_id: int, after: int, limit: int) -> list[Pending]:
    return [Pending(*row) for row in connection.execute(_pending_of(sae_id, after, limit))]


def _pending_of(sae_id: int, after: int, limit: int) -> Any:
    lacking = (_e.sae_id == sae_id, _e.id > after, _e.embedding.is_(None), _e.status == "ok")
    return select(_e.id, _SAID).where(*lacking).order_by(_e.id).limit(limit)


def write(engine: Engine, sae_id: int, model: str, rows: Sequence[tuple[Pending, Floats]]) -> int:
    """How many vectors were stored; not those whose text has changed meanwhile, and none if the SAE's are no longer
    ``model``'s."""
    with explained(), engine.begin() as connection:
        return int(connection.execute(_WRITE, _given(sae_id, model, rows)).rowcount)


def _given(sae_id: int, model: str, rows: Sequence[tuple[Pending, Floats]]) -> dict[str, Any]:
    return {
        "sae": sae_id,
        "model": model,
        "ids": [row.id for row, _ in rows],
        "texts": [row.text for row, _ in rows],
        "vectors": [literal(vector) for _, vector in rows],
    }


def literal(vector: Floats) -> str:
    """As pgvector writes one."""
    return "[" + ",".join(f"{x:.6g}" for x in vector.tolist()) + "]"


# For the web: a few that people wrote just now.


async def a_few_pending(connection: AsyncConnection, sae_id: int, limit: int) -> list[Pending]:
    """Explanations without a vector, of an SAE that was embedded before."""
    begun = select(t.embedding.c.model).where(t.embedding.c.sae_id == sae_id).exists()
    return [Pending(*row) for row in await connection.execute(_pending_of(sae_id, 0, limit).where(begun))]


async def write_few(
    connection: AsyncConnection, sae_id: int, model: str, rows: Sequence[tuple[Pending, Floats]]
) -> None:
    await connection.execute(_WRITE, _given(sae_id, model, rows))


async def standing(connection: AsyncConnection, sae_ids: Sequence[int]) -> dict[int, Standing]:
    """Of each SAE, in one query; methods are found by steps along an index."""
    rows = await connection.execute(_STANDING, {"saes": list(sae_ids)})
    return {row[0]: Standing(*row) for row in rows}


_STANDING = text(
    """
    WITH RECURSIVE one (sae_id) AS (SELECT unnest(CAST(:saes AS int4[]))),
    made (sae_id, method) AS (
        SELECT sae_id, (SELECT min(e.method) FROM explanation e WHERE e.sae_id = one.sae_id) FROM one
        UNION ALL
        SELECT sae_id, (SELECT min(e.method) FROM explanation e
            WHERE e.sae_id = made.sae_id AND e.method > made.method)
        FROM made WHERE made.method IS NOT NULL
    ),
    called (sae_id, method) AS (
        SELECT sae_id, (SELECT min(l.label_source) FROM latent l WHERE l.sae_id = one.sae_id) FROM one
        UNION ALL
        SELECT sae_id, (SELECT min(l.label_source) FROM latent l
            WHERE l.sae_id = called.sae_id AND l.label_source > called.method)
        FROM called WHERE called.method IS NOT NULL
    ),
    known AS (SELECT * FROM made UNION SELECT * FROM called)
    SELECT one.sae_id, embedding.model,
        EXISTS (SELECT FROM explanation e WHERE e.sae_id = one.sae_id AND e.status = 'ok'),
        EXISTS (SELECT FROM explanation e WHERE e.sae_id = one.sae_id AND e.status = 'ok' AND e.embedding IS NULL),
        ARRAY(SELECT method FROM known WHERE known.sae_id = one.sae_id AND method IS NOT NULL ORDER BY 1 LIMIT 50)
    FROM one LEFT JOIN embedding USING (sae_id)
    """
)
