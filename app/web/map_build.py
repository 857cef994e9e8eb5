"""Maps from rows to what pages and their twins hold."""

from typing import Any

from app import urls
from app.atlas.colours import COLOURS
from app.store import maps as m
from app.store.map_bulk import ClusterRow
from app.store.map_places import Spot, Whereabouts
from app.store.queries import SAERecord
from app.web import map_contexts as c
from app.web.place_contexts import FeatureMap, MapGroupLink

METHODS = {"umap": "UMAP", "tsne": "t-SNE", "pca": "PCA"}


def name_of(method: str, on: str, beside: list[str]) -> str:
    others = ", ".join(one.partition("@")[0] for one in beside)
    return f"{METHODS[method]} of {on}" + (f" with {others}" if others else "")


def summary(sae: SAERecord, found: m.MapRecord) -> c.MapSummary:
    names = (
        "method", "on", "version", "placed", "unplaced", "clustered", "quality", "seconds", "made", "beside",
        "together",
    )  # fmt: skip
    return c.MapSummary(
        **{name: getattr(found, name) for name in names},
        structure=c.MapStructure(**found.structure) if found.structure else None,
        name=name_of(found.method, found.on, found.beside),
        url=urls.map_json(sae.address, found.version),
        page=urls.map_page(sae.address, map=found.version),
    )


def whole(sae: SAERecord, found: m.MapRecord, clusters: list[ClusterRow]) -> c.MapData:
    return c.MapData(
        **summary(sae, found).model_dump(), sae=sae.slug, revision=sae.revision, address=sae.address,
        parameters=found.parameters, facts=found.facts, colors=list(COLOURS),
        tiles=urls.map_tiles(sae.address, found.version), density=urls.map_density(sae.address, found.version),
        regions=_regions(sae, found.version, clusters),
    )  # fmt: skip


def _regions(sae: SAERecord, version: str, clusters: list[ClusterRow]) -> list[c.MapRegion]:
    inside: dict[int | None, list[c.MapCluster]] = {}
    for one in clusters:
        if one.level == 1:
            inside.setdefault(one.parent, []).append(cluster(sae, version, one))
    return [
        c.MapRegion(**cluster(sae, version, one).model_dump(), clusters=inside.get(one.id, []))
        for one in clusters
        if one.level == 0
    ]


def cluster(sae: SAERecord, version: str, one: ClusterRow) -> c.MapCluster:
    names = ("id", "name", "named_by", "terms", "size", "alive", "density", "x", "y")
    return c.MapCluster(
        **{name: getattr(one, name) for name in names},
        url=urls.feature(sae.address, one.centre),
        page=urls.map_group(sae.address, version, one.level, one.id),
    )


def spot(sae: SAERecord, found: m.MapRecord, rows: list[Spot], clusters: list[ClusterRow]) -> c.MapSpot:
    """rows: the latent, then its company."""
    me, *company = rows
    by_name = {(one.level, one.id): one for one in clusters}

    def group(level: int, number: int | None) -> c.MapCluster | None:
        one = None if number is None else by_name.get((level, number))
        return None if one is None else cluster(sae, found.version, one)

    return c.MapSpot(
        index=me.latent,
        label=me.label,
        url=urls.feature(sae.address, me.latent),
        x=me.x,
        y=me.y,
        level=me.level,
        region=group(0, me.region),
        cluster=group(1, me.cluster),
        by="coactivation" if found.on == "coactivation" else "decoder",
        company=[
            c.MapCompanion(
                index=one.latent, label=one.label, score=one.score or 0.0, x=one.x, y=one.y,
                url=urls.feature(sae.address, one.latent),
            )
            for one in company
        ],
    )  # fmt: skip


def feature_map(sae: SAERecord, index: int, found: Whereabouts) -> FeatureMap:
    def group(level: int, number: int | None, name: str | None) -> MapGroupLink | None:
        url = urls.map_group(sae.address, found.version, level, number or 0)
        return None if number is None else MapGroupLink(name=name or "", url=url)

    return FeatureMap(
        version=found.version, name=f"{METHODS[found.method]} of {found.on}", x=found.x, y=found.y,
        region=group(0, found.region, found.region_name), cluster=group(1, found.cluster, found.cluster_name),
        url=urls.map_page(sae.address, feature=index),
    )  # fmt: skip


def scripted(page: c.MapPage) -> dict[str, Any]:
    """What the page's script starts from."""
    names = {"version", "placed", "tiles", "density", "regions", "name"}
    two = page.beside
    return {
        "map": page.map and page.map.model_dump(mode="json", include=names),
        "links": urls.map_links(page.address),
        "features": page.n_latents,
        "beside": two
        and {
            "map": two.map.model_dump(mode="json", include=names), "links": urls.map_links(two.address),
            "same": two.same, "aligned": two.aligned,
        },
    }  # fmt: skip
