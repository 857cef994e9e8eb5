"""Where latents crowd on the map: regions and the clusters in them, from the density of the layout.

The map's counts are smoothed with a Gaussian of two widths. Each cell climbs to its highest neighbour, and so on to a
peak: the cells of one peak are a basin. A basin stands for itself only if it is more than chance: smoothing counts with
a Gaussian of width s leaves a standard deviation of sqrt(f / (4 pi s^2)) where the density is f, so a peak that does
not rise above its saddle by ``SIGMAS`` of its own is merged over it, and one that is alone and no higher is dropped
(persistence: Chazal, Guibas, Oudot & Skraba 2013). Where the density is below a tenth of the peak's, a latent is in
none.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from app.atlas.arrays import Ints
from app.atlas.extras import extra
from app.atlas.places import RASTER, SIDE, Grid, counts
from app.errors import MapImpossible

SIGMAS = 3.0
RIM = 0.1
LEAST = 8  # members
HDBSCAN_MOST = 131_072

Doubles = npt.NDArray[np.float64]


class Regions(NamedTuple):
    """region, cluster: [n], numbers from 0, the largest first, -1 for none; parent: [clusters], their regions. Who
    is in a cluster is in its region."""

    region: Ints
    cluster: Ints
    parent: Ints


def widths(n: int) -> tuple[float, float]:
    """The Gaussians for regions and clusters, in cells of the raster. The narrow one sees about four latents at the
    mean density, and is 2 to 8 cells wide; the wide one is four times that, 16 at most."""
    narrow = float(np.clip(RASTER / np.sqrt(np.pi * n), 2, 8))
    return min(4 * narrow, 16.0), narrow


def by_density(grid: Grid) -> Regions:
    wide, narrow = widths(len(grid))
    field = counts(grid)
    cells = grid.astype(np.int64) * RASTER // SIDE
    at = cells[:, 1] * RASTER + cells[:, 0]
    return nested(*(basins(field, width).reshape(-1)[at] for width in (wide, narrow)))


def by_hdbscan(grid: Grid) -> Regions:
    """HDBSCAN (Campello, Moulavi & Sander 2013) of the places: clusters of at least n / 500 members, regions of n / 50.

    Raises:
        MapImpossible: there are too many latents for it.
    """
    n = len(grid)
    if n > HDBSCAN_MOST:
        raise MapImpossible(
            f"HDBSCAN is for {HDBSCAN_MOST:,} latents at most, and there are {n:,}; use --clusters density.", latents=n
        )
    hdbscan = extra("sklearn.cluster").HDBSCAN
    places = grid.astype(np.float64)
    sizes = max(LEAST, n // 50), max(LEAST, n // 500)
    return nested(*(hdbscan(min_cluster_size=min(size, n), copy=True).fit_predict(places) for size in sizes))


def basins(field: npt.NDArray[np.int64], width: float) -> Ints:
    """field: [side, side] counts -> [side, side], which peak's basin each cell is in, -1 for none."""
    smooth = smoothed(field, width)
    flat = smooth.reshape(-1)
    noise = 1 / (4 * np.pi * width**2)
    peak_of = _climbed(smooth)
    root = _merged(flat, peak_of, smooth.shape[0], noise)
    peak = root[peak_of]
    inside = (flat[peak] > SIGMAS**2 * noise) & (flat >= RIM * flat[peak]) & (flat > 0)
    return np.where(inside, peak, -1).reshape(smooth.shape)


def smoothed(field: npt.NDArray[np.int64], width: float) -> Doubles:
    """Convolved with a Gaussian of ``width`` cells; what falls off the edge is lost."""
    away = np.arange(len(field))
    kernel = np.exp(-((away[:, None] - away) ** 2) / (2 * width**2)) / (width * np.sqrt(2 * np.pi))
    kernel[np.abs(away[:, None] - away) > 4 * width] = 0
    found: Doubles = kernel @ field @ kernel
    return found


def _climbed(smooth: Doubles) -> Ints:
    """[cells], the peak each cell climbs to by its highest neighbour of eight; of equal heights the first cell counts
    as higher."""
    side = len(smooth)
    height = np.empty(side * side, np.int64)
    height[np.lexsort((-np.arange(side * side), smooth.reshape(-1)))] = np.arange(side * side)
    padded = np.full((side + 2, side + 2), -1)
    padded[1:-1, 1:-1] = height.reshape(side, side)
    shifts = [(dy, dx) for dy in range(3) for dx in range(3)]
    around = np.stack([padded[dy : dy + side, dx : dx + side] for dy, dx in shifts])
    cell_at = np.empty(side * side, np.int64)
    cell_at[height] = np.arange(side * side)
    up: Ints = cell_at[around.max(0).reshape(-1)]
    while not np.array_equal(further := up[up], up):
        up = further
    return up


def _merged(flat: Doubles, peak_of: Ints, side: int, noise: float) -> Ints:
    """[cells], for each peak the one it counts to: over the highest saddles first, the lower of two peaks joins the
    higher unless it rises ``SIGMAS`` above the saddle."""
    low, high, saddle = _saddles(flat, peak_of, side)
    root = np.arange(len(flat))

    def find(peak: int) -> int:
        while root[peak] != peak:
            root[peak] = root[root[peak]]
            peak = int(root[peak])
        return peak

    for a, b, height in zip(low.tolist(), high.tolist(), saddle.tolist(), strict=True):
        first, second = find(a), find(b)
        if first == second:
            continue
        if (flat[first], -first) < (flat[second], -second):
            first, second = second, first
        if flat[second] - height < SIGMAS * np.sqrt(flat[second] * noise):
            root[second] = first
    while not np.array_equal(further := root[root], root):
        root = further
    return root


def _saddles(flat: Doubles, peak_of: Ints, side: int) -> tuple[Ints, Ints, Doubles]:
    """Pairs of peaks whose basins touch and the highest pass between them, the highest first; no pass at height 0."""
    number = np.arange(side * side).reshape(side, side)
    touching = [
        (number[:, 1:], number[:, :-1]), (number[1:], number[:-1]), (number[1:, 1:], number[:-1, :-1]),
        (number[1:, :-1], number[:-1, 1:]),
    ]  # fmt: skip
    one = np.concatenate([a.reshape(-1) for a, _ in touching])
    other = np.concatenate([b.reshape(-1) for _, b in touching])
    height = np.minimum(flat[one], flat[other])
    one, other = peak_of[one], peak_of[other]
    border = (one != other) & (height > 0)
    low, high, height = np.minimum(one, other)[border], np.maximum(one, other)[border], height[border]
    order = np.lexsort((high, low, -height))
    low, high, height = low[order], high[order], height[order]
    _, first = np.unique(low * side * side + high, return_index=True)
    first.sort()
    return low[first], high[first], height[first]


def nested(region: Ints, cluster: Ints) -> Regions:
    """Two labellings, any numbers, -1 for none -> a cluster's region is the one most of its members are in, and theirs
    too; a cluster with most members in none is one region more. Groups of fewer than ``LEAST`` are none."""
    region, cluster = _large(region), _large(cluster)
    n_clusters, n_regions = int(cluster.max(initial=-1)) + 1, int(region.max(initial=-1)) + 1
    held = cluster >= 0
    votes = np.bincount(
        cluster[held] * (n_regions + 1) + region[held] + 1, minlength=n_clusters * (n_regions + 1)
    ).reshape(n_clusters, n_regions + 1)
    parent = votes.argmax(1) - 1
    alone = np.flatnonzero(parent < 0)
    parent[alone] = n_regions + np.arange(len(alone))
    region = region.copy()
    region[held] = parent[cluster[held]]
    sizes = np.bincount(region[region >= 0], minlength=n_regions + len(alone))
    order = np.lexsort((np.arange(len(sizes)), -sizes))
    order = order[sizes[order] > 0]
    new = np.full(len(sizes) + 1, -1)
    new[order] = np.arange(len(order))
    return Regions(new[region], cluster, new[parent])


def _large(labels: Ints) -> Ints:
    """Numbered anew, the largest group first, -1 for groups that are too small."""
    kinds, which, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    order = np.lexsort((kinds, -sizes))
    order = order[(sizes[order] >= LEAST) & (kinds[order] >= 0)]
    new = np.full(len(kinds), -1)
    new[order] = np.arange(len(order))
    return new[which]


def centres(grid: Grid, groups: Ints) -> Ints:
    """Of each group the member nearest to the median of their places: [groups]."""
    order = np.argsort(groups, kind="stable")
    order = order[groups[order] >= 0]
    if not len(order):
        return np.empty(0, np.int64)
    parts = np.split(order, np.flatnonzero(np.diff(groups[order])) + 1)
    return np.array([part[_nearest(grid[part])] for part in parts], np.int64)


def _nearest(places: Grid) -> int:
    away = places.astype(np.float64) - np.median(places, axis=0)
    return int((away**2).sum(1).argmin())
