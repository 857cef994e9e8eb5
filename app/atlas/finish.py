"""What follows a map's layout: regions and their names, tiles, and all of it as rows."""

import hashlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from app.atlas import colours, names, regions, tiles
from app.atlas.arrays import Ints, Places
from app.atlas.places import Frame, apart, counts, frame
from app.atlas.recipe import Recipe, Watch
from app.atlas.structure import structure
from app.atlas.vectors import Vectors
from app.errors import SubjectUnavailable
from app.store.map_bulk import ClusterRow, MapRow, Points, TileRow, Whole
from app.store.map_sources import Latents, Source
from app.subject.load import load_vocabulary


class Laid(NamedTuple):
    """places: [placed, 2], the layout; quality: by method; facts: of the graph, where one was made."""

    places: Places
    quality: dict[str, Any]
    facts: dict[str, Any]


class Shared(NamedTuple):
    """A frame that several maps have: ``beside`` are the other SAEs in it, ``together`` is its name."""

    frame: Frame
    beside: list[str]
    together: str


class Part(NamedTuple):
    """One SAE of a map; model: of its explanations' vectors, where it is laid out on them."""

    source: Source
    latents: Latents
    vectors: Vectors
    model: str | None = None

    @property
    def address(self) -> str:
        return f"{self.source.slug}@{self.source.revision}"


class Group(NamedTuple):
    """A region or a cluster with its latents, the most important first."""

    row: ClusterRow
    labels: list[str]


# Given the addresses of all SAEs in the frame, and the groups of one of them.
Namer = Callable[[str, list[Group]], list[ClusterRow]]


def finish(
    part: Part,
    recipe: Recipe,
    laid: Laid,
    home: Path,
    began: float,
    watch: Watch,
    *,
    shared: Shared | None = None,
    namer: Namer | None = None,
) -> Whole:
    """The map of one SAE, ready to be saved."""
    source, latents, vectors, _ = part
    watch.doing("finding regions")
    square = shared.frame if shared else frame(laid.places)
    grid = apart(square.on_grid(laid.places))
    groups = regions.by_density(grid) if recipe.clusters == "density" else regions.by_hdbscan(grid)
    clusters = _clusters(part, grid, groups, home)
    watch.doing("cutting tiles")
    mine = vectors.latents
    alive = latents.density[mine] > 0
    explained = np.array([source not in names.TOKEN_SOURCES for _, source in latents.labels])[mine]
    rank = tiles.ranks(alive, explained, latents.score[mine], recipe.seed)
    if namer is not None:
        watch.doing("naming regions")
        everyone = " ".join(sorted([part.address, *(shared.beside if shared else [])]))
        clusters = namer(everyone, _labelled(clusters, part, groups, rank))
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
    watch.doing("measuring how latents are spread")
    spread = structure(vectors.rows, laid.places, groups.cluster, square, seed=recipe.seed)
    row = MapRow(
        recipe.method, recipe.on, _version(points, clusters, rows), recipe.parameters(), laid.facts, laid.quality,
        len(mine), source.n_latents - len(mine), int((groups.cluster >= 0).sum()), list(square),
        counts(grid).clip(0, 65_535).astype("<u2").tobytes(), time.monotonic() - began, spread._asdict(),
        shared.beside if shared else [], shared.together if shared else None,
    )  # fmt: skip
    return Whole(source.id, row, points, clusters, rows)


def _labelled(clusters: list[ClusterRow], part: Part, groups: regions.Regions, rank: Ints) -> list[Group]:
    out = []
    for one in clusters:
        members = np.flatnonzero((groups.cluster if one.level else groups.region) == one.id)
        members = members[np.argsort(rank[members])]
        out.append(Group(one, [part.latents.labels[i][0] for i in part.vectors.latents[members].tolist()]))
    return out


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


def _clusters(part: Part, grid: npt.NDArray[np.uint16], groups: regions.Regions, home: Path) -> list[ClusterRow]:
    """Regions, then clusters, each with its name."""
    source, latents, vectors, _ = part
    found = names.terms(
        source.n_latents, latents.tokens, latents.counts, _texts(home / source.subject_path), latents.labels
    )
    mine, rows = vectors.latents, []
    levels = groups.region, groups.cluster
    told = [_named(found, source.n_latents, mine, of) for of in levels]
    told[0] = names.mixed(told[1], groups.parent.tolist(), told[0])
    for level, of in enumerate(levels):
        for number, (name, centre) in enumerate(zip(told[level], regions.centres(grid, of).tolist(), strict=True)):
            density = latents.density[mine[of == number]]
            alive = density[density > 0]
            rows.append(
                ClusterRow(
                    level, number, int(groups.parent[number]) if level else None, *name, len(density), len(alive),
                    float(np.median(alive)) if len(alive) else None, int(mine[centre]), *grid[centre].tolist(),
                )
            )  # fmt: skip
    return rows


def _named(found: names.Terms, n_latents: int, mine: Ints, of: Ints) -> list[names.Named]:
    everyone = np.full(n_latents, -1)
    everyone[mine] = of
    return names.named(found, everyone, int(of.max(initial=-1)) + 1)


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
