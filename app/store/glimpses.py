"""The strongest contexts of many latents at once, for the one-line heat maps beside their names."""

from sqlalchemy import and_, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from app.store import tables as t
from app.store.queries import ExampleRecord, SAERecord, example_record


async def get_strongest(connection: AsyncConnection, sae: SAERecord, indices: list[int]) -> dict[int, ExampleRecord]:
    """Each latent's top context, of either sign, by index, in one query; a latent that never fired has none."""
    if not indices:
        return {}
    e, s = t.example.c, t.sequence.c
    query = (
        select(
            e.latent, e.sign, e.interval, e.rank, e.sequence_id, e.position, e.start, e.activation, e.offsets,
            e.shares, s.token_ids, s.document,
        )
        .join(t.sequence, and_(s.corpus_id == sae.corpus_id, s.id == e.sequence_id))
        .where(e.sae_id == sae.id, e.latent.in_(indices), e.interval == t.TOP, e.rank == 0)
        .order_by(e.latent, func.abs(e.activation))
    )  # fmt: skip
    width = int(sae.parameters["width"])
    return {row.latent: example_record(row, width) for row in await connection.execute(query)}
