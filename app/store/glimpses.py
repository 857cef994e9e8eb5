"""Latents that stand beside another: what they are called, and their strongest contexts."""

from dataclasses import fields
from typing import NamedTuple

from sqlalchemy import Integer, and_, bindparam, cast, func, select
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncConnection

from app.store import tables as t
from app.store.pipeline import Asked, Rows, ask
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
_COMPANIONS = (
    select(*example_columns(), *(column.label(f"latent_{column.name}") for column in _SUMMARY))
    .select_from(t.latent)
    .outerjoin(
        t.example,
        and_(example_of, t.example.c.latent == t.latent.c.index, t.example.c.interval == t.TOP, t.example.c.rank == 0),
    )
    .outerjoin(t.sequence, sequence_of)
    .where(t.latent.c.sae_id == bindparam("sae", type_=Integer))
    .order_by(func.abs(t.example.c.activation).nulls_first())
)
_SEQUENCE = _COMPANIONS.selected_columns.keys().index("sequence_id")
_COMPANY = _COMPANIONS.where(t.latent.c.index == ANY_OF)
_i = t.latent.alias("its").c
_THEIRS = (
    select(_i.neighbour_ids.op("||")(func.coalesce(_i.coactive_ids, cast([], ARRAY(Integer)))))
    .where(_i.sae_id == bindparam("sae", type_=Integer), _i.index == bindparam("index", type_=Integer))
    .scalar_subquery()
)
_ITS_COMPANY = _COMPANIONS.where(t.latent.c.index == func.any(cast(_THEIRS, ARRAY(Integer))))


async def get_company(connection: AsyncConnection, sae: SAERecord, indices: list[int]) -> dict[int, Companion]:
    """The latents asked for, each with its top context of either sign, by index, in one query."""
    if not indices:
        return {}
    return await ask(connection, Asked(_COMPANY, {**example_parameters(sae), "indices": indices}, _companions))


def company_asked(sae: SAERecord, index: int) -> Asked[dict[int, Companion]]:
    """A latent's neighbours and those co-active with it, as ``get_company``."""
    return Asked(_ITS_COMPANY, {**example_parameters(sae), "index": index}, _companions)


def _companions(rows: Rows) -> dict[int, Companion]:
    width = len(_SUMMARY)
    found = [
        Companion(LatentSummary(*row[-width:]), None if row[_SEQUENCE] is None else example_record(row)) for row in rows
    ]
    return {companion.latent.index: companion for companion in found}


class Shown(NamedTuple):
    """A latent of one of several SAEs, with its label's score and its strongest context."""

    latent: LatentSummary
    label_score: float | None
    strongest: ExampleRecord | None


_WANTED = (
    func.unnest(bindparam("saes", type_=ARRAY(Integer)), bindparam("indices", type_=ARRAY(Integer)))
    .table_valued("sae_id", "index")
    .render_derived(name="wanted")
)
_e, _h = t.example.c, t.harvest.c
_WIDTH = cast(_h.parameters["width"].astext, Integer)
_SHOWN = (
    select(
        t.latent.c.sae_id, t.latent.c.label_score, *_SUMMARY, _e.sign, _e.interval, _e.rank.label("place"),
        _e.sequence_id, _e.position, _e.start, _e.activation, _e.offsets, _e.shares,
        t.sequence.c.token_ids[_e.start + 1 : _e.start + _WIDTH].label("token_ids"), t.sequence.c.document,
    )
    .select_from(_WANTED)
    .join(t.latent, and_(t.latent.c.sae_id == _WANTED.c.sae_id, t.latent.c.index == _WANTED.c.index))
    .join(t.harvest, _h.sae_id == t.latent.c.sae_id)
    .outerjoin(
        t.example,
        and_(_e.sae_id == t.latent.c.sae_id, _e.latent == t.latent.c.index, _e.interval == t.TOP, _e.rank == 0),
    )
    .outerjoin(t.sequence, and_(t.sequence.c.corpus_id == _h.corpus_id, t.sequence.c.id == _e.sequence_id))
    .order_by(func.abs(_e.activation).nulls_first())
)  # fmt: skip


async def get_shown(connection: AsyncConnection, latents: list[tuple[int, int]]) -> dict[tuple[int, int], Shown]:
    """Latents of several SAEs, named by (SAE's id, index), each with its top context of either sign, in one query."""
    if not latents:
        return {}
    asked = {"saes": [sae for sae, _ in latents], "indices": [index for _, index in latents]}
    found = {}
    for row in await connection.execute(_SHOWN, asked):
        summary, stored = LatentSummary(*row[2 : 2 + len(_SUMMARY)]), row[2 + len(_SUMMARY) :]
        strongest = None if row.sequence_id is None else example_record(stored)
        found[row.sae_id, summary.index] = Shown(summary, row.label_score, strongest)
    return found
