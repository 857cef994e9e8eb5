"""Maps as readers ask for them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Integer, Select, bindparam, func, select, text
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
    structure: dict[str, Any]
    beside: list[str]
    together: str | None


class TileBytes(NamedTuple):
    """points: header, places and latents; colour: one byte a point."""

    points: bytes
    colour: bytes


_m, _c, _t = t.map_.c, t.map_cluster.c, t.map_tile.c
_COLUMNS: Select[Any] = select(
    _m.id, _m.method, _m.on, _m.version, _m.parameters, _m.facts, _m.quality, _m.placed, _m.unplaced, _m.clustered,
    _m.seconds, _m.made, _m.structure, _m.beside, _m.together,
)  # fmt: skip
_MAPS = _COLUMNS.where(_m.sae_id == bindparam("sae")).order_by(_m.made.desc(), _m.id.desc())
_MAP = _MAPS.where(_m.version == bindparam("version")).limit(1)
_CLUSTERS: Select[Any] = (
    select(
        _c.level,
        _c.id,
        _c.parent,
        _c.name,
        _c.terms,
        _c.scores,
        _c.size,
        _c.alive,
        _c.density,
        _c.centre,
        _c.x,
        _c.y,
        _c.named_by,
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
    """An SAE's maps: its own before those with others beside, then first the one that keeps most of its latents'
    neighbours together, of equal ones the newest."""
    return best_first([MapRecord(*row) for row in await connection.execute(_MAPS, {"sae": sae_id})])


async def first_maps(connection: AsyncConnection, sae_ids: list[int]) -> dict[int, MapRecord]:
    """Of each SAE that has maps the one that ``list_maps`` puts first, in one query."""
    query = _COLUMNS.add_columns(_m.sae_id).where(_m.sae_id.in_(sae_ids)).order_by(_m.made.desc(), _m.id.desc())
    found: dict[int, list[MapRecord]] = {}
    for *columns, sae_id in await connection.execute(query):
        found.setdefault(sae_id, []).append(MapRecord(*columns))
    return {sae_id: best_first(newest)[0] for sae_id, newest in found.items()}


class Neighbour(NamedTuple):
    """Another SAE that has maps; ``together`` are the names of its maps' frames, where they have one."""

    slug: str
    revision: str
    edition: int
    together: list[str]


_NEIGHBOURS = text(
    """
    (SELECT coalesce(jsonb_agg(jsonb_build_array(slug, revision, edition, together) ORDER BY slug), '[]') FROM (
        SELECT DISTINCT ON (s.slug) s.slug, s.revision, s.edition,
            (SELECT coalesce(array_agg(DISTINCT f.together) FILTER (WHERE f.together IS NOT NULL), '{}')
                FROM map f WHERE f.sae_id = s.id) AS together
        FROM sae s WHERE s.id <> :sae AND EXISTS (SELECT FROM map f WHERE f.sae_id = s.id)
        ORDER BY s.slug, s.id DESC LIMIT 100
    ) AS near)
    """
)


async def list_with_neighbours(connection: AsyncConnection, sae_id: int) -> tuple[list[MapRecord], list[Neighbour]]:
    """``list_maps``, and the newest revision with a map of every other SAE, and of this one's name; in one query. Of an
    SAE without maps there are no neighbours."""
    rows = (await connection.execute(_MAPS.add_columns(_NEIGHBOURS), {"sae": sae_id})).all()
    near = [Neighbour(*one) for one in rows[0][-1]] if rows else []
    return best_first([MapRecord(*row[:-1]) for row in rows]), near


async def whose(connection: AsyncConnection, version: str) -> str | None:
    """The address of the newest SAE with the map of this version: its slug, with the revision where that is not the
    newest."""
    s, newer = t.sae.c, t.sae.alias("newer")
    newest = select(func.max(newer.c.id)).where(newer.c.slug == s.slug).scalar_subquery()
    query = select(s.slug, s.revision, newest == s.id).select_from(t.sae.join(t.map_)).where(_m.version == version)
    row = (await connection.execute(query.order_by(s.id.desc()).limit(1))).first()
    if row is None:
        return None
    slug, revision, is_newest = row
    return str(slug) if is_newest else f"{slug}@{revision}"


def best_first(newest: Sequence[MapRecord]) -> list[MapRecord]:
    def order(one: MapRecord) -> tuple[bool, float]:
        return bool(one.beside), -one.quality.get(one.method, {}).get("knn_preservation", 0.0)

    return sorted(newest, key=order)


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
