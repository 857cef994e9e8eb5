"""What an SAE's maps hold, typed."""

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, Field

from app.web.browse_contexts import LatentPage
from app.web.contexts import Histogram, LatentRow
from app.web.fields import Asked, Label

DEEPEST = 12.0  # zoom: at 12 the view is 16 places wide
KINDS: tuple[Literal["region"], Literal["cluster"]] = ("region", "cluster")  # by level
LONGEST = 2000  # characters of a text


class MapQuality(BaseModel):
    """How much of the latents' neighbourhoods a layout keeps; over ``sample`` latents, at ``k`` neighbours."""

    trustworthiness: float
    knn_preservation: float
    k: int
    sample: int


class MapStructure(BaseModel):
    """How latents are spread and grouped; app.atlas.structure has the definitions."""

    nearest_cosine: float
    variance: float
    silhouette: float | None
    spread: float
    sample: int


class MapSummary(BaseModel):
    """A map: its layout's ``method``, what makes latents near (``on``), how many are ``placed``, how many are in a
    cluster. ``quality`` is that of its method beside PCA's; ``page`` is where it is drawn. ``beside`` are the other
    SAEs of its frame, and ``together`` is that frame's name."""

    name: str
    method: str
    on: str
    version: str
    placed: int
    unplaced: int
    clustered: int
    quality: dict[str, MapQuality]
    structure: MapStructure | None
    beside: list[str]
    together: str | None
    seconds: float
    made: datetime
    url: str
    page: str


class MapList(BaseModel):
    items: list[MapSummary]
    next: str | None = None


class MapCluster(BaseModel):
    """Latents that lie close together. ``x`` and ``y`` (0 to 65,535, y upwards) are where its middle latent is, to
    which ``url`` leads; ``density`` is the median of those alive; ``page`` lists them. ``named_by`` is the language
    model that named it, null where its terms do."""

    id: int
    name: str
    named_by: str | None
    terms: list[str]
    size: int
    alive: int
    density: float | None
    x: int
    y: int
    url: str
    page: str


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


class MapQuery(Asked):
    """The map's state in its URL: where it is seen, how it is coloured, and what is marked on it."""

    map: str = Field(
        default="", max_length=40, description="Version of a map; else the one that keeps most neighbours."
    )
    x: float | None = Field(default=None, ge=0, le=65_536, description="The middle of the view.")
    y: float | None = Field(default=None, ge=0, le=65_536, description="The middle of the view; upwards.")
    z: float = Field(default=0, ge=0, le=DEEPEST, description="Zoom; the view is 65,536 / 2^z places wide.")
    color: Literal["density", "maximum", "score", "sign", "region", "cluster"] = "cluster"
    q: Label = Field(default="", max_length=100, description="Mark latents whose label holds this text.")
    region: str = Field(default="", max_length=10, description="Mark a region's latents; none: those in no region.")
    cluster: str = Field(default="", max_length=10, description="Mark a cluster's latents; none: those in no cluster.")
    within: str = Field(default="", max_length=12_000, description="Mark what is in an outline: 0,0 900,0 900,500.")
    feature: int | None = Field(default=None, ge=0, lt=2**31, description="Hold this feature, with its company.")
    text: str | None = Field(default=None, max_length=LONGEST, description="Light the map up with what fires on this.")
    beside: Label = Field(default="", max_length=200, description="A second map: a map's version or an SAE.")
    side: Literal["left", "right"] = Field(default="left", description="Whose latents are marked and held.")
    x2: float | None = Field(default=None, ge=0, le=65_536, description="The middle of the second map's view.")
    y2: float | None = Field(default=None, ge=0, le=65_536, description="The same, upwards.")
    z2: float = Field(default=0, ge=0, le=DEEPEST, description="Zoom of the second map.")
    lock: bool = Field(default=False, description="Maps in one frame move together.")
    lines: bool = Field(default=False, description="Draw lines between the two maps' matched latents.")

    def filters(self) -> dict[str, str]:
        """What is marked, as the feature table's URL says it."""
        names = ("q", "region", "cluster", "within")
        return {name: value for name in names if (value := getattr(self, name))}


class MapMarks(BaseModel):
    """Places of what is marked; ``values``, for a text, are shares of each latent's maximum in the harvest."""

    latents: list[int]
    x: list[int]
    y: list[int]
    values: list[float] | None


class MapItem(LatentRow):
    """A marked latent; on a text, its greatest activation and what share of its maximum that is."""

    activation: float | None
    share: float | None


class MapFound(BaseModel):
    """What is marked on the map. ``found`` counts it, up to five thousand unless ``found_exact``; ``items`` are the
    first of it; ``off`` of those looked at have no place on the map. ``table`` lists all, ``csv`` is a file of all."""

    title: str
    items: list[MapItem]
    marks: MapMarks
    found: int
    found_exact: bool
    off: int
    page: str | None
    table: str | None
    csv: str | None


class MapCompanion(BaseModel):
    """A latent near another; ``score`` is their cosine, or on maps of co-activation their correlation."""

    index: int
    label: str
    score: float
    x: int
    y: int
    url: str


class MapSpot(BaseModel):
    """A held feature: where it is, at which ``level`` of the quadtree, and the nearest to it by the map's measure."""

    index: int
    label: str
    url: str
    x: int
    y: int
    level: int
    region: MapCluster | None
    cluster: MapCluster | None
    by: Literal["decoder", "coactivation"]
    company: list[MapCompanion]


class MapOther(BaseModel):
    """What can stand beside a map: ``value`` for ``?beside=``; ``aligned``: in the same frame."""

    value: str
    name: str
    aligned: bool


class MapPair(BaseModel):
    """A latent of the left map and its counterpart on the right; ``cosine`` is of their decoder rows, null where they
    are one and the same."""

    left: int
    right: int
    cosine: float | None
    x: int
    y: int
    x2: int
    y2: int


class MapMatch(BaseModel):
    """The counterpart of a marked latent (``of``) on the other map."""

    of: int
    index: int
    label: str
    url: str
    cosine: float


class MapBeside(BaseModel):
    """The second map. ``same``: of the same weights, so that a latent's counterpart is itself; else it is the one that
    is its nearest by decoder cosine while it is that one's. ``marks`` are counterparts, on the map that ``?side=`` does
    not name, of the latents ``of``; ``matched`` counts them, ``items`` are the first; ``spot`` is the held feature's,
    with their ``cosine``. ``pairs``, for ``?lines=1``, are those that are marked, else the closest. ``aligned``: both
    maps share a frame; ``alone`` is its own page."""

    sae: str
    revision: str
    address: str
    map: MapData
    same: bool
    aligned: bool
    marks: MapMarks | None
    of: list[int]
    matched: int
    items: list[MapMatch]
    spot: MapSpot | None
    cosine: float | None
    pairs: list[MapPair]
    alone: str


class MapPage(BaseModel):
    """A map's page. ``maps`` are all of the SAE's; ``map`` is the one shown, null where there is none; ``others`` can
    stand beside it, ``beside`` does; ``marked`` is the SAE whose latents are marked and held; ``told`` says what of the
    query could not be done."""

    sae: str
    revision: str
    address: str
    n_latents: int
    query: MapQuery
    maps: list[MapSummary]
    map: MapData | None
    others: list[MapOther]
    beside: MapBeside | None
    marked: str
    found: MapFound | None
    spot: MapSpot | None
    told: str | None


class Term(BaseModel):
    """What a group's latents have in common; ``score`` is its c-TF-IDF."""

    term: str
    score: float


class MapGroupPage(BaseModel):
    """A region or a cluster: its size and terms, the latent in its middle (``centre``) and where that is, its features'
    density, and the densest of its features; ``on_map`` is the map there. ``named_by``: see MapCluster."""

    sae: str
    revision: str
    address: str
    version: str
    map: MapSummary
    kind: Literal["region", "cluster"]
    id: int
    name: str
    named_by: str | None
    terms: list[Term]
    size: int
    alive: int
    density: float | None
    centre: int
    centre_url: str
    x: int
    y: int
    parent: MapCluster | None
    clusters: list[MapCluster]
    density_histogram: Histogram
    on_map: str
    features: LatentPage
