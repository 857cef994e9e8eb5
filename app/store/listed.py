"""What of a list's items is here: kept runs without what was read of them, and regions of maps."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import func, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from app.store import tables as t
from app.store.reader import visible
from app.store.references import Region

BEGINNING = 400  # characters of a run's text


class KeptRun(NamedTuple):
    """text: its beginning; saes: SLUG@REVISION each."""

    name: str
    subject: str
    text: str
    length: int
    made: datetime
    saes: list[str]


class KeptRegion(NamedTuple):
    method: str
    on: str
    name: str
    terms: list[str]
    size: int


async def get_runs(connection: AsyncConnection, names: Sequence[str]) -> dict[str, KeptRun]:
    """Those runs that are here, by name."""
    if not names:
        return {}
    r = t.inspection.c
    query = select(
        r.id, r.subject, func.left(r.text, BEGINNING), func.length(r.text), r.made, r.slugs, r.revisions
    ).where(r.id.in_(names), visible(t.inspection))
    return {
        row[0]: KeptRun(
            *row[:5], [f"{slug}@{revision}" for slug, revision in zip(row.slugs, row.revisions, strict=True)]
        )
        for row in await connection.execute(query)
    }


async def runs_there(connection: AsyncConnection, names: Sequence[str]) -> set[str]:
    """Those of the names that are of runs, whoever may see them."""
    if not names:
        return set()
    query = select(t.inspection.c.id).where(t.inspection.c.id.in_(names))
    return set((await connection.execute(query)).scalars())


async def get_regions(connection: AsyncConnection, regions: Sequence[Region]) -> dict[Region, KeptRegion]:
    """Those regions whose map is here."""
    if not regions:
        return {}
    s, m, c = t.sae.c, t.map_.c, t.map_cluster.c
    columns = (s.slug, s.revision, m.version, c.level, c.id)
    wanted = [(one.slug, one.revision, one.version, one.level, one.id) for one in regions]
    query = (
        select(*columns, m.method, m.on, c.name, c.terms, c.size)
        .select_from(t.sae.join(t.map_).join(t.map_cluster))
        .where(tuple_(*columns).in_(wanted))
    )
    rows: Iterable[Any] = await connection.execute(query)
    return {Region(*row[:5]): KeptRegion(*row[5:]) for row in rows}
