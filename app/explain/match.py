"""Where rules fire in a split, found through an index of its contexts instead of by running them on the text."""

from typing import NamedTuple

import numpy as np

from app.explain.contexts import SHAPES, Contexts
from app.explain.grow import Patterns
from app.explain.samples import SPLITS, Bools, Floats, Grid, Ints, Split


class Hits(NamedTuple):
    """at: places among the split's counted positions, in no order, once for each pattern there; p: that pattern's."""

    at: Ints
    p: Floats


class Matcher:
    """The counted positions of a split by what stands there.

    n: how many there are; window: [n], the window of each in the sample's grid, -1 for none; windows: how many the grid
    has; index: of each of SHAPES the places by what stands there, and where each key's begin.
    """

    def __init__(self, contexts: Contexts, grid: Grid, split: Split) -> None:
        self.positions = np.flatnonzero(contexts.positions(split))
        self.n = len(self.positions)
        self.window = grid.of[contexts.place[self.positions]].astype(np.int64)
        self.windows = len(grid)
        local = np.full(len(contexts.place), -1, np.int64)
        local[self.positions] = np.arange(self.n)
        mine = contexts.entries(split)
        order = np.argsort(contexts.unit[mine], kind="stable")
        self._fired = local[contexts.at[mine]][order]
        self._begin = np.concatenate([[0], np.cumsum(contexts.fired(split))])
        self.index = [_by_key(contexts.shapes[offsets].key[self.positions], len(contexts.shapes[offsets].tokens))
                       for offsets in SHAPES]  # fmt: skip
        by_window = np.argsort(self.window, kind="stable")
        self._of_window = by_window, np.searchsorted(self.window[by_window], np.arange(len(grid) + 1))
        self.split = SPLITS.index(split)
        self._flags = np.zeros(self.n, bool)
        self._best = np.zeros(len(grid) + 1)

    def fired(self, unit: int) -> Ints:
        """Where ``unit`` fires."""
        return np.asarray(self._fired[self._begin[unit] : self._begin[unit + 1]])

    def times(self, units: Ints) -> Ints:
        """[units]: how often each fires."""
        return np.asarray(self._begin[units + 1] - self._begin[units])

    def fires_at(self, units: Ints, row: Ints, at: Ints) -> Bools:
        """[places] bool: whether ``units[row]`` fires at each."""
        first, last = self._begin[units], self._begin[units + 1]
        lengths = last - first
        which = np.repeat(first - (np.cumsum(lengths) - lengths), lengths) + np.arange(int(lengths.sum()))
        fired = np.repeat(np.arange(len(units)), lengths) * self.n + self._fired[which]
        return np.isin(row * self.n + at, fired)

    def hits(self, patterns: Patterns, rows: slice) -> Hits:
        parts, p = [], []
        for shape, key, one in zip(patterns.shape[rows], patterns.key[rows], patterns.p[rows], strict=True):
            order, begin = self.index[shape]
            found = order[begin[key] : begin[key + 1]]
            parts.append(found)
            p.append(np.full(len(found), one))
        if not parts:
            return Hits(np.zeros(0, np.int64), np.zeros(0))
        return Hits(np.concatenate(parts), np.concatenate(p))

    def once(self, hits: Hits) -> Hits:
        """Each place once, with the likeliest pattern's p."""
        order = np.lexsort((-hits.p, hits.at))
        at, p = hits.at[order], hits.p[order]
        first = np.flatnonzero(np.r_[True, at[1:] != at[:-1]][: len(at)])
        return Hits(at[first], p[first])

    def in_windows(self, windows: Ints, p: float) -> Hits:
        """All positions of ``windows``."""
        order, begin = self._of_window
        at = np.concatenate([*(order[begin[one] : begin[one + 1]] for one in windows), np.zeros(0, np.int64)])
        return Hits(at, np.full(len(at), p))

    def right(self, unit: int, hits: Hits) -> Bools:
        """[hits] bool: where ``unit`` does fire."""
        fired = self.fired(unit)
        self._flags[fired] = True
        found = self._flags[hits.at]
        self._flags[fired] = False
        return found

    def of_windows(self, hits: Hits, windows: Ints) -> Floats:
        """[windows]: the likeliest hit in each, 0 where there is none."""
        window = self.window[hits.at]
        np.maximum.at(self._best, window, hits.p)  # -1 lands in the spare last place
        found = self._best[windows].copy()
        self._best[window] = 0
        return found


def _by_key(key: Ints, k: int) -> tuple[Ints, Ints]:
    order = np.argsort(key, kind="stable")
    return order, np.concatenate([[0], np.cumsum(np.bincount(key, minlength=k))])
