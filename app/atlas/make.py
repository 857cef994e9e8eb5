"""A map from an SAE to the database."""

import hashlib
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from sqlalchemy import Engine

from app.atlas import colours, knn, layout, names, regions, tiles
from app.atlas.arrays import Floats, Ints, Places
from app.atlas.kept import Arrays, Kept
from app.atlas.places import apart, counts, frame
from app.atlas.quality import quality
from app.atlas.vectors import On, Vectors, of_company, of_weights
from app.errors import InvalidSAE, SubjectUnavailable
from app.sae.base import SAEFormatError
from app.sae.formats import read
from app.store.engine import explained
from app.store.map_bulk import ClusterRow, MapRow, Points, TileRow, map_lock, save_map
from app.store.map_sources import Latents, Source, find_source, read_company, read_latents
from app.store.revisions import known
from app.subject.load import load_vocabulary

SAMPLE = 131_072


@dataclass(frozen=True)
class Recipe:
    """Of more than ``sample`` latents, UMAP and t-SNE lay out so many, drawn at random; each of the others goes to its
    nearest among them."""

    method: layout.Method = "umap"
    on: On = "decoder"
    clusters: Literal["density", "hdbscan"] = "density"
    seed: int = 0
    k: int = knn.K
    sample: int = SAMPLE


@dataclass(frozen=True)
class Watch:
    """Who is told: ``doing`` at each stage, ``step`` with how much of it is done."""

    doing: Callable[[str], None] = lambda stage: None
    step: Callable[[int, int], None] = lambda done, total: None


@dataclass(frozen=True)
class Made:
    """fresh: False where the very same map was there already."""

    slug: str
    revision: str
    row: MapRow
    clusters: list[ClusterRow]
    fresh: bool


class Laid(NamedTuple):
    """places: [placed, 2], the layout; quality: by method; facts: of the graph, where one was made."""

    places: Places
    quality: dict[str, Any]
    facts: dict[str, Any]


def make_map(
    address: str, recipe: Recipe, engine: Engine, home: Path, *, device: str = "cpu", watch: Watch = Watch()
) -> Made:
    """Lay out the latents of the SAE ``address`` (``slug`` or ``slug@revision``) and save the map.

    Raises:
        UnknownSAE: there is none.
        MapRunning: one of this SAE is being made.
        MapImpossible: its latents cannot be told apart, or there are too few.
    """
    slug, _, revision = address.partition("@")
    with explained(), engine.connect() as connection:
        known(connection, slug, revision or None)
    with map_lock(engine, slug):
        began = time.monotonic()
        watch.doing("reading the SAE")
        with explained(), engine.connect() as connection:
            source = find_source(connection, slug, revision or None)
            latents = read_latents(connection, source.id)
            vectors = _vectors(connection, source, recipe, home)
        laid = _laid(vectors, recipe, Kept(home / source.path), _inputs(source, recipe), device, watch)
        watch.doing("finding regions")
        return finish(engine, source, recipe, vectors, latents, laid, home, began, watch)


def _vectors(connection: Any, source: Source, recipe: Recipe, home: Path) -> Vectors:
    if recipe.on == "coactivation":
        return of_company(*read_company(connection, source.id), seed=recipe.seed)
    try:
        return of_weights(read(home / source.path), recipe.on)
    except SAEFormatError as error:
        raise InvalidSAE(f"The SAE's files cannot be read: {error}", path=source.path) from error


def _inputs(source: Source, recipe: Recipe) -> dict[str, Any]:
    """All that decides graph and layout."""
    weights = source.sha256 if recipe.on != "coactivation" else f"{source.sha256} {source.revision}"
    return {"vectors": weights, "on": recipe.on, "seed": recipe.seed, "k": recipe.k, "sample": recipe.sample}


def _laid(vectors: Vectors, recipe: Recipe, kept: Kept, of: dict[str, Any], device: str, watch: Watch) -> Laid:
    rows = vectors.rows
    watch.doing("principal components")
    pca = layout.components(rows).places(rows)
    places, facts = pca, {}
    if recipe.method != "pca":
        chosen = np.sort(np.random.default_rng(recipe.seed).permutation(len(rows))[: recipe.sample])
        some = rows if len(chosen) == len(rows) else rows[chosen]

        def find() -> Arrays:
            watch.doing("finding nearest neighbours")
            found = knn.graph(some, recipe.k, seed=recipe.seed, device=device, step=watch.step)
            return {name: np.asarray(value) for name, value in found._asdict().items()}

        held = kept.get("graph", of, find)
        graph = knn.Graph(held["ids"], held["cosines"], bool(held["exact"]), float(held["recall"]), int(held["sample"]))
        facts = {
            "k": graph.ids.shape[1], "exact": graph.exact, "recall": graph.recall, "recall_sample": graph.sample,
            "laid_out": len(chosen),
        }  # fmt: skip

        def lay_out() -> Arrays:
            watch.doing(f"laying out by {NAMES[recipe.method]}")
            if recipe.method == "umap":
                return {"places": layout.umap(graph, pca[chosen], seed=recipe.seed)}
            return {"places": layout.tsne(graph, pca[chosen], seed=recipe.seed, step=watch.step)}

        mine = kept.get("layout", {**of, "method": recipe.method}, lay_out)["places"]
        places = _whole(rows, chosen, some, mine, device, watch)
    watch.doing("measuring what the layout keeps")
    layouts = {"pca": pca, recipe.method: places}
    measured: dict[str, Any] = {
        method: quality(rows, one, k=recipe.k, seed=recipe.seed, device=device)._asdict()
        for method, one in layouts.items()
    }
    return Laid(places, measured, facts)


NAMES = {"pca": "PCA", "umap": "UMAP", "tsne": "t-SNE"}


def _whole(rows: Floats, chosen: Ints, some: Floats, mine: Places, device: str, watch: Watch) -> Places:
    """The places of all rows, given those of ``chosen``."""
    if len(chosen) == len(rows):
        return mine
    watch.doing("placing the others")
    others = np.setdiff1d(np.arange(len(rows)), chosen)
    places = np.empty((len(rows), 2), np.float32)
    places[chosen] = mine
    places[others] = layout.into(rows[others], some, mine, device=device, step=watch.step)
    return places


def finish(
    engine: Engine,
    source: Source,
    recipe: Recipe,
    vectors: Vectors,
    latents: Latents,
    laid: Laid,
    home: Path,
    began: float,
    watch: Watch,
) -> Made:
    """What follows the layout: regions and their names, tiles, the database."""
    square = frame(laid.places)
    grid = apart(square.on_grid(laid.places))
    groups = regions.by_density(grid) if recipe.clusters == "density" else regions.by_hdbscan(grid)
    clusters = _clusters(source, vectors, latents, grid, groups, home)
    watch.doing("cutting tiles")
    mine = vectors.latents
    alive = latents.density[mine] > 0
    explained_ = np.array([source not in names.TOKEN_SOURCES for _, source in latents.labels])[mine]
    rank = tiles.ranks(alive, explained_, latents.score[mine], recipe.seed)
    cut = list(tiles.tree(grid, rank))
    z = np.empty(len(mine), np.int64)
    for tile in cut:
        z[tile.members] = tile.z
    painted = _colours(latents, mine, groups)
    x, y = grid.astype(np.int64).T
    points = Points(mine, laid.places, x, y, rank, z, groups.region, groups.cluster)
    rows = [
        TileRow(t.z, t.x, t.y, tiles.placed(t, grid, mine), np.ascontiguousarray(painted[:, t.members]).tobytes())
        for t in cut
    ]
    row = MapRow(
        recipe.method, recipe.on, _version(points, clusters, rows), asdict(recipe), laid.facts, laid.quality,
        len(mine), source.n_latents - len(mine), int((groups.cluster >= 0).sum()), list(square),
        counts(grid).clip(0, 65_535).astype("<u2").tobytes(), time.monotonic() - began,
    )  # fmt: skip
    watch.doing("copying into the database")
    fresh = save_map(engine, source.id, row, points, clusters, rows)
    return Made(source.slug, source.revision, row, clusters, fresh)


def _colours(latents: Latents, mine: Ints, groups: regions.Regions) -> npt.NDArray[np.uint8]:
    """[colours, placed], in the order of ``colours.COLOURS``."""
    maximum, minimum = latents.maximum[mine], latents.minimum[mine]
    by_name = {
        "density": colours.density(latents.density[mine]),
        "maximum": colours.maximum(np.maximum(maximum, -minimum)),
        "score": colours.score(latents.score[mine]),
        "sign": colours.sign(maximum, minimum),
        "region": colours.group(groups.region),
        "cluster": colours.group(groups.cluster),
    }
    return np.stack([by_name[name] for name in colours.COLOURS])


def _clusters(
    source: Source,
    vectors: Vectors,
    latents: Latents,
    grid: npt.NDArray[np.uint16],
    groups: regions.Regions,
    home: Path,
) -> list[ClusterRow]:
    """Regions, then clusters, each with its name."""
    found = names.terms(
        source.n_latents, latents.tokens, latents.counts, _texts(home / source.subject_path), latents.labels
    )
    mine, rows = vectors.latents, []
    for level, of in enumerate((groups.region, groups.cluster)):
        n = int(of.max(initial=-1)) + 1
        everyone = np.full(source.n_latents, -1)
        everyone[mine] = of
        for number, (name, centre) in enumerate(
            zip(names.named(found, everyone, n), regions.centres(grid, of).tolist(), strict=True)
        ):
            density = latents.density[mine[of == number]]
            alive = density[density > 0]
            rows.append(
                ClusterRow(
                    level, number, int(groups.parent[number]) if level else None, *name, len(density), len(alive),
                    float(np.median(alive)) if len(alive) else None, int(mine[centre]), *grid[centre].tolist(),
                )
            )  # fmt: skip
    return rows


def _texts(folder: Path) -> list[str]:
    """Every token's text; none where the subject's tokenizer is gone, and names are made of labels alone."""
    try:
        vocabulary = load_vocabulary(folder)
    except SubjectUnavailable:
        return []
    return [vocabulary.text(token) for token in range(len(vocabulary))]


def _version(points: Points, clusters: list[ClusterRow], rows: list[TileRow]) -> str:
    """First 10 hex digits of SHA-256 over all that readers are sent."""
    digest = hashlib.sha256(repr(clusters).encode())
    for column in points:
        digest.update(np.ascontiguousarray(column).tobytes())
    for row in rows:
        digest.update(row.points + row.colours)
    return digest.hexdigest()[:10]
