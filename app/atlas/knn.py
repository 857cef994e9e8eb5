"""The graph of nearest neighbours by cosine, one for layout, quality and transform."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from app.atlas.arrays import Floats, Ints
from app.atlas.extras import extra

K = 15
EXACT = 131_072  # latents up to which the graph is exact on a CPU
EXACT_GPU = 2_097_152
BLOCK_ELEMENTS = 1 << 26  # of similarities at a time: 256 MiB
RECALLED = 1_000  # latents on which recall is measured

Step = Callable[[int, int], None]


class Graph(NamedTuple):
    """ids: [n, k] int32, the k nearest others of each, nearest first; cosines: [n, k]. exact: found by comparing every
    pair; recall: the share of the true neighbours of ``sample`` rows that are here."""

    ids: npt.NDArray[np.int32]
    cosines: Floats
    exact: bool
    recall: float
    sample: int


def graph(rows: Floats, k: int = K, *, seed: int, device: str = "cpu", step: Step | None = None) -> Graph:
    """rows: [n, d] of length 1 -> each row's k nearest, exact as far as the device goes, else by pynndescent."""
    k = min(k, len(rows) - 1)
    sample = np.random.default_rng(seed).permutation(len(rows))[:RECALLED]
    if len(rows) <= (EXACT if device == "cpu" else EXACT_GPU):
        ids, cosines = nearest(rows, rows, k, device=device, itself=np.arange(len(rows)), step=step)
        return Graph(ids, cosines, True, 1.0, len(sample))
    ids, cosines = approximate(rows, k, seed=seed)
    true, _ = nearest(rows[sample], rows, k, device=device, itself=sample)
    return Graph(ids, cosines, False, recall(ids[sample], true), len(sample))


def nearest(
    queries: Floats,
    rows: Floats,
    k: int,
    *,
    device: str = "cpu",
    itself: Ints | None = None,
    step: Step | None = None,
) -> tuple[npt.NDArray[np.int32], Floats]:
    """The k rows of greatest cosine to each query, exact in fp32: (ids [m, k], cosines [m, k]), greatest first,
    equal ones by id. queries: [m, d], rows: [n, d], all of length 1; itself: [m], the row each query is not to
    find."""
    right = torch.from_numpy(rows).to(device)
    block = max(1, BLOCK_ELEMENTS // len(rows))
    ids = np.empty((len(queries), k), np.int32)
    cosines = np.empty((len(queries), k), np.float32)
    for start in range(0, len(queries), block):
        stop = min(start + block, len(queries))
        found = torch.from_numpy(queries[start:stop]).to(device) @ right.T
        if itself is not None:
            own = torch.from_numpy(itself[start:stop]).to(device)
            found[torch.arange(stop - start, device=device), own] = -torch.inf
        best = found.topk(k, dim=1)
        ids[start:stop] = best.indices.cpu().numpy()
        cosines[start:stop] = best.values.cpu().numpy()
        if step is not None:
            step(stop, len(queries))
    order = np.lexsort((ids, -cosines), axis=1)
    return np.take_along_axis(ids, order, 1), np.take_along_axis(cosines, order, 1).clip(-1, 1)


def approximate(rows: Floats, k: int, *, seed: int) -> tuple[npt.NDArray[np.int32], Floats]:
    """Like ``nearest`` of all rows among themselves, by nearest-neighbour descent (Dong, Moses & Li 2011), one thread
    and one seed. Twice k is sought and the best k kept, since recall at the rim of a list is poor."""
    pynndescent = extra("pynndescent")
    wide = min(2 * k, len(rows) - 1) + 1
    index = pynndescent.NNDescent(rows, metric="dot", n_neighbors=wide, random_state=seed, n_jobs=1, low_memory=True)
    found = index.neighbor_graph[0]
    ids = np.empty((len(rows), k), np.int32)
    cosines = np.empty((len(rows), k), np.float32)
    block = max(1, BLOCK_ELEMENTS // (wide * rows.shape[1]))
    for start in range(0, len(rows), block):
        them = found[start : start + block]
        mine = np.arange(start, start + len(them))
        real = np.einsum("nkd,nd->nk", rows[them], rows[mine])
        real[(them == mine[:, None]) | (them < 0)] = -np.inf
        order = np.lexsort((them, -real), axis=1)[:, :k]
        ids[mine], cosines[mine] = np.take_along_axis(them, order, 1), np.take_along_axis(real, order, 1)
    return ids, cosines.clip(-1, 1)


def recall(found: npt.NDArray[np.int32], true: npt.NDArray[np.int32]) -> float:
    """The share of ``true`` that is in the same row of ``found``; both [n, k]."""
    return float((true[:, :, None] == found[:, None, :]).any(2).mean())
