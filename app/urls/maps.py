"""Addresses of maps."""

from app.urls.features import features, features_csv, features_json
from app.urls.parts import query_of, slug_of


def maps_json(slug: str) -> str:
    return f"/saes/{slug_of(slug)}/maps.json"


def map_json(slug: str, version: str) -> str:
    return f"/saes/{slug_of(slug)}/map/{version}.json"


def first_map() -> str:
    """Leads to the map of the newest SAE."""
    return "/map"


def map_page(slug: str, **state: object) -> str:
    """``state`` is which map, where on it, how it is coloured and what stands beside it."""
    return f"/saes/{slug_of(slug)}/map" + query_of(**state)


def map_page_json(slug: str, **state: object) -> str:
    return f"/saes/{slug_of(slug)}/map.json" + query_of(**state)


def map_group(slug: str, version: str, level: int, number: int) -> str:
    """A region (level 0) or a cluster (1) of a map."""
    return f"/saes/{slug_of(slug)}/map/{version}/{('regions', 'clusters')[level]}/{number}"


def map_group_json(slug: str, version: str, level: int, number: int) -> str:
    return map_group(slug, version, level, number) + ".json"


def map_links(slug: str) -> dict[str, str]:
    """What the map's script builds on: pages, and those of a feature with {i} for its number."""
    feature = f"{features(slug)}/{{i}}"
    return {
        "page": map_page(slug), "rows": features_json(slug), "csv": features_csv(slug), "feature": feature,
        "card": f"{feature}/card",
    }  # fmt: skip


def map_tiles(slug: str, version: str) -> str:
    """Of every tile, with {z}, {x} and {y} in the place of its numbers."""
    return f"/saes/{slug_of(slug)}/map/{version}/{{z}}/{{x}}/{{y}}.bin"


def map_density(slug: str, version: str) -> str:
    return f"/saes/{slug_of(slug)}/map/{version}/density.png"
