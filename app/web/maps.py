"""Maps as JSON, tiles and a picture. What has a version in its address never changes."""

import asyncio
import io
from typing import Literal

import numpy as np
from fastapi import APIRouter, Request
from fastapi.responses import Response
from PIL import Image
from sqlalchemy.ext.asyncio import AsyncConnection

from app import urls
from app.atlas.colours import COLOURS
from app.atlas.places import RASTER
from app.atlas.tiles import DEEPEST, empty
from app.errors import BadRequest, TileOutOfRange, UnknownMap, UnknownSAE
from app.store import maps as m
from app.store import queries as q
from app.store.map_bulk import ClusterRow
from app.web.headers import IMMUTABLE
from app.web.map_contexts import MapCluster, MapData, MapList, MapRegion, MapSummary
from app.web.refusals import refused
from app.web.routes import json_of, state_of

router = APIRouter(tags=["features"], responses=refused(BadRequest, UnknownSAE, UnknownMap, TileOutOfRange))
INK = (70, 130, 210)  # of the picture; seen on both themes
KEPT = {"cache-control": IMMUTABLE}


@router.get("/saes/{slug}/maps.json", response_model=MapList)
async def maps_json(request: Request, slug: str) -> Response:
    """An SAE's maps, the newest first."""
    async with state_of(request).database.connect() as db:
        sae = await q.get_sae(db, slug)
        found = await m.list_maps(db, sae.id)
    return json_of(MapList(items=[MapSummary(**_summary(sae, one)) for one in found]))


@router.get("/saes/{slug}/map/{version}.json", response_model=MapData)
async def map_json(request: Request, slug: str, version: str) -> Response:
    """A map with its regions and the clusters in them, each from the largest."""
    async with state_of(request).database.connect() as db:
        sae = await q.get_sae(db, slug)
        found = await m.get_map(db, sae.id, version)
        if found is None:
            raise await _unknown(db, slug, version)
        clusters = await m.get_clusters(db, found.id)
    data = MapData(
        **_summary(sae, found), sae=sae.slug, revision=sae.revision, address=sae.address, parameters=found.parameters,
        facts=found.facts, colors=list(COLOURS), tiles=urls.map_tiles(sae.address, version),
        density=urls.map_density(sae.address, version), regions=_regions(sae, clusters),
    )  # fmt: skip
    return json_of(data)


@router.get("/saes/{slug}/map/{version}/{z}/{x}/{y}.bin", response_class=Response, summary="A tile of a map")
async def tile(
    request: Request,
    slug: str,
    version: str,
    z: int,
    x: int,
    y: int,
    color: Literal["density", "maximum", "score", "sign", "region", "cluster"] = "density",
) -> Response:
    """The latents of one tile: a header of 16 bytes, then places, latents and colours; docs/map.md has the format."""
    most = 2 ** min(max(z, 0), DEEPEST) - 1
    if not 0 <= z <= DEEPEST or not (0 <= x <= most and 0 <= y <= most):
        told = f"at level {z}, x and y are 0 to {most}" if 0 <= z <= DEEPEST else f"levels are 0 to {DEEPEST}"
        raise TileOutOfRange(f"There is no tile {z}/{x}/{y}; {told}.", z=z, x=x, y=y)
    async with state_of(request).database.connect() as db:
        found = await m.get_tile(
            db, _plain(slug), version, z, x, y, colour=COLOURS.index(color), colours=len(COLOURS)
        )  # fmt: skip
        if found is None and await m.get_raster(db, _plain(slug), version) is None:
            raise await _unknown(db, slug, version)
    data = empty(z) if found is None else found.points + found.colour
    return Response(data, media_type="application/octet-stream", headers=KEPT)


@router.get("/saes/{slug}/map/{version}/density.png", response_class=Response, summary="A picture of a map")
async def density(request: Request, slug: str, version: str) -> Response:
    """Where all of the map's latents are, as a picture of 512 x 512; the more, the less transparent."""
    async with state_of(request).database.connect() as db:
        raster = await m.get_raster(db, _plain(slug), version)
        if raster is None:
            raise await _unknown(db, slug, version)
    return Response(await asyncio.to_thread(picture, raster), media_type="image/png", headers=KEPT)


def picture(raster: bytes) -> bytes:
    """PNG of the counts, on a scale of logarithms."""
    counts = np.frombuffer(raster, "<u2").reshape(RASTER, RASTER)[::-1]
    shares = np.log1p(counts) / np.log1p(max(int(counts.max()), 1))
    pixels = np.empty((RASTER, RASTER, 4), np.uint8)
    pixels[:, :, :3], pixels[:, :, 3] = INK, np.where(counts > 0, 40 + 215 * shares, 0)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def _plain(address: str) -> str:
    """The slug alone: a version says which revision."""
    return address.partition("@")[0]


async def _unknown(db: AsyncConnection, address: str, version: str) -> UnknownMap:
    """
    Raises:
        UnknownSAE: there is not even the SAE.
    """
    sae = await q.get_sae(db, address)
    there = [one.version for one in await m.list_maps(db, sae.id)]
    told = f"there are: {', '.join(there)}" if there else f"'saescope map {sae.slug}' makes one"
    return UnknownMap(f"{sae.address} has no map {version[:40]!r} here; {told}.", sae=sae.address, version=version[:40])


def _summary(sae: q.SAERecord, found: m.MapRecord) -> dict[str, object]:
    names = ("method", "on", "version", "placed", "unplaced", "clustered", "quality", "seconds", "made")
    return {**{name: getattr(found, name) for name in names}, "url": urls.map_json(sae.address, found.version)}


def _regions(sae: q.SAERecord, clusters: list[ClusterRow]) -> list[MapRegion]:
    inside: dict[int | None, list[MapCluster]] = {}
    for one in clusters:
        if one.level == 1:
            inside.setdefault(one.parent, []).append(MapCluster(**_cluster(sae, one)))
    return [MapRegion(**_cluster(sae, one), clusters=inside.get(one.id, [])) for one in clusters if one.level == 0]


def _cluster(sae: q.SAERecord, one: ClusterRow) -> dict[str, object]:
    names = ("id", "name", "terms", "size", "alive", "density", "x", "y")
    return {**{name: getattr(one, name) for name in names}, "url": urls.feature(sae.address, one.centre)}
