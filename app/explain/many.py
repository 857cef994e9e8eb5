"""What the rules of many latents say at once: their hits in a split as flat arrays, some latents at a time."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from app.explain.grow import Patterns
from app.explain.match import Hits, Matcher
from app.explain.samples import Bools, Floats, Ints

AT_ONCE = 1_000_000  # hits that are held, about


class Flat(NamedTuple):
    """row: which of the units asked for; at: a place among the split's counted positions; p: of the pattern there. A
    place comes once for each pattern."""

    row: Ints
    at: Ints
    p: Floats


class Rules:
    """Rules of all units in a split. patterns: by unit, which begin at begin [units + 1]; topics: [units], those whose
    rule is a topic, of which ``topical`` tells the hits."""

    def __init__(
        self, matcher: Matcher, patterns: Patterns, begin: Ints, topics: Bools | None = None,
        topical: Callable[[int], Hits] | None = None,
    ) -> None:  # fmt: skip
        self.matcher, self._patterns, self._begin = matcher, patterns, begin
        self._topics, self._topical = topics, topical
        self._sizes = np.zeros(len(patterns.unit), np.int64)
        for shape, (_, first) in enumerate(matcher.index):
            rows = np.flatnonzero(patterns.shape == shape)
            self._sizes[rows] = np.diff(first)[patterns.key[rows]]
        self._total = np.concatenate([[0], np.cumsum(self._sizes)])

    def chunks(self, units: Ints) -> Iterator[slice]:
        """Parts of ``units`` with about AT_ONCE hits each."""
        if not len(units):
            return
        hits = self._total[self._begin[units + 1]] - self._total[self._begin[units]]
        number = np.cumsum(hits + 64) // AT_ONCE  # a unit without hits takes something as well
        starts = np.flatnonzero(np.r_[True, number[1:] != number[:-1]]).tolist()
        for start, stop in zip(starts, [*starts[1:], len(units)], strict=True):
            yield slice(start, stop)

    def of(self, units: Ints) -> Flat:
        first, last = self._begin[units], self._begin[units + 1]
        which, row = ranges(first, last), np.repeat(np.arange(len(units)), last - first)
        shape, key, sizes = self._patterns.shape[which], self._patterns.key[which], self._sizes[which]
        parts: list[tuple[Ints, Ints, Floats]] = []
        for number, (order, begin) in enumerate(self.matcher.index):
            mine = np.flatnonzero(shape == number)
            if len(mine):
                at = order[ranges(begin[key[mine]], begin[key[mine] + 1])]
                parts.append(
                    (np.repeat(row[mine], sizes[mine]), at, np.repeat(self._patterns.p[which[mine]], sizes[mine]))
                )
        if self._topics is not None and self._topical is not None:
            for place in np.flatnonzero(self._topics[units]).tolist():
                found = self._topical(int(units[place]))
                parts.append((np.full(len(found.at), place), found.at, found.p))
        if not parts:
            return Flat(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))
        rows, at, p = (np.concatenate(column) for column in zip(*parts, strict=True))
        return Flat(rows, at, p)

    def once(self, units: Ints) -> Flat:
        """By row and place, each place once, with the likeliest pattern's p."""
        found = self.of(units)
        order = np.lexsort((-found.p, found.at, found.row))
        row, at, p = found.row[order], found.at[order], found.p[order]
        first = np.r_[True, (at[1:] != at[:-1]) | (row[1:] != row[:-1])][: len(at)]
        return Flat(row[first], at[first], p[first])

    def in_windows(self, units: Ints, windows: Sequence[Ints]) -> Floats:
        """The likeliest hit in each of ``windows[i]`` of ``units[i]``, one after another; 0 where there is none."""
        lengths = np.array([len(one) for one in windows], np.int64)
        wanted = np.concatenate([np.zeros(0, np.int64), *windows]).astype(np.int64)
        out, begin = np.zeros(len(wanted)), np.concatenate([[0], np.cumsum(lengths)])
        wide = self.matcher.windows + 1
        for some in self.chunks(units):
            mine = slice(begin[some.start], begin[some.stop])
            code, best = self._best(units[some], wide)
            if len(code):
                asked = np.repeat(np.arange(some.stop - some.start), lengths[some]) * wide + wanted[mine]
                place = np.minimum(np.searchsorted(code, asked), len(code) - 1)
                out[mine] = np.where(code[place] == asked, best[place], 0.0)
        return out

    def windows(self, units: Ints) -> tuple[Ints, Ints]:
        """(row, window): the windows in which the rules of ``units`` fire."""
        wide = self.matcher.windows + 1
        code, best = self._best(units, wide)
        code = code[best > 0]
        return code // wide, code % wide

    def _best(self, units: Ints, wide: int) -> tuple[Ints, Floats]:
        """row * wide + window of the windows with a hit, ascending, and the likeliest one's p."""
        found = self.of(units)
        window = self.matcher.window[found.at]
        inside = window >= 0
        code, p = found.row[inside] * wide + window[inside], found.p[inside]
        order = np.argsort(code, kind="stable")
        code, p = code[order], p[order]
        first = np.flatnonzero(np.r_[True, code[1:] != code[:-1]][: len(code)])
        return code[first], np.maximum.reduceat(p, first) if len(first) else p


def ranges(first: Ints, last: Ints) -> Ints:
    """first[0], ..., last[0] - 1, first[1], ..."""
    lengths = last - first
    return np.repeat(first - (np.cumsum(lengths) - lengths), lengths) + np.arange(int(lengths.sum()))


def is_in(wanted: Ints, sorted_: Ints) -> Bools:
    """[wanted] bool: which are among ``sorted_``, which is ascending."""
    if not len(sorted_):
        return np.zeros(len(wanted), bool)
    place = np.minimum(np.searchsorted(sorted_, wanted), len(sorted_) - 1)
    return np.asarray(sorted_[place] == wanted)
