"""What the scores are: of predictions on examples, and of probabilities at true prevalence."""

import math
from typing import Any, NamedTuple

import numpy as np

from app.explain.samples import Bools, Floats, Ints

ANSWERED = 0.9  # of the examples, below which there is no headline
LEAST = 10  # examples of either kind, below which there is no headline
RESAMPLES = 1000
AT_ONCE = 16_384  # explanations whose resamples are held


class Confusion(NamedTuple):
    """Of one explanation or, as arrays, of many."""

    tp: Any
    fp: Any
    tn: Any
    fn: Any


class Ranks(NamedTuple):
    """Areas under the ROC and the precision-recall curve; nan where one kind is missing."""

    auroc: float
    auprc: float


def ranks(positives: Ints, negatives: Ints) -> Ranks:
    """Of examples in groups of equal score, the highest first: positives, negatives: [groups], how many are there.

    AUROC is the chance that a positive has the higher score, ties half. AUPRC is average precision: precision at each
    group times the recall it adds.
    """
    tp, fp = np.cumsum(positives, dtype=np.float64), np.cumsum(negatives, dtype=np.float64)
    n_pos, n_neg = (float(tp[-1]), float(fp[-1])) if len(tp) else (0.0, 0.0)
    if not n_pos or not n_neg:
        return Ranks(math.nan, math.nan)
    wins = positives * (n_neg - fp + negatives / 2)
    precision = tp / np.maximum(tp + fp, 1)
    return Ranks(float(wins.sum() / (n_pos * n_neg)), float((positives / n_pos * precision).sum()))


def ranked(scores: Floats, active: Bools) -> Ranks:
    """scores, active: [examples]."""
    levels, group = np.unique(-np.asarray(scores, np.float64), return_inverse=True)
    return ranks(np.bincount(group, active, len(levels)), np.bincount(group, ~active, len(levels)))


def grouped_ranks(row: Ints, level: Floats, positives: Ints, negatives: Ints, n: int) -> tuple[Floats, Floats]:
    """``ranks`` of many rows: [n] AUROC and AUPRC. Entry i says that in row ``row[i]`` there are so many positives and
    negatives with the score ``level[i]``."""
    order = np.lexsort((-level, row))
    row, level, positives, negatives = row[order], level[order], positives[order], negatives[order]
    first = np.flatnonzero(np.r_[True, (row[1:] != row[:-1]) | (level[1:] != level[:-1])][: len(row)])
    if not len(first):
        return np.full(n, np.nan), np.full(n, np.nan)
    row = row[first]
    pos, neg = (np.add.reduceat(one, first).astype(np.float64) for one in (positives, negatives))
    n_pos, n_neg = np.bincount(row, pos, n), np.bincount(row, neg, n)
    begin = np.searchsorted(row, np.arange(n))
    before_pos, before_neg = (np.concatenate([[0.0], np.cumsum(one)])[begin] for one in (pos, neg))
    tp, fp = np.cumsum(pos) - before_pos[row], np.cumsum(neg) - before_neg[row]
    with np.errstate(invalid="ignore", divide="ignore"):
        auroc = np.bincount(row, pos * (n_neg[row] - fp + neg / 2), n) / (n_pos * n_neg)
        auprc = np.bincount(row, pos / n_pos[row] * (tp / np.maximum(tp + fp, 1)), n)
    both = (n_pos > 0) & (n_neg > 0)
    return np.where(both, auroc, np.nan), np.where(both, auprc, np.nan)


def ranks_of(row: Ints, scores: Floats, active: Bools, n: int) -> tuple[Floats, Floats]:
    """``ranked`` of many rows: [n] AUROC and AUPRC of the examples of each."""
    positives = np.asarray(active, np.int64)
    return grouped_ranks(row, np.asarray(scores, np.float64), positives, 1 - positives, n)


def balanced_accuracy(c: Confusion) -> Floats:
    """Mean of the shares of positives and of negatives that are told right; nan where there is none of one kind."""
    with np.errstate(invalid="ignore", divide="ignore"):
        out: Floats = (np.divide(c.tp, c.tp + c.fn) + np.divide(c.tn, c.tn + c.fp)) / 2
    return out


def precision_recall_f1(c: Confusion) -> tuple[Floats, Floats, Floats]:
    """Nan where they are not defined: precision without predictions, recall and F1 without positives."""
    tp, fp, fn = (np.asarray(x, np.float64) for x in (c.tp, c.fp, c.fn))
    with np.errstate(invalid="ignore", divide="ignore"):
        return tp / (tp + fp), tp / (tp + fn), np.where(tp + fn > 0, 2 * tp / (2 * tp + fp + fn), np.nan)


def interval(c: Confusion, rng: np.random.Generator, n: int = RESAMPLES) -> tuple[Floats, Floats]:
    """95% bootstrap interval of balanced accuracy, positives and negatives resampled apart (so many right of as many
    draws is binomial). c: [m] each; nan where there is none of one kind."""
    tp, fp, tn, fn = (np.atleast_1d(x).astype(np.int64) for x in c)
    pos, neg = tp + fn, tn + fp
    ok = (pos > 0) & (neg > 0)
    low, high = np.full(len(tp), np.nan), np.full(len(tp), np.nan)
    every = np.flatnonzero(ok)
    for start in range(0, len(every), AT_ONCE):  # of all at once a million explanations would take 16 GB
        some = every[start : start + AT_ONCE]
        right = rng.binomial(pos[some], (tp / np.maximum(pos, 1))[some], (n, len(some))) / pos[some]
        rejected = rng.binomial(neg[some], (tn / np.maximum(neg, 1))[some], (n, len(some))) / neg[some]
        low[some], high[some] = np.quantile((right + rejected) / 2, [0.025, 0.975], axis=0)
    return low, high


def headline_status(n_pos: int, n_neg: int, n_failed: int) -> str:
    """ok, or why there is no headline: unanswered or few."""
    if n_pos + n_neg - n_failed < ANSWERED * (n_pos + n_neg):
        return "unanswered"
    return "ok" if min(n_pos, n_neg) >= LEAST else "few"
