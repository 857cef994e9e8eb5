"""Where a feature is on a map, as its page shows it."""

from pydantic import BaseModel


class MapGroupLink(BaseModel):
    """A region or a cluster; ``url`` is its page."""

    name: str
    url: str


class FeatureMap(BaseModel):
    """A feature's place on the map that the map's page opens with; ``x`` and ``y`` (0 to 65,535, y upwards) are null
    where it has none. ``url`` is the map, with the feature held."""

    version: str
    name: str
    x: int | None
    y: int | None
    region: MapGroupLink | None
    cluster: MapGroupLink | None
    url: str
