"""Heads ranked by their codes, and how well a ranking finds a circuit."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Codes = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
LEAST = 1e-12  # of a spread that is divided by
Mask = npt.NDArray[np.bool_]


class Counts(NamedTuple):
    """[heads] each: codes that are on positive examples and on no negative one, and codes on any."""

    unique: Codes
    distinct: Codes


def counts(codes: Codes, positive: Mask) -> Counts:
    """codes: [examples, heads]; positive: [examples]."""
    spread = codes - codes.min(initial=0)
    width = int(spread.max(initial=0)) + 1
    on = [np.zeros((codes.shape[1], width), bool) for _ in range(2)]
    heads = np.arange(codes.shape[1])
    for seen, which in zip(on, (positive, ~positive), strict=True):
        seen[np.broadcast_to(heads, spread[which].shape), spread[which]] = True
    return Counts((on[0] & ~on[1]).sum(1), (on[0] | on[1]).sum(1))


def apart(x: Tensor) -> Floats:
    """x: [2 * examples, heads, d], the positive half first. Of each head the distance between the mean outputs of the
    two halves, over the root of the mean variance within them (summed over d). It needs no SAE."""
    halves = x.split(len(x) // 2)
    between = (halves[0].mean(0) - halves[1].mean(0)).norm(dim=-1)
    variance = torch.stack([half.var(0, correction=0).sum(-1) for half in halves]).mean(0)
    found: Floats = (between / variance.sqrt().clamp_min(LEAST)).double().numpy()
    return found


def roc_auc(scores: npt.NDArray[np.generic], truth: Mask) -> float | None:
    """The chance that a head of the circuit has a greater score than one outside it, ties counting half (Mann-Whitney);
    None where one of the two is empty."""
    inside, outside = int(truth.sum()), int((~truth).sum())
    if not inside or not outside:
        return None
    _, place, size = np.unique(scores, return_inverse=True, return_counts=True)
    rank = (np.cumsum(size) - (size - 1) / 2)[place]  # from 1, the mean of those that are equal
    return float((rank[truth].sum() - inside * (inside + 1) / 2) / (inside * outside))


def spearman(a: npt.NDArray[np.generic], b: npt.NDArray[np.generic]) -> float | None:
    """The correlation of ranks, ties as means; None where either does not vary."""
    ranks = []
    for values in (a, b):
        _, place, size = np.unique(values, return_inverse=True, return_counts=True)
        ranks.append((np.cumsum(size) - (size - 1) / 2)[place])
    if min(rank.std() for rank in ranks) == 0:
        return None
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])


class Spread(NamedTuple):
    """Of many draws: mean, standard deviation, and the 95th percentile."""

    mean: float
    std: float
    high: float


def shuffled_truth(scores: npt.NDArray[np.generic], truth: Mask, draws: int, seed: int) -> Spread | None:
    """ROC AUC against circuits of as many heads drawn at random."""
    rng = np.random.default_rng(seed)
    return _spread([roc_auc(scores, rng.permutation(truth)) for _ in range(draws)])


def shuffled_examples(codes: Codes, positive: Mask, truth: Mask, draws: int, seed: int) -> Spread | None:
    """ROC AUC where which examples are the positive ones is drawn at random: what is left of the ranking without the
    contrast that it is made from."""
    rng = np.random.default_rng(seed)
    return _spread([roc_auc(counts(codes, rng.permutation(positive)).unique, truth) for _ in range(draws)])


def _spread(values: list[float | None]) -> Spread | None:
    known = [value for value in values if value is not None]
    if not known:
        return None
    return Spread(float(np.mean(known)), float(np.std(known)), float(np.quantile(known, 0.95)))
