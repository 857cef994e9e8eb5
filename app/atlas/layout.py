"""Directions to places in the plane. Seeded: the same input, seed and number of threads give the same bits."""

from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from app.atlas.arrays import Floats, Places
from app.atlas.extras import extra
from app.atlas.knn import Graph, Step, nearest

Method = Literal["pca", "umap", "tsne"]

TSNE_EARLY, TSNE_LATE = 250, 500
CHUNK = 65_536
INTO = 5  # neighbours that place a new latent
MIN_DIST = 0.0  # of UMAP: on directions it keeps more neighbours than the usual 0.1


class Components(NamedTuple):
    """mean: [d]; axes: [2, d], the two directions of greatest variance."""

    mean: npt.NDArray[np.float64]
    axes: npt.NDArray[np.float64]

    def places(self, rows: Floats) -> Places:
        """rows: [n, d] -> [n, 2]"""
        parts = (rows[start : start + CHUNK] for start in range(0, len(rows), CHUNK))
        return np.concatenate([(part - self.mean) @ self.axes.T for part in parts]).astype(np.float32)


def components(rows: Floats) -> Components:
    """The first two principal components, exact, in fp64. Each axis points to where its largest entry is positive."""
    mean = rows.mean(axis=0, dtype=np.float64)
    covariance = np.zeros((rows.shape[1], rows.shape[1]))
    for start in range(0, len(rows), CHUNK):
        part = rows[start : start + CHUNK] - mean
        covariance += part.T @ part
    axes = np.linalg.eigh(covariance)[1][:, :-3:-1].T
    if len(axes) < 2:
        axes = np.concatenate([axes, np.zeros((2 - len(axes), rows.shape[1]))])
    largest = np.take_along_axis(axes, np.abs(axes).argmax(1)[:, None], 1)
    return Components(mean, axes * np.where(largest < 0, -1, 1))


def umap(graph: Graph, start: Places, *, seed: int) -> Places:
    """UMAP (McInnes, Healy & Melville 2018) from ``start``; on one thread, since several do not repeat
    themselves."""
    umap_ = extra("umap.umap_")
    n = len(start)
    own = np.arange(n, dtype=np.int32)[:, None]
    ids = np.hstack([own, graph.ids])
    distances = np.hstack([np.zeros((n, 1), np.float32), 1 - graph.cosines])
    random = np.random.RandomState(seed)
    strengths, _, _ = umap_.fuzzy_simplicial_set(
        start, ids.shape[1], random, "cosine", knn_indices=ids, knn_dists=distances
    )
    a, b = umap_.find_ab_params(1.0, MIN_DIST)
    epochs = 500 if n <= 10_000 else 200
    begin = np.ascontiguousarray(10 * start / _spread(start), dtype=np.float32)
    found, _ = umap_.simplicial_set_embedding(
        start, strengths, 2, 1.0, a, b, 1.0, 5, epochs, begin, random, "euclidean", {}, False, {}, False, parallel=False
    )
    return np.asarray(found, np.float32)


def tsne(graph: Graph, start: Places, *, seed: int, step: Step | None = None) -> Places:
    """t-SNE (van der Maaten & Hinton 2008) by openTSNE (Poličar et al. 2024) from ``start``. Affinities are uniform
    over the graph's edges, which for 15 neighbours comes close to perplexity 30 (Böhm, Berens & Kobak 2022)."""
    open_tsne, affinity = extra("openTSNE"), extra("openTSNE.affinity")
    neighbours = extra("openTSNE.nearest_neighbors").PrecomputedNeighbors(
        graph.ids.astype(np.int64), (1 - graph.cosines).astype(np.float64)
    )
    affinities = affinity.Uniform(knn_index=neighbours, k_neighbors=graph.ids.shape[1], n_jobs=1)
    n = len(start)
    method = "fft" if n > 10_000 else "bh"
    done = 0

    def told(iteration: int, error: float, embedding: Any) -> None:
        if step is not None:
            step(done + iteration, TSNE_EARLY + TSNE_LATE)

    found = open_tsne.TSNEEmbedding(
        (1e-4 * start / _spread(start)).astype(np.float64), affinities, n_jobs=1, random_state=seed,
        negative_gradient_method=method, callbacks=told, callbacks_every_iters=25,
    )  # fmt: skip
    found = found.optimize(TSNE_EARLY, exaggeration=min(12, n / 10), momentum=0.5)
    done = TSNE_EARLY
    found = found.optimize(TSNE_LATE, momentum=0.8)
    return np.asarray(found, np.float32)


class Near(NamedTuple):
    """Of each new latent its nearest ones of a map: ids, weights: [m, 5]; weights of one latent sum to 1."""

    ids: npt.NDArray[np.int32]
    weights: Floats

    def places(self, places: Places) -> Places:
        """places: [n, 2], the map's -> [m, 2]"""
        found: Places = np.einsum("mk,mkc->mc", self.weights, places[self.ids]).astype(np.float32)
        return found


def into(new: Floats, rows: Floats, *, device: str = "cpu", step: Step | None = None) -> Near:
    """What puts ``new`` latents on a map of ``rows``: they go to the mean of their five nearest's places, weighted by
    exp(-(d - d_nearest) / (mean d - d_nearest)) with d = 1 - cosine, as UMAP begins its own transform.

    new: [m, d] and rows: [n, d], of length 1
    """
    ids, cosines = nearest(new, rows, min(INTO, len(rows)), device=device, step=step)
    beyond = cosines[:, :1] - cosines
    scale = np.maximum(beyond.mean(axis=1, keepdims=True), np.float32(1e-6))
    weights = np.exp(-beyond / scale)
    weights /= weights.sum(axis=1, keepdims=True)
    return Near(ids, weights)


def _spread(places: Places) -> float:
    return max(float(places.std(axis=0).max()), 1e-12)
