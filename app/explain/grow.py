"""Learning rules: which tokens, or tokens after which others, a latent fires on. All latents at once.

A tree of left contexts is grown for each latent: at its root the tokens it fires on (or the tokens it fires after),
below each the tokens one place further left. A rule is a set of nodes of that tree, none above another. Of all such
sets the one that gains most is found from the leaves up. A node gains seen * (P - F / 2), where P is the share of its
occurrences on which the latent fires and F the best F1 that a set of tokens reaches: a node raises F1 if and only if
its P is above F / 2 (Lipton et al. 2014, "Optimal Thresholding of Classifiers to Maximize F1 Measure", whose theorem
this applies node by node).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from app.explain.contexts import BEFORE, SHAPE_AT, TOKEN, Contexts, Counts, Offsets, running, segments
from app.explain.samples import Bools, Floats, Ints, Split

MOST = 20  # nodes of a rule
SMOOTH = 2.0  # occurrences that the prior counts for
COST = 1.5  # firings that a node below another must bring to be worth it
LENGTH = 0.002  # F1 a node must bring


class Patterns(NamedTuple):
    """Nodes chosen for units, by unit and the strongest first: unit [n], shape [n] (place in SHAPES), key [n], p [n],
    gain [n]."""

    unit: Ints
    shape: Ints
    key: Ints
    p: Floats
    gain: Floats


def picked(patterns: Patterns, which: Ints | Bools) -> Patterns:
    """Those of ``which``, in its order."""
    return Patterns(
        patterns.unit[which], patterns.shape[which], patterns.key[which], patterns.p[which], patterns.gain[which]
    )


def joined(parts: Sequence[Patterns]) -> Patterns:
    return Patterns(
        np.concatenate([part.unit for part in parts]),
        np.concatenate([part.shape for part in parts]),
        np.concatenate([part.key for part in parts]),
        np.concatenate([part.p for part in parts]),
        np.concatenate([part.gain for part in parts]),
    )


class Candidate(NamedTuple):
    """Rules of all units by one method. f1: float64 [units], on train and val."""

    patterns: Patterns
    f1: Floats


class _Level(NamedTuple):
    """A shape's counts with what its nodes gain: best: [P], of the node or of those below it; whole: [P], whether the
    node itself is that; p: [P]."""

    counts: Counts
    p: Floats
    gain: Floats
    best: Floats
    whole: Ints


CHILDREN: dict[Offsets, tuple[Offsets, ...]] = {
    TOKEN: ((-1, 0), (-2, 0)),
    BEFORE: ((-1, 0),),
    (-1, 0): ((-2, -1, 0),),
    (-2, -1, 0): ((-3, -2, -1, 0),),
    (-2, 0): (),
    (-3, -2, -1, 0): (),
}


class Grower:
    """Grows rules from a sample's contexts; train decides the trees, train and val how much of them is kept."""

    def __init__(self, contexts: Contexts) -> None:
        self.contexts = contexts
        self.fired = contexts.fired("train")
        self.positions = int(contexts.positions("train").sum())
        self.prior = self.fired / max(self.positions, 1)
        self._counts = {offsets: contexts.counts(offsets, "train") for offsets in CHILDREN}

    def grow(self, root: Offsets) -> Candidate:
        best = self._best_f1(root)
        levels: dict[Offsets, _Level] = {}
        self._climb(root, best / 2, levels)
        return self._cut(self._chosen(root, levels))

    def _units(self, offsets: Offsets, code: Ints) -> Ints:
        return code // len(self.contexts.shapes[offsets].tokens)

    def _keys(self, offsets: Offsets, code: Ints) -> Ints:
        return code % len(self.contexts.shapes[offsets].tokens)

    def _best_f1(self, root: Offsets) -> Floats:
        """[units]: the F1 on train of the root's best set."""
        counts = self._counts[root]
        unit = self._units(root, counts.code)
        p = (counts.fires + SMOOTH * self.prior[unit]) / (counts.seen + SMOOTH)
        order = np.lexsort((-p, unit))
        unit = unit[order]
        begins = segments(unit)
        tp, predicted = running(counts.fires[order], begins), running(counts.seen[order], begins)
        f1 = 2 * tp / (predicted + self.fired[unit])
        out = np.zeros(self.contexts.n_units)
        if len(begins):
            out[unit[begins]] = np.maximum.reduceat(f1, begins)
        return out

    def _climb(self, offsets: Offsets, least: Floats, levels: dict[Offsets, _Level]) -> None:
        """Fill ``levels`` from the leaves up to ``offsets``."""
        counts = self._counts[offsets]
        unit = self._units(offsets, counts.code)
        p = (counts.fires + SMOOTH * self.prior[unit]) / (counts.seen + SMOOTH)
        gain = counts.seen * (p - least[unit])
        best, whole = gain.copy(), np.full(len(gain), -1)
        for axis, child in enumerate(CHILDREN[offsets]):
            self._climb(child, least, levels)
            below = levels[child]
            parent = self._parents(child, offsets)
            total = np.bincount(parent, weights=np.maximum(below.best - COST, 0), minlength=len(gain))
            better = total > best
            best, whole = np.where(better, total, best), np.where(better, axis, whole)
        levels[offsets] = _Level(counts, p, gain, best, whole)

    def _parents(self, child: Offsets, parent: Offsets) -> Ints:
        """[P of child]: the place in the parent's counts of the node above."""
        above, below = self.contexts.shapes[parent], self.contexts.shapes[child]
        key_of = np.zeros(len(below.tokens), np.int64)
        key_of[below.key] = above.key
        code = self._counts[child].code
        wanted = self._units(child, code) * len(above.tokens) + key_of[self._keys(child, code)]
        return np.searchsorted(self._counts[parent].code, wanted)

    def _chosen(self, root: Offsets, levels: dict[Offsets, _Level]) -> Patterns:
        """The sets that gain most, from the root down."""
        found: list[tuple[Offsets, Ints]] = []

        def descend(offsets: Offsets, taken: Bools) -> None:
            level = levels[offsets]
            found.append((offsets, np.flatnonzero(taken & (level.whole < 0))))
            for axis, child in enumerate(CHILDREN[offsets]):
                go = taken & (level.whole == axis)
                if go.any():
                    descend(child, go[self._parents(child, offsets)] & (levels[child].best > COST))

        descend(root, levels[root].best > 0)
        parts = [
            (self._units(o, levels[o].counts.code[at]), np.full(len(at), SHAPE_AT[o]),
             self._keys(o, levels[o].counts.code[at]), levels[o].p[at], levels[o].gain[at])
            for o, at in found
        ]  # fmt: skip
        unit, shape, key, p, gain = (np.concatenate(column) for column in zip(*parts, strict=True))
        by = np.lexsort((key, shape, -gain, unit))
        unit, shape, key, p, gain = unit[by], shape[by], key[by], p[by], gain[by]
        rank = np.arange(len(unit)) - np.repeat(segments(unit), np.diff(np.r_[segments(unit), len(unit)]))
        first = rank < MOST
        return Patterns(unit[first], shape[first], key[first], p[first], gain[first])

    def _cut(self, patterns: Patterns) -> Candidate:
        """Of every unit's nodes as many as are best on train and val together (on val alone, of rare latents too few
        would be left); at least one."""
        splits: tuple[Split, ...] = ("train", "val")
        fires, seen = np.sum([counted_in(self.contexts, patterns, split) for split in splits], axis=0)
        fired = np.sum([self.contexts.fired(split) for split in splits], axis=0)
        begins = segments(patterns.unit)
        lengths = np.diff(np.r_[begins, len(patterns.unit)])
        rank = np.arange(len(patterns.unit)) - np.repeat(begins, lengths)
        tp, predicted = running(fires, begins), running(seen, begins)
        f1 = 2 * tp / np.maximum(predicted + fired[patterns.unit], 1)
        worth = f1 - LENGTH * rank
        out = np.zeros(self.contexts.n_units)
        if not len(begins):
            return Candidate(patterns, out)
        most = np.repeat(np.maximum.reduceat(worth, begins), lengths)
        at = np.where(worth >= most, rank, MOST)
        stop = np.repeat(np.minimum.reduceat(at, begins), lengths)
        out[patterns.unit[begins]] = f1[rank == stop]
        return Candidate(picked(patterns, rank <= stop), out)


def counted_in(contexts: Contexts, patterns: Patterns, split: Split) -> tuple[Ints, Ints]:
    """[n] each: how often the nodes' latents fire on them in ``split``, and how often they are there."""
    fires, seen = np.zeros(len(patterns.unit), np.int64), np.zeros(len(patterns.unit), np.int64)
    for offsets, number in SHAPE_AT.items():
        mine = patterns.shape == number
        if not mine.any():
            continue
        counts = contexts.counts(offsets, split)
        k = len(contexts.shapes[offsets].tokens)
        code = patterns.unit[mine].astype(np.int64) * k + patterns.key[mine]
        at = np.minimum(np.searchsorted(counts.code, code), max(len(counts.code) - 1, 0))
        there = counts.code[at] == code
        fires[mine] = np.where(there, counts.fires[at], 0)
        seen[mine] = contexts.seen(offsets, split)[patterns.key[mine]]
    return fires, seen
