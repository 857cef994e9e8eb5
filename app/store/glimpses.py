"""Latents that stand beside another: what they are called, and their strongest contexts."""

from dataclasses import fields
from typing import NamedTuple

from sqlalchemy import Integer, and_, bindparam, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from app.store import tables as t
from app.store.queries import (
    ANY_OF,
    ExampleRecord,
    LatentSummary,
    SAERecord,
    example_columns,
    example_of,
    example_parameters,
    example_record,
    sequence_of,
)


class Companion(NamedTuple):
    """strongest: None where the latent never fired."""

    latent: LatentSummary
    strongest: ExampleRecord | None


_SUMMARY = [t.latent.c[field.name] for field in fields(LatentSummary)]
_COMPANY = (
    select(*example_columns(), *(column.label(f"latent_{column.name}") for column in _SUMMARY))
    .select_from(t.latent)
    .outerjoin(
        t.example,
        and_(example_of, t.example.c.latent == t.latent.c.index, t.example.c.interval == t.TOP, t.example.c.rank == 0),
    )
    .outerjoin(t.sequence, sequence_of)
    .where(t.latent.c.sae_id == bindparam("sae", type_=Integer), t.latent.c.index == ANY_OF)
    .order_by(func.abs(t.example.c.activation).nulls_first())
)


async def get_company(connection: AsyncConnection, sae: SAERecord, indices: list[int]) -> dict[int, Companion]:
    """The latents asked for, each with its top context of either sign, by index, in one query."""
    if not indices:
        return {}
    rows = await connection.execute(_COMPANY, {**example_parameters(sae), "indices": indices})
    width = len(_SUMMARY)
    found = [
        Companion(LatentSummary(*row[-width:]), None if row.sequence_id is None else example_record(row))
        for row in rows
    ]
    return {companion.latent.index: companion for companion in found}
