"""Maps as readers ask for them."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Integer, Select, bindparam, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from app.store import tables as t
from app.store.map_bulk import ClusterRow


@dataclass(frozen=True)
class MapRecord:
    """A map without its picture; app.store.map_bulk tells what the fields are."""

    id: int
    method: str
    on: str
    version: str
    parameters: dict[str, Any]
    facts: dict[str, Any]
    quality: dict[str, dict[str, float]]
    placed: int
    unplaced: int
    clustered: int
    seconds: float
    made: datetime


class TileBytes(NamedTuple):
    """points: header, places and latents; colour: one byte a point."""

    points: bytes
    colour: bytes


_m, _c, _t = t.map_.c, t.map_cluster.c, t.map_tile.c
_MAPS: Select[Any] = (
    select(
        _m.id, _m.method, _m.on, _m.version, _m.parameters, _m.facts, _m.quality, _m.placed, _m.unplaced, _m.clustered,
        _m.seconds, _m.made,
    )
    .where(_m.sae_id == bindparam("sae"))
    .order_by(_m.made.desc(), _m.id.desc())
)  # fmt: skip
_MAP = _MAPS.where(_m.version == bindparam("version")).limit(1)
_CLUSTERS: Select[Any] = (
    select(
        _c.level, _c.id, _c.parent, _c.name, _c.terms, _c.scores, _c.size, _c.alive, _c.density, _c.centre, _c.x, _c.y
    )
    .where(_c.map_id == bindparam("map"))
    .order_by(_c.level, _c.id)
)
_THIS = (t.sae.c.slug == bindparam("slug"), _m.version == bindparam("version"))
_WIDTH = func.octet_length(_t.colours, type_=Integer) // bindparam("colours", type_=Integer)  # of one colour
_TILE = (
    select(_t.points, func.substring(_t.colours, bindparam("colour", type_=Integer) * _WIDTH + 1, _WIDTH))
    .select_from(t.sae.join(t.map_).join(t.map_tile))
    .where(*_THIS, *(_t[name] == bindparam(name) for name in ("z", "x", "y")))
    .limit(1)
)
_RASTER = select(_m.raster).select_from(t.sae.join(t.map_)).where(*_THIS).limit(1)


async def list_maps(connection: AsyncConnection, sae_id: int) -> list[MapRecord]:
    """An SAE's maps: first the one that keeps most of its latents' neighbours together, of equal ones the newest."""
    newest = [MapRecord(*row) for row in await connection.execute(_MAPS, {"sae": sae_id})]
    return sorted(newest, key=lambda one: -one.quality.get(one.method, {}).get("knn_preservation", 0.0))


async def get_map(connection: AsyncConnection, sae_id: int, version: str) -> MapRecord | None:
    row = (await connection.execute(_MAP, {"sae": sae_id, "version": version})).first()
    return None if row is None else MapRecord(*row)


async def get_clusters(connection: AsyncConnection, map_id: int) -> list[ClusterRow]:
    """Regions, then clusters, each from the largest."""
    return [ClusterRow(*row) for row in await connection.execute(_CLUSTERS, {"map": map_id})]


async def get_tile(
    connection: AsyncConnection, slug: str, version: str, z: int, x: int, y: int, *, colour: int, colours: int
) -> TileBytes | None:
    """One tile with the ``colour``-th of its ``colours`` colours, in one query."""
    which = {"slug": slug, "version": version, "z": z, "x": x, "y": y, "colour": colour, "colours": colours}
    row = (await connection.execute(_TILE, which)).first()
    return None if row is None else TileBytes(*row)


async def get_raster(connection: AsyncConnection, slug: str, version: str) -> bytes | None:
    """512 x 512 counts, u16, little endian, rows upwards."""
    raster: bytes | None = (await connection.execute(_RASTER, {"slug": slug, "version": version})).scalar()
    return raster
