"""How an SAE's latents are spread and grouped, in numbers that can be set beside another SAE's."""

from typing import NamedTuple

import numpy as np

from app.atlas.arrays import Floats, Ints, Places
from app.atlas.knn import nearest
from app.atlas.places import Frame

SAMPLE = 1_000


class Structure(NamedTuple):
    """``nearest_cosine``: the median, over ``sample`` latents, of the cosine to the nearest other one of the SAE.
    ``variance``: 1 - the length of the mean direction (circular variance: Mardia & Jupp 2000), 0 where all point the
    same way. ``silhouette``: the mean over latents in clusters (Rousseeuw 1987) by 1 - cosine, from -1 to 1; None where
    there are fewer than two clusters. ``spread``: the root mean square distance on the map from the mean place, in
    sides of the map."""

    nearest_cosine: float
    variance: float
    silhouette: float | None
    spread: float
    sample: int


def structure(rows: Floats, places: Places, cluster: Ints, square: Frame, *, seed: int) -> Structure:
    """rows: [n, d] of length 1; places: [n, 2]; cluster: [n], -1 for none."""
    chosen = np.sort(np.random.default_rng(seed).permutation(len(rows))[:SAMPLE])
    _, cosines = nearest(rows[chosen], rows, 1, itself=chosen)
    mean = rows.mean(axis=0, dtype=np.float64)
    away = places.astype(np.float64) - places.mean(axis=0, dtype=np.float64)
    return Structure(
        float(np.median(cosines)), float(1 - np.linalg.norm(mean)), silhouette(rows, cluster),
        float(np.sqrt((away**2).sum(1).mean()) / square.side), len(chosen),
    )  # fmt: skip


def silhouette(rows: Floats, cluster: Ints) -> float | None:
    """The mean of (b - a) / max(a, b) over latents in clusters: a is the mean distance, 1 - cosine, to the others of
    its own cluster, b that to the nearest other cluster. Mean distances are those to sums of directions, so this is
    exact and takes n times as many clusters as there are."""
    held = np.flatnonzero(cluster >= 0)
    kinds, own = np.unique(cluster[held], return_inverse=True)
    if len(kinds) < 2:
        return None
    sizes = np.bincount(own)
    sums = np.zeros((len(kinds), rows.shape[1]))
    np.add.at(sums, own, rows[held].astype(np.float64))
    total = 0.0
    for start in range(0, len(held), 16_384):
        some, mine = held[start : start + 16_384], own[start : start + 16_384]
        each = np.arange(len(some))
        apart = sizes - rows[some].astype(np.float64) @ sums.T  # sums of distances to each cluster
        a = apart[each, mine] / np.maximum(sizes[mine] - 1, 1)  # its distance to itself is 0
        apart = apart / sizes
        apart[each, mine] = np.inf
        b = apart.min(1)
        most = np.maximum(np.maximum(a, b), 1e-12)
        total += float(((b - a) / most)[sizes[mine] > 1].sum())
    return total / len(held)
