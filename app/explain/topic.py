"""Learning topics: words whose presence in a window tells whether a latent is active in it. All latents at once.

L1 logistic regression on the window's bag of words, by accelerated proximal gradient (FISTA; Beck and Teboulle 2009),
each latent with its own share of the penalty at which its first word would come in.
"""

import warnings
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from app.explain.samples import SPLITS, Bools, Codes, Floats, Grid, Ints, Split

SHARE = 0.3  # of the penalty at which the first word comes in
STEPS = 40
CHUNK = 512  # latents at once
MOST = 10  # words of a topic
DOCUMENTS = 3  # of train, that a word must be in
WINDOWS = 8
COMMON = 0.1  # the share of windows above which a word says nothing
LEARNED: tuple[Split, ...] = ("train", "val")  # the splits a topic is made from


class Words(NamedTuple):
    """texts: [D]; of_token: [vocabulary], a token's word, -1 for none; present: which windows hold which word, as pairs
    by window: window, word [pairs]."""

    texts: list[str]
    of_token: Ints
    window: Ints
    word: Ints


class Topics(NamedTuple):
    """word, weight: [units, MOST], -1 and 0 where there are fewer; least: [units]; p: [units], the share of train
    windows of that weight that are active; f1: [units], of windows on val (0: no topic)."""

    word: Ints
    weight: Floats
    least: Floats
    p: Floats
    f1: Floats


def words_of(codes: Codes, grid: Grid, text: Callable[[int], str]) -> Words:
    """Words that stand as a token of their own in several documents of train."""
    used = np.unique(codes.token_ids)
    names: dict[str, int] = {}
    of_token = np.full(int(used.max(initial=-1)) + 1, -1)
    for token in used.tolist():
        shown = text(token)
        if shown[:1] == " " and len(shown) > 3 and shown[1:].isalpha():
            of_token[token] = names.setdefault(shown[1:].casefold(), len(names))
    word = of_token[codes.token_ids]
    mine = (word >= 0) & (grid.of >= 0) & codes.counted
    d = max(len(names), 1)
    pairs = np.unique(grid.of[mine].astype(np.int64) * d + word[mine])
    window, word = pairs // d, pairs % d
    train = grid.split[window] == SPLITS.index("train")
    windows = np.bincount(word[train], minlength=d)
    documents = np.unique(
        word[train] * (int(codes.document.max(initial=0)) + 1) + codes.document[grid.row[window[train]]]
    )
    spread = np.bincount(documents // (int(codes.document.max(initial=0)) + 1), minlength=d)
    n_train = int((grid.split == SPLITS.index("train")).sum())
    kept = (windows >= WINDOWS) & (spread >= DOCUMENTS) & (windows <= COMMON * n_train)
    number = np.where(kept, np.cumsum(kept) - 1, -1)
    texts = [name for name, keep in zip(names, kept[: len(names)], strict=True) if keep]
    of_token = np.where(of_token >= 0, number[np.maximum(of_token, 0)], -1)
    there = number[word] >= 0
    return Words(texts, of_token, window[there], number[word[there]])


def presence(words: Words, windows: int) -> Bools:
    """[D, windows]: which windows hold which word."""
    out = np.zeros((len(words.texts), windows), bool)
    out[words.word, words.window] = True
    return out


def on_topic(found: Topics, present: Bools, unit: int, windows: Ints) -> Ints:
    """Those of ``windows`` that are on the unit's topic."""
    mine = found.word[unit] >= 0
    weight = found.weight[unit][mine] @ present[np.ix_(found.word[unit][mine], windows)]
    return np.asarray(windows[weight >= found.least[unit]])


def topics(words: Words, grid: Grid, active: Callable[[Split], tuple[Ints, Ints]], wanted: Bools) -> Topics:
    """active: for a split the units and windows in which they are active, as pairs, ordered by unit; wanted: [units],
    those that a topic is learned for, the others have none."""
    number = np.full((len(SPLITS), len(grid)), -1)
    for split in range(len(SPLITS)):
        mine = grid.split == split
        number[split, mine] = np.arange(mine.sum())
    warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta", UserWarning)
    X = {split: _matrix(words, number[SPLITS.index(split)]) for split in ("train", "val")}
    units = np.flatnonzero(wanted)
    number_of = np.where(wanted, np.cumsum(wanted) - 1, -1)
    pairs = {}
    for learned in LEARNED:
        unit, window = active(learned)
        pairs[learned] = number_of[unit[wanted[unit]]], window[wanted[unit]]
    out = []
    for start in range(0, len(units), CHUNK):
        n = min(CHUNK, len(units) - start)
        Y = {
            split: _labels(pairs[split], number[SPLITS.index(split)], X[split].shape[0], start, n)
            for split in ("train", "val")
        }
        out.append(_cut(_fit(X["train"], Y["train"]), X, Y))
    n, many = len(wanted), min(MOST, max(len(words.texts), 1))
    none = Topics(np.full((n, many), -1), np.zeros((n, many), np.float32), *np.zeros((3, n), np.float32))
    for whole, column in zip(none, zip(*out, strict=True), strict=False):
        whole[units] = np.concatenate(column)
    return none


def _matrix(words: Words, number: Ints) -> Tensor:
    """[windows of the split, D] fp32, sparse: 1 where the window holds the word."""
    mine = number[words.window] >= 0
    rows, columns = torch.from_numpy(number[words.window[mine]]), torch.from_numpy(words.word[mine])
    shape = (int(number.max(initial=-1)) + 1, max(len(words.texts), 1))
    return torch.sparse_coo_tensor(
        torch.stack([rows, columns]), torch.ones(len(rows)), shape, check_invariants=False
    ).coalesce()


def _labels(pairs: tuple[Ints, Ints], number: Ints, rows: int, start: int, n: int) -> Tensor:
    """[windows, n] fp32: 1 where the unit is active."""
    unit, window = pairs
    first, last = np.searchsorted(unit, [start, start + n])
    out = torch.zeros(rows, n)
    out[torch.from_numpy(number[window[first:last]]), torch.from_numpy(unit[first:last] - start)] = 1
    return out


def _fit(X: Tensor, Y: Tensor) -> Tensor:
    """W: [D, n], the bias left out of what is returned and of the penalty."""
    m = X.shape[0]
    Xt = X.t().coalesce().to_sparse_csr()
    X = X.to_sparse_csr()
    rate = Y.mean(0).clamp(1e-6, 1 - 1e-6)
    penalty = SHARE * (Xt @ (Y - rate)).abs().amax(0) / m
    v = torch.ones(X.shape[1], 1)
    for _ in range(8):
        v = Xt @ (X @ v)
        v = v / v.norm()
    step = 4 * m / (float((X @ v).square().sum()) + m)
    W = torch.zeros(X.shape[1], Y.shape[1])
    b = (rate / (1 - rate)).log()
    Z, t = W.clone(), 1.0
    for _ in range(STEPS):
        error = (torch.sigmoid(X @ Z + b) - Y) / m
        new = Z - step * (Xt @ error)
        new = new.sign() * (new.abs() - step * penalty).clamp_min(0)
        b = b - step * error.sum(0)
        t, before = (1 + (1 + 4 * t * t) ** 0.5) / 2, t
        Z = new + (before - 1) / t * (new - W)
        W = new
    return W


def _cut(W: Tensor, X: dict[str, Tensor], Y: dict[str, Tensor]) -> Topics:
    """The strongest words, and the weight from which on the window is said to be active: best by F1 on train."""
    weight, word = W.clamp_min(0).topk(min(MOST, W.shape[0]), dim=0)
    sparse = torch.zeros_like(W).scatter_(0, word, weight)
    scores = {split: X[split].to_sparse_csr() @ sparse for split in X}
    least, _ = _best(scores["train"], Y["train"])
    said = {split: (scores[split] >= least) & (scores[split] > 0) for split in X}
    tp = {split: (said[split] * Y[split]).sum(0) for split in X}
    p = tp["train"] / said["train"].sum(0).clamp_min(1)
    f1 = 2 * tp["val"] / (said["val"].sum(0) + Y["val"].sum(0)).clamp_min(1)
    word = torch.where(weight > 0, word, -1)
    return Topics(word.T.numpy(), weight.T.numpy(), least.numpy(), p.numpy(), f1.numpy())


def _best(scores: Tensor, Y: Tensor) -> tuple[Tensor, Tensor]:
    """The score from which on predictions are best, and its F1: [n] each."""
    ordered, order = scores.sort(dim=0, descending=True)
    tp = Y.gather(0, order).cumsum(0)
    f1 = 2 * tp / (torch.arange(1, len(Y) + 1)[:, None] + Y.sum(0))
    last = torch.ones_like(ordered, dtype=torch.bool)
    last[:-1] = ordered[1:] < ordered[:-1]  # a threshold takes all of equal score
    best, at = torch.where(last & (ordered > 0), f1, -1.0).max(dim=0)
    return ordered.gather(0, at[None])[0].clamp_min(1e-6), best
