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


_p, _c, _s = t.posting.c, t.context.c, t.sequence.c
_POSTINGS = (
    select(_p.latent, _p.contexts, _p.weights, _p.offsets)
    .where(_p.sae_id == bindparam("sae", type_=Integer), _p.latent == ANY_OF)
    .order_by(_p.latent)
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
    rows = await connection.execute(_POSTINGS, {"sae": sae_id, "indices": latents})
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
