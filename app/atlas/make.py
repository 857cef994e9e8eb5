"""Maps from SAEs to the database."""

import hashlib
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import Connection, Engine

from app.atlas import knn, layout
from app.atlas.arrays import Floats, Ints, Places
from app.atlas.finish import Laid, Namer, Part, Shared, finish
from app.atlas.kept import Arrays, Kept
from app.atlas.places import frame
from app.atlas.quality import quality
from app.atlas.recipe import Recipe as Recipe
from app.atlas.recipe import Watch as Watch
from app.atlas.vectors import Vectors, of_company, of_texts, of_weights
from app.errors import BadRequest, InvalidSAE, MapImpossible
from app.sae.base import SAEFormatError
from app.sae.formats import read
from app.store.engine import explained
from app.store.map_bulk import ClusterRow, MapRow, Whole, map_lock, save_maps
from app.store.map_sources import Source, find_source, read_company, read_latents, read_vectors
from app.store.revisions import known

QUIET = Watch()
LAYING = "laying out by"
NAMES = {"pca": "PCA", "umap": "UMAP", "tsne": "t-SNE"}


@dataclass(frozen=True)
class Made:
    """fresh: False where the very same map was there already."""

    slug: str
    revision: str
    whole: Whole
    fresh: bool

    @property
    def row(self) -> MapRow:
        return self.whole.row

    @property
    def clusters(self) -> Sequence[ClusterRow]:
        return self.whole.clusters


def make_map(
    address: str,
    recipe: Recipe,
    engine: Engine,
    home: Path,
    *,
    device: str = "cpu",
    watch: Watch = QUIET,
    namer: Namer | None = None,
) -> Made:
    """Lay out the latents of the SAE ``address`` (``slug`` or ``slug@revision``) and save the map: ``make_maps``."""
    return make_maps([address], recipe, engine, home, device=device, watch=watch, namer=namer)[0]


def make_maps(
    addresses: Sequence[str],
    recipe: Recipe,
    engine: Engine,
    home: Path,
    *,
    device: str = "cpu",
    watch: Watch = QUIET,
    namer: Namer | None = None,
    save: bool = True,
) -> list[Made]:
    """Lay out the latents of one SAE, or of several in one frame, and save the map of each, all or none. Without
    ``save`` nothing but the layout is kept.

    Raises:
        UnknownSAE: there is none.
        BadRequest: one is given twice, or what is asked for cannot be shared.
        MapRunning: one of these SAEs' is being made.
        MapImpossible: latents cannot be told apart, or there are too few.
    """
    with ExitStack() as held:
        parts = [read_part(*one, recipe, engine, home, watch) for one in locked(addresses, engine, held)]
        began = time.monotonic()
        parts = sorted(parts, key=lambda part: part.address)  # whoever is named first
        check_shared(parts, recipe)
        rows = np.concatenate([part.vectors.rows for part in parts])
        laid = _layouts(rows, recipe, Kept(home / parts[0].source.path), _inputs(parts, recipe), device, watch)
        wholes = _wholes(parts, recipe, *laid, home, began, device, watch, namer)
        return saved(parts, wholes, engine, watch) if save else []


def locked(addresses: Sequence[str], engine: Engine, held: ExitStack) -> list[tuple[str, str | None]]:
    """Slug and revision of each; ``held`` keeps the rights to map them.

    Raises:
        UnknownSAE, MapRunning
    """
    found = [(slug, revision or None) for slug, _, revision in (one.partition("@") for one in addresses)]
    with explained(), engine.connect() as connection:
        for slug, revision in found:
            known(connection, slug, revision)
    for slug in sorted({slug for slug, _ in found}):
        held.enter_context(map_lock(engine, slug))
    return found


def check_shared(parts: Sequence[Part], recipe: Recipe) -> None:
    """
    Raises:
        BadRequest: one of several SAEs is there twice, or their vectors mean nothing to each other.
        MapImpossible: their vectors are of different widths.
    """
    if len(parts) == 1:
        return
    addresses = [part.address for part in parts]
    if len(set(addresses)) < len(addresses):
        raise BadRequest("The same SAE is named twice; a shared frame needs different ones.")
    if recipe.on == "coactivation":
        raise BadRequest(
            "Maps on coactivation share no frame, since each SAE's is of its own latents; use --on decoder, encoder or "
            "explanations."
        )
    models = {part.model for part in parts}
    if len(models) > 1:
        raise MapImpossible(
            f"Explanations embedded by {' and '.join(sorted(str(model) for model in models))} cannot share a frame; "
            "embed both anew.",
            on=recipe.on,
        )
    widths = {part.vectors.rows.shape[1] for part in parts}
    if len(widths) > 1:
        raise MapImpossible(
            f"Directions that are {' and '.join(f'{width:,}' for width in sorted(widths))} wide cannot share a frame.",
            on=recipe.on,
        )


def read_part(slug: str, revision: str | None, recipe: Recipe, engine: Engine, home: Path, watch: Watch) -> Part:
    watch.doing(f"reading {slug}")
    with explained(), engine.connect() as connection:
        source = find_source(connection, slug, revision)
        return Part(source, read_latents(connection, source.id), *_vectors(connection, source, recipe, home))


def _vectors(connection: Connection, source: Source, recipe: Recipe, home: Path) -> tuple[Vectors, str | None]:
    if recipe.on == "coactivation":
        return of_company(*read_company(connection, source.id), seed=recipe.seed), None
    if recipe.on == "explanations":
        worded = read_vectors(connection, source.id)
        return of_texts(worded.latents, worded.vectors, source.n_latents, source.slug), worded.model
    try:
        return of_weights(read(home / source.path), recipe.on), None
    except SAEFormatError as error:
        raise InvalidSAE(f"The SAE's files cannot be read: {error}", path=source.path) from error


def _inputs(parts: Sequence[Part], recipe: Recipe) -> dict[str, Any]:
    """All that decides graph and layout."""
    of = [_decided(part, recipe) for part in parts]
    vectors = of[0] if len(of) == 1 else of
    return {"vectors": vectors, "on": recipe.on, "seed": recipe.seed, "k": recipe.k, "sample": recipe.sample}


def _decided(part: Part, recipe: Recipe) -> str:
    source = part.source
    match recipe.on:
        case "coactivation":
            return f"{source.sha256} {source.revision}"
        case "explanations":
            return hashlib.sha256(part.vectors.rows.tobytes() + part.vectors.latents.tobytes()).hexdigest()
    return source.sha256


def _layouts(
    rows: Floats, recipe: Recipe, kept: Kept, of: dict[str, Any], device: str, watch: Watch
) -> tuple[dict[str, Places], dict[str, Any]]:
    """Places of every row by PCA and by the recipe's method, and facts of the graph."""
    watch.doing("principal components")
    pca = layout.components(rows).places(rows)
    if recipe.method == "pca":
        return {"pca": pca}, {}
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
        watch.doing(f"{LAYING} {NAMES[recipe.method]}")
        if recipe.method == "umap":
            return {"places": layout.umap(graph, pca[chosen], seed=recipe.seed)}
        return {"places": layout.tsne(graph, pca[chosen], seed=recipe.seed, step=watch.step)}

    mine = kept.get("layout", {**of, "method": recipe.method}, lay_out)["places"]
    return {"pca": pca, recipe.method: _whole(rows, chosen, some, mine, kept, of, device, watch)}, facts


def _whole(
    rows: Floats, chosen: Ints, some: Floats, mine: Places, kept: Kept, of: dict[str, Any], device: str, watch: Watch
) -> Places:
    """The places of all rows, given those of ``chosen``."""
    if len(chosen) == len(rows):
        return mine
    others = np.setdiff1d(np.arange(len(rows)), chosen)

    def find() -> Arrays:
        watch.doing("finding the nearest of the others")
        return dict(layout.into(rows[others], some, device=device, step=watch.step)._asdict())

    near = kept.get("others", of, find)
    places = np.empty((len(rows), 2), np.float32)
    places[chosen] = mine
    places[others] = layout.Near(near["ids"], near["weights"]).places(mine)
    return places


def measured(rows: Floats, layouts: dict[str, Places], recipe: Recipe, device: str) -> dict[str, Any]:
    """The quality of each layout, by method."""
    return {
        method: quality(rows, one, k=recipe.k, seed=recipe.seed, device=device)._asdict()
        for method, one in layouts.items()
    }


def _wholes(
    parts: Sequence[Part],
    recipe: Recipe,
    layouts: dict[str, Places],
    facts: dict[str, Any],
    home: Path,
    began: float,
    device: str,
    watch: Watch,
    namer: Namer | None,
) -> list[Whole]:
    """parts: in the order in which ``layouts`` hold their rows."""
    together, square = None, None
    if len(parts) > 1:
        places = layouts[recipe.method]
        square = frame(places)
        together = hashlib.sha256(repr(square).encode() + places.tobytes()).hexdigest()[:10]
    wholes, start = [], 0
    for part in parts:
        stop = start + len(part.vectors.rows)
        own = {method: places[start:stop] for method, places in layouts.items()}
        watch.doing("measuring what the layout keeps")
        laid = Laid(own[recipe.method], measured(part.vectors.rows, own, recipe, device), facts)
        others = [other.address for other in parts if other is not part]
        shared = Shared(square, others, together) if square and together else None
        wholes.append(finish(part, recipe, laid, home, began, watch, shared=shared, namer=namer))
        start = stop
    return wholes


def saved(parts: Sequence[Part], wholes: Sequence[Whole], engine: Engine, watch: Watch) -> list[Made]:
    watch.doing("copying into the database")
    fresh = save_maps(engine, wholes)
    return [
        Made(part.source.slug, part.source.revision, whole, new)
        for part, whole, new in zip(parts, wholes, fresh, strict=True)
    ]
