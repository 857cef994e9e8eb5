"""How much of the directions' neighbourhoods a layout keeps."""

from typing import NamedTuple

import numpy as np
import torch

from app.atlas.arrays import Floats, Places
from app.atlas.knn import BLOCK_ELEMENTS, K

SAMPLE = 1_000


class Quality(NamedTuple):
    """Both between 0 and 1, over ``sample`` latents, each against all, at ``k`` neighbours."""

    trustworthiness: float
    knn_preservation: float
    k: int
    sample: int


def quality(
    rows: Floats, places: Places, *, k: int = K, sample: int = SAMPLE, seed: int, device: str = "cpu"
) -> Quality:
    """rows: [n, d] of length 1; places: [n, 2].

    Trustworthiness (Venna & Kaski 2001): 1 - 2 / (m k (2n - 3k - 1)) times the sum, over the k nearest on the map that
    are not among the k nearest by cosine, of their rank by cosine less k. kNN preservation: the share of the k nearest
    by cosine that are among the k nearest on the map. Of m sampled latents; the ranks are exact, over all n.
    """
    n = len(rows)
    k = max(1, min(k, (n - 1) // 2))
    chosen = np.sort(np.random.default_rng(seed).permutation(n)[:sample])
    all_rows, all_places = torch.from_numpy(rows).to(device), torch.from_numpy(places).to(device).double()
    penalty, kept = 0.0, 0
    block = max(1, BLOCK_ELEMENTS // (4 * n))
    for start in range(0, len(chosen), block):
        own = torch.from_numpy(chosen[start : start + block]).to(device)
        each = torch.arange(len(own), device=device)
        cosines = all_rows[own] @ all_rows.T
        cosines[each, own] = -torch.inf
        away = (all_places[own, None] - all_places[None]).pow(2).sum(2)
        away[each, own] = torch.inf
        near = away.topk(k, dim=1, largest=False).indices
        value = cosines.gather(1, near)
        ranks = torch.stack([(cosines > value[:, [j]]).sum(1) for j in range(k)], 1) + 1
        penalty += float((ranks - k).clamp_min(0).sum())
        kept += int((ranks <= k).sum())
    m = len(chosen)
    return Quality(1 - 2 * penalty / (m * k * (2 * n - 3 * k - 1)), kept / (m * k), k, m)
