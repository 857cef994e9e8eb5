"""Where latents are on a map: those in a region, a cluster or an outline, those of a label, one with its company."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Integer, Select, and_, bindparam, cast, func, literal_column, select, text
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.types import UserDefinedType

from app.store import tables as t
from app.store.pipeline import Asked

_p = t.map_point.c
NONE = -1  # of regions and clusters
Corner = tuple[float, float]


class Polygon(UserDefinedType[str]):
    cache_ok = True

    def get_col_spec(self, **kw: Any) -> str:
        return "polygon"


@dataclass(frozen=True)
class OnMap:
    """Latents of one map. region, cluster: its number, NONE for those in none, None for any; within: corners of an
    outline, which itself belongs to it."""

    sae_id: int
    map_id: int
    region: int | None = None
    cluster: int | None = None
    within: tuple[Corner, ...] = ()

    def conditions(self) -> list[ColumnElement[bool]]:
        found = [_p.sae_id == self.sae_id, _p.map_id == self.map_id]
        for column, number in ((_p.region, self.region), (_p.cluster, self.cluster)):
            if number is not None:
                found.append(column.is_(None) if number == NONE else column == number)
        if self.within:
            corners = ",".join(f"({x!r},{y!r})" for x, y in self.within)
            place: ColumnElement[Any] = literal_column("point(map_point.x, map_point.y)")
            found.append(place.op("<@")(cast(f"({corners})", Polygon())))
        return found

    def latents(self) -> Select[Any]:
        return select(_p.latent).where(*self.conditions())


class Marked(NamedTuple):
    """A latent and its place on the grid, y upwards."""

    latent: int
    x: int
    y: int


class Spot(NamedTuple):
    """A latent on a map, or one of its company. level: of its tile; score: how near it is to the one asked for, None
    for that one itself."""

    latent: int
    label: str
    score: float | None
    x: int
    y: int
    level: int
    region: int | None
    cluster: int | None


async def most_important(connection: AsyncConnection, chosen: OnMap, limit: int) -> list[Marked]:
    query = select(_p.latent, _p.x, _p.y).where(*chosen.conditions()).order_by(_p.rank).limit(limit)
    return [Marked(*row) for row in await connection.execute(query)]


async def labelled(
    connection: AsyncConnection, chosen: OnMap, conditions: Sequence[Any], limit: int
) -> tuple[list[Marked], int]:
    """The first latents, by number, that ``conditions`` on latents keep and that are on the map; and how many were
    looked at, which is ``limit`` where there may be more."""
    c = t.latent.c
    few = select(c.index).where(c.sae_id == chosen.sae_id, *conditions).order_by(c.index).limit(limit).cte("few")
    here = and_(_p.latent == few.c.index, _p.sae_id == chosen.sae_id, _p.map_id == chosen.map_id)
    joined = few.outerjoin(t.map_point, here)
    query = select(few.c.index, _p.x, _p.y).select_from(joined).order_by(few.c.index)
    rows = (await connection.execute(query)).all()
    return [Marked(*row) for row in rows if row[1] is not None], len(rows)


async def places(connection: AsyncConnection, chosen: OnMap, latents: Sequence[int]) -> dict[int, Marked]:
    """Of those ``latents`` that are on the map."""
    any_of = _p.latent == func.any(bindparam("latents", type_=t.latent.c.neighbour_ids.type))
    query = select(_p.latent, _p.x, _p.y).where(*chosen.conditions(), any_of)
    rows = await connection.execute(query, {"latents": list(latents)})
    return {row[0]: Marked(*row) for row in rows}


class Whereabouts(NamedTuple):
    """A latent on one of its SAE's maps; x, y: None where it has no place. region, cluster: number and name."""

    version: str
    method: str
    on: str
    kept: float
    x: int | None
    y: int | None
    region: int | None
    region_name: str | None
    cluster: int | None
    cluster_name: str | None


_WHEREABOUTS = text(
    """
    SELECT version, method, "on",
        coalesce(CAST(quality -> method ->> 'knn_preservation' AS double precision), 0) AS kept,
        p.x, p.y, p.region, r.name, p.cluster, c.name
    FROM map
    LEFT JOIN map_point p ON p.sae_id = :sae AND p.map_id = map.id AND p.latent = :index
    LEFT JOIN map_cluster r ON r.map_id = map.id AND r.level = 0 AND r.id = p.region
    LEFT JOIN map_cluster c ON c.map_id = map.id AND c.level = 1 AND c.id = p.cluster
    WHERE map.sae_id = :sae
    ORDER BY beside <> '{}', kept DESC, made DESC, map.id DESC LIMIT 1
    """
)


def whereabouts_asked(sae_id: int, index: int) -> Asked[Whereabouts | None]:
    """On the map that app.store.maps.list_maps puts first; None where there is no map."""
    return Asked(_WHEREABOUTS, {"sae": sae_id, "index": index}, lambda rows: Whereabouts(*rows[0]) if rows else None)


_COMPANY = {
    "coactivation": ("coactive_ids", "coactive_phi"),
    "decoder": ("neighbour_ids", "neighbour_cosines"),
    "encoder": ("neighbour_ids", "neighbour_cosines"),
    "explanations": ("neighbour_ids", "neighbour_cosines"),
}


async def spots(connection: AsyncConnection, sae_id: int, map_id: int, on: str, index: int) -> list[Spot]:
    """A latent and, from the nearest, those it fires together with (on a map of co-activation) or that have the nearest
    decoder rows; none if it is not on the map. In one query."""
    ids, scores = _COMPANY[on]
    query = text(
        f"""
        WITH near (index, score) AS (
            SELECT CAST(:index AS integer), CAST(NULL AS real)
            UNION ALL
            SELECT * FROM (SELECT unnest({ids}), unnest({scores}) FROM latent WHERE sae_id = :sae AND index = :index)
        )
        SELECT near.index, label, score, x, y, z, region, cluster FROM near
        JOIN latent ON latent.sae_id = :sae AND latent.index = near.index
        JOIN map_point p ON p.sae_id = :sae AND p.map_id = :map AND p.latent = near.index
        ORDER BY score DESC NULLS FIRST
        """
    ).bindparams(bindparam("index", type_=Integer))
    rows = await connection.execute(query, {"sae": sae_id, "map": map_id, "index": index})
    found = [Spot(*row) for row in rows]
    return found if found and found[0].latent == index else []
