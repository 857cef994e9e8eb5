"""The corpus's contexts by what fires in them: an inverted index, one row a latent."""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from sqlalchemy import Integer, and_, bindparam, select
from sqlalchemy.ext.asyncio import AsyncConnection

from app.store import tables as t
from app.store.queries import ANY_OF, SAERecord

Array = npt.NDArray[Any]


class Posting(NamedTuple):
    """The contexts that a latent is strong in. contexts: [m] int32, their ids; weights: [m] fp16, the latent's in each
    context's vector of norm 1; offsets: [m] uint8, where in the context it is strongest."""

    latent: int
    contexts: Array
    weights: Array
    offsets: Array


class ContextRecord(NamedTuple):
    """A context's text; ``norm`` is that of its strengths before they were made a vector of norm 1."""

    id: int
    sequence_id: int
    start: int
    norm: float
    token_ids: list[int]
    document: str


_c, _s = t.context.c, t.sequence.c
_POSTINGS = (
    "SELECT latent, contexts, weights, offsets FROM posting "
    "WHERE sae_id = %s AND latent = ANY(%s::int4[]) ORDER BY latent"
)
_CONTEXTS = (
    select(
        _c.id, _c.sequence_id, _c.start, _c.norm,
        _s.token_ids[_c.start + 1 : _c.start + bindparam("width", type_=Integer)].label("token_ids"), _s.document,
    )
    .join(t.sequence, and_(_s.corpus_id == bindparam("corpus", type_=Integer), _s.id == _c.sequence_id))
    .where(_c.sae_id == bindparam("sae", type_=Integer), _c.id == ANY_OF)
)  # fmt: skip


async def get_postings(connection: AsyncConnection, sae_id: int, latents: list[int]) -> list[Posting]:
    """The lists of those of ``latents`` that are strong in any context, in one query."""
    if not latents:
        return []
    raw: Any = (await connection.get_raw_connection()).driver_connection
    async with raw.cursor(binary=True) as cursor:  # as text, megabytes of bytea take twice as long
        await cursor.execute(_POSTINGS, (sae_id, latents))
        rows = await cursor.fetchall()
    return [
        Posting(latent, np.frombuffer(contexts, "<i4"), np.frombuffer(weights, "<f2"), np.frombuffer(offsets, np.uint8))
        for latent, contexts, weights, offsets in rows
    ]


async def get_contexts(connection: AsyncConnection, sae: SAERecord, ids: list[int]) -> dict[int, ContextRecord]:
    """The contexts asked for, by id, in one query."""
    if not ids:
        return {}
    given = {"sae": sae.id, "corpus": sae.corpus_id, "width": sae.parameters["context_width"], "indices": ids}
    found = [ContextRecord(*row) for row in await connection.execute(_CONTEXTS, given)]
    return {context.id: context for context in found}
