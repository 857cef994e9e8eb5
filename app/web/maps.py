"""Maps as JSON, tiles and a picture. What has a version in its address never changes."""

import asyncio
import io
from typing import Literal

import numpy as np
import numpy.typing as npt
from fastapi import APIRouter, Request
from fastapi.responses import Response
from PIL import Image
from sqlalchemy.ext.asyncio import AsyncConnection

from app.atlas.colours import COLOURS
from app.atlas.places import RASTER
from app.atlas.tiles import DEEPEST, empty
from app.errors import BadRequest, TileOutOfRange, UnknownMap, UnknownSAE
from app.store import maps as m
from app.store import queries as q
from app.web.headers import IMMUTABLE
from app.web.map_build import summary, whole
from app.web.map_contexts import MapData, MapList
from app.web.map_filter import no_map
from app.web.refusals import refused
from app.web.routes import json_of, state_of

router = APIRouter(tags=["features"], responses=refused(BadRequest, UnknownSAE, UnknownMap, TileOutOfRange))
INK = (70, 130, 210)  # of the picture; seen on both themes
SPARSE = 50_000  # below so many latents each is drawn a little larger
KEPT = {"cache-control": IMMUTABLE}


@router.get("/saes/{slug}/maps.json", response_model=MapList)
async def maps_json(request: Request, slug: str) -> Response:
    """An SAE's maps, first the one that keeps most neighbours together, with which the map's page opens."""
    async with state_of(request).database.connect() as db:
        sae = await q.get_sae(db, slug)
        found = await m.list_maps(db, sae.id)
    return json_of(MapList(items=[summary(sae, one) for one in found]))


@router.get("/saes/{slug}/map/{version}.json", response_model=MapData)
async def map_json(request: Request, slug: str, version: str) -> Response:
    """A map with its regions and the clusters in them, each from the largest."""
    async with state_of(request).database.connect() as db:
        sae = await q.get_sae(db, slug)
        found = await m.get_map(db, sae.id, version)
        if found is None:
            raise await _unknown(db, slug, version)
        clusters = await m.get_clusters(db, found.id)
    return json_of(whole(sae, found, clusters))


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
    if counts.sum(dtype=np.int64) < SPARSE:
        counts = _spread(counts)
    shares = np.log1p(counts) / np.log1p(max(int(counts.max()), 1))
    pixels = np.empty((RASTER, RASTER, 4), np.uint8)
    pixels[:, :, :3], pixels[:, :, 3] = INK, np.where(counts > 0, 60 + 195 * shares, 0)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def _spread(counts: npt.NDArray[np.uint16]) -> npt.NDArray[np.uint16]:
    """Each cell takes the greatest of its neighbours' counts, so that lone latents are seen."""
    wide = np.pad(counts, 1)
    inner = slice(1, -1)
    sides = (wide[inner, inner], wide[:-2, inner], wide[2:, inner], wide[inner, :-2], wide[inner, 2:])
    spread: npt.NDArray[np.uint16] = np.maximum.reduce(sides)
    return spread


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
    return no_map(sae, there, version)
