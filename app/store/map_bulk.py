"""Writing a map: one transaction, in which it takes the place of the SAE's older one of the same kind."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from psycopg import sql
from sqlalchemy import Connection, Engine, delete, select
from sqlalchemy.dialects.postgresql import insert

from app.errors import MapRunning, UnknownSAE
from app.store import tables as t
from app.store.bulk import fill_partition
from app.store.copying import Column, Fixed, Raw, copy_in
from app.store.engine import explained
from app.store.locks import sole_right
from app.store.plain import plain, storable

Ints = npt.NDArray[np.integer[Any]]
CHUNK = 65_536
_POINT_TYPES = {
    "sae_id": "int4", "map_id": "int4", "latent": "int4", "layout_x": "float4", "layout_y": "float4", "x": "int4",
    "y": "int4", "rank": "int4", "z": "int2", "region": "int4", "cluster": "int4",
}  # fmt: skip
_TILE_TYPES = {"map_id": "int4", "z": "int2", "x": "int4", "y": "int4", "points": "bytea", "colours": "bytea"}


@dataclass(frozen=True)
class MapRow:
    """``facts`` tells how it was made, ``quality`` has trustworthiness and kNN preservation by method, ``structure``
    how latents are spread; frame: left, bottom and side of the layout's square that is shown; raster: 512 x 512 counts
    (u16, little endian, rows upwards); beside: ``slug@revision`` of the other SAEs in the frame, whose maps have the
    same ``together``."""

    method: str
    on: str
    version: str
    parameters: dict[str, Any]
    facts: dict[str, Any]
    quality: dict[str, Any]
    placed: int
    unplaced: int
    clustered: int
    frame: list[float]
    raster: bytes
    seconds: float
    structure: dict[str, Any] = field(default_factory=dict)
    beside: list[str] = field(default_factory=list)
    together: str | None = None


class Points(NamedTuple):
    """Columns of [placed]. layout: [placed, 2]; x, y: places on the grid; z: the level of its tile; region, cluster: -1
    for none."""

    latent: Ints
    layout: npt.NDArray[np.float32]
    x: Ints
    y: Ints
    rank: Ints
    z: Ints
    region: Ints
    cluster: Ints


class ClusterRow(NamedTuple):
    """level: 0 for regions, 1 for clusters; parent: a cluster's region; density: the median of those alive; centre: the
    latent in the middle; named_by: the language model that gave the name, None where it is the first terms."""

    level: int
    id: int
    parent: int | None
    name: str
    terms: list[str]
    scores: list[float]
    size: int
    alive: int
    density: float | None
    centre: int
    x: int
    y: int
    named_by: str | None = None


class TileRow(NamedTuple):
    z: int
    x: int
    y: int
    points: bytes
    colours: bytes


def map_lock(engine: Engine, slug: str) -> AbstractContextManager[None]:
    """Hold the only right to make a map of ``slug`` in this database.

    Raises (when entered):
        MapRunning: another process holds it.
    """
    told = f"A map of {slug} is being made already; wait for it or stop it first."
    return sole_right(engine, f"map {slug}", MapRunning(told, sae=slug))


class Whole(NamedTuple):
    """All there is of an SAE's map."""

    sae_id: int
    row: MapRow
    points: Points
    clusters: Sequence[ClusterRow]
    tiles: Sequence[TileRow]


def save_maps(engine: Engine, maps: Sequence[Whole]) -> list[bool]:
    """Write the maps in place of the SAEs' older ones of their kind (method, vectors, SAEs beside); on any failure all
    of those stay. False where the very same map is there already.

    Raises:
        UnknownSAE: an SAE's revision has been removed meanwhile.
    """
    with explained(), engine.begin() as connection:
        return [_saved(connection, one) for one in maps]


def _saved(connection: Connection, whole: Whole) -> bool:
    sae_id, row, points, clusters, tiles = whole
    there = select(t.sae.c.id).where(t.sae.c.id == sae_id).with_for_update(read=True, key_share=True)
    if connection.execute(there).scalar() is None:
        raise UnknownSAE("The SAE was removed while its map was made; nothing of it is kept.", sae=sae_id)
    m = t.map_.c
    kind = (m.sae_id == sae_id, m.method == row.method, m.on == row.on)
    found = connection.execute(select(m.id, m.version, m.together, m.beside).where(*kind)).all()
    older = next((one for one in found if _slugs(one.beside) == _slugs(row.beside)), None)
    same = row.version, row.together or (older and older.together), row.beside
    if older is not None and (older.version, older.together, older.beside) == same:
        return False
    if older is not None:
        connection.execute(delete(t.map_).where(m.id == older.id))
        connection.execute(delete(t.map_point).where(t.map_point.c.sae_id == sae_id, t.map_point.c.map_id == older.id))
    values = {**plain({k: v for k, v in vars(row).items() if k != "raster"}), "raster": row.raster}
    map_id = int(connection.execute(insert(t.map_).values(sae_id=sae_id, **values).returning(m.id)).scalar_one())
    fill_partition(connection, "map_point", sae_id, _POINT_TYPES, _point_chunks(map_id, points))
    if clusters:
        named = [{**one._asdict(), "name": storable(one.name)} for one in clusters]
        connection.execute(insert(t.map_cluster), [{"map_id": map_id, **plain(one)} for one in named])
    copy_in(connection, sql.Identifier("map_tile"), _TILE_TYPES, _tile_chunks(map_id, tiles))
    return True


def _slugs(addresses: Sequence[str]) -> list[str]:
    """A new harvest of an SAE takes its older one's place beside others, too."""
    return sorted(one.partition("@")[0] for one in addresses)


def _point_chunks(map_id: int, points: Points) -> Iterator[dict[str, Column]]:
    for start in range(0, len(points.latent), CHUNK):
        some = Points._make(column[start : start + CHUNK] for column in points)
        n = len(some.latent)
        yield {
            "map_id": Fixed(np.full(n, map_id)),
            "latent": Fixed(some.latent),
            "layout_x": Fixed(some.layout[:, 0]),
            "layout_y": Fixed(some.layout[:, 1]),
            "x": Fixed(some.x),
            "y": Fixed(some.y),
            "rank": Fixed(some.rank),
            "z": Fixed(some.z),
            "region": Fixed(some.region, some.region < 0),
            "cluster": Fixed(some.cluster, some.cluster < 0),
        }


def _tile_chunks(map_id: int, tiles: Iterable[TileRow]) -> Iterator[dict[str, Column]]:
    for tile in tiles:
        yield {
            "map_id": Fixed(np.array([map_id])),
            "z": Fixed(np.array([tile.z])),
            "x": Fixed(np.array([tile.x])),
            "y": Fixed(np.array([tile.y])),
            "points": Raw.of_bytes([tile.points]),
            "colours": Raw.of_bytes([tile.colours]),
        }
