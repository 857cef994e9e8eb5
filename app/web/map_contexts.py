"""What an SAE's maps hold, typed."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel


class MapQuality(BaseModel):
    """How much of the latents' neighbourhoods a layout keeps; over ``sample`` latents, at ``k`` neighbours."""

    trustworthiness: float
    knn_preservation: float
    k: int
    sample: int


class MapSummary(BaseModel):
    """A map: its layout's ``method``, what makes latents near (``on``), how many are ``placed``, how many are in a
    cluster. ``quality`` is that of its method beside PCA's."""

    method: str
    on: str
    version: str
    placed: int
    unplaced: int
    clustered: int
    quality: dict[str, MapQuality]
    seconds: float
    made: datetime
    url: str


class MapList(BaseModel):
    items: list[MapSummary]
    next: str | None = None


class MapCluster(BaseModel):
    """Latents that lie close together. ``x`` and ``y`` (0 to 65,535, y upwards) are where its middle latent is, to
    which ``url`` leads; ``density`` is the median of those alive."""

    id: int
    name: str
    terms: list[str]
    size: int
    alive: int
    density: float | None
    x: int
    y: int
    url: str


class MapRegion(MapCluster):
    clusters: list[MapCluster]


class MapData(MapSummary):
    """A whole map but for its tiles. ``tiles`` is the address of a tile with {z}, {x} and {y} for its numbers; it
    takes ``?color=``, one of ``colors``; ``density`` is a picture of where all latents are."""

    sae: str
    revision: str
    address: str
    parameters: dict[str, Any]
    facts: dict[str, Any]
    colors: list[str]
    tiles: str
    density: str
    regions: list[MapRegion]
