"""Windows of a corpus for explaining latents and for scoring explanations, from documents that are kept apart.

Documents go to train, val or test before anything is drawn: an explainer sees train, what is chosen between is chosen
on val, scores are on test.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

Split = Literal["train", "val", "test"]
Kind = Literal["active", "random", "neighbour", "same_token"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")
KINDS: tuple[Kind, ...] = ("active", "random", "neighbour", "same_token")
WIDTH = 32  # tokens of a window
SHORTEST = 8  # of the last one of a sequence

Ints = npt.NDArray[np.integer[Any]]
Floats = npt.NDArray[np.floating[Any]]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Window:
    """token_ids: int32 [w], activations: float32 [w], of one latent and without its sign; ``start`` is the place of the
    first in the corpus's sequence ``sequence``. interval: the tenth of the latent's range its peak is in, None where it
    is not active."""

    sequence: int
    start: int
    token_ids: npt.NDArray[np.int32]
    activations: Floats
    split: Split
    kind: Kind
    interval: int | None

    @property
    def active(self) -> bool:
        return self.kind == "active"


class Entries(NamedTuple):
    """Where a latent fires with one sign: place int32 [n] among the sample's tokens, ascending; value [n] > 0."""

    place: npt.NDArray[np.int32]
    value: Floats


@dataclass(frozen=True, eq=False)
class Codes:
    """An SAE's sparse activations over a sample of a corpus, latent by latent.

    sequence: int32 [S], numbers in the corpus; begin: int64 [S + 1], where each one's tokens begin; split: int8 [S],
    places in SPLITS; document: int32 [S], the sample's number of the document (or block) a sequence is of.
    token_ids: int32 [T], all tokens, BOS included; counted: bool [T], false for BOS, EOS, PAD.
    indptr: int64 [n + 1], place: int32 [nnz], value: float32 [nnz]: latent i is active at place[indptr[i]:indptr[i+1]].
    """

    sequence: Ints
    begin: Ints
    split: Ints
    document: Ints
    token_ids: npt.NDArray[np.int32]
    counted: Bools
    indptr: Ints
    place: npt.NDArray[np.int32]
    value: Floats

    @property
    def n_latents(self) -> int:
        return len(self.indptr) - 1

    def entries(self, latent: int, sign: int = 1) -> Entries:
        rows = slice(self.indptr[latent], self.indptr[latent + 1])
        place, value = self.place[rows], self.value[rows]
        mine = value > 0 if sign > 0 else value < 0
        return Entries(place[mine], np.abs(value[mine]))

    @cached_property
    def row(self) -> npt.NDArray[np.int32]:
        """[T]: which of the sample's sequences a token is of."""
        return np.repeat(np.arange(len(self.sequence), dtype=np.int32), np.diff(self.begin))

    @cached_property
    def split_of(self) -> npt.NDArray[np.int8]:
        """[T]: places in SPLITS."""
        return np.asarray(self.split, np.int8)[self.row]


class Grid:
    """Every sequence cut into windows of ``width`` tokens, the last one shorter or, below SHORTEST, left out. Examples
    are drawn from these alone, so their places say nothing about what fires in them.

    begin, end: [W] places of a window's tokens; split: [W]; of: [T], a token's window, -1 for none.
    """

    def __init__(self, codes: Codes, width: int = WIDTH) -> None:
        self.width = width
        lengths = np.diff(codes.begin)
        counts = np.maximum((lengths - SHORTEST) // width + 1, 0)
        row = np.repeat(np.arange(len(lengths)), counts)
        number = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
        self.row = row
        self.begin = codes.begin[row] + number * width
        self.end = np.minimum(self.begin + width, codes.begin[row + 1])
        self.split = np.asarray(codes.split, np.int8)[row]
        self.of = np.full(len(codes.token_ids), -1, np.int32)
        sizes = self.end - self.begin
        places = np.arange(sizes.sum()) + np.repeat(self.begin - (np.cumsum(sizes) - sizes), sizes)
        self.of[places] = np.repeat(np.arange(len(row), dtype=np.int32), sizes)

    def __len__(self) -> int:
        return len(self.begin)


class Peaks(NamedTuple):
    """The windows in which a latent fires, ascending: window [n]; value [n], its strongest there; place [n], where."""

    window: Ints
    value: Floats
    place: Ints


class Drawn(NamedTuple):
    """Windows of a Grid as examples: window [n], kind int8 [n] (places in KINDS), interval int8 [n] (-1: not active),
    peak int32 [n] (place of the peak, -1 where not active), value [n] (0 where not active). Actives come first."""

    window: Ints
    kind: Ints
    interval: Ints
    peak: Ints
    value: Floats


class Sampler:
    """Draws examples of a latent; the same for the same (seed, latent, sign, split).

    neighbours: [n_latents, k], the nearest decoder directions of each (-1: none). maxima: [n_latents, 2], the largest
    activation of each sign in the harvest, of which intervals are tenths.
    """

    def __init__(self, codes: Codes, neighbours: Ints, maxima: Floats, seed: int = 0, width: int = WIDTH) -> None:
        self.codes, self.neighbours, self.maxima, self.seed = codes, neighbours, maxima, seed
        self.grid = Grid(codes, width)
        self._peaks: dict[tuple[int, Split], tuple[Ints, Peaks]] = {}
        self._by_token: dict[Split, tuple[Ints, Ints]] = {}
        self._windows = {split: np.flatnonzero(self.grid.split == i) for i, split in enumerate(SPLITS)}

    def peaks(self, latent: int, sign: int, split: Split) -> Peaks:
        indptr, found = self.all_peaks(sign, split)
        mine = slice(indptr[latent], indptr[latent + 1])
        return Peaks(found.window[mine], found.value[mine], found.place[mine])

    def all_peaks(self, sign: int, split: Split) -> tuple[Ints, Peaks]:
        """Of every latent, one after another, and where each one's begin."""
        if (sign, split) not in self._peaks:
            self._peaks[sign, split] = self._find_peaks(sign, split)
        return self._peaks[sign, split]

    def _find_peaks(self, sign: int, split: Split) -> tuple[Ints, Peaks]:
        codes = self.codes
        window = self.grid.of[codes.place]
        mine = (window >= 0) & (codes.split_of[codes.place] == SPLITS.index(split))
        mine &= codes.value > 0 if sign > 0 else codes.value < 0
        latent = np.repeat(np.arange(codes.n_latents), np.diff(codes.indptr))[mine]
        window, place, value = window[mine], codes.place[mine], np.abs(codes.value[mine])
        order = np.lexsort((place, -value, window, latent))
        latent, window = latent[order], window[order]
        first = np.flatnonzero(np.r_[True, (latent[1:] != latent[:-1]) | (window[1:] != window[:-1])][: len(latent)])
        indptr = np.concatenate([[0], np.cumsum(np.bincount(latent[first], minlength=codes.n_latents))])
        return indptr, Peaks(window[first].astype(np.int64), value[order][first], place[order][first])

    def draw(self, latent: int, sign: int = 1, split: Split = "test", n: int = 50) -> Drawn:
        """At most ``n`` windows in which the latent is active, spread over the tenths of its range, and as many in
        which it is not: half random, half hard. Hard ones are windows in which a decoder neighbour fires, and windows
        that hold a token on which the drawn actives peak."""
        rng = np.random.default_rng([self.seed, latent, int(sign < 0), SPLITS.index(split)])
        peaks = self.peaks(latent, sign, split)
        largest = max(float(self.maxima[latent, int(sign < 0)]), 1e-30)
        tenth = np.minimum((peaks.value / largest * 10).astype(np.int64), 9)
        chosen = _spread(tenth, n, rng)
        quiet = np.setdiff1d(self._windows[split], peaks.window, assume_unique=True)
        tokens = np.unique(self.codes.token_ids[peaks.place[chosen]])
        hard, kinds = self._hard(latent, split, quiet, tokens, len(chosen) // 2, rng)
        rest = np.setdiff1d(quiet, hard, assume_unique=True)
        random = rng.permutation(rest)[: len(chosen) - len(hard)]
        m, q = len(chosen), len(random) + len(hard)
        return Drawn(
            np.concatenate([peaks.window[chosen], random, hard]),
            np.concatenate([np.zeros(m), np.ones(len(random)), kinds]).astype(np.int8),
            np.concatenate([tenth[chosen], np.full(q, -1)]).astype(np.int8),
            np.concatenate([peaks.place[chosen], np.full(q, -1)]).astype(np.int32),
            np.concatenate([peaks.value[chosen], np.zeros(q, np.float32)]),
        )

    def _hard(
        self, latent: int, split: Split, quiet: Ints, tokens: Ints, n: int, rng: np.random.Generator
    ) -> tuple[Ints, Ints]:
        """At most ``n`` of ``quiet``, and each one's kind; of either kind half, if there are so many."""
        near = [self.peaks(int(one), 1, split).window for one in self.neighbours[latent][:5] if one >= 0]
        beside = _common(len(self.grid), near, quiet)
        same = _common(len(self.grid), [self._holding(int(token), split) for token in tokens], quiet)
        same = rng.permutation(same)
        beside = rng.permutation(np.setdiff1d(beside, same[: n - n // 2], assume_unique=True))
        take = min(len(beside), max(n // 2, n - len(same)))
        same = same[: n - take]
        beside = np.setdiff1d(beside, same, assume_unique=True)[:take]
        kinds = np.repeat([KINDS.index("neighbour"), KINDS.index("same_token")], [len(beside), len(same)])
        return np.concatenate([beside, same]), kinds

    def _holding(self, token: int, split: Split) -> Ints:
        """Windows of ``split`` with ``token`` in them; one may come twice."""
        if split not in self._by_token:
            codes = self.codes
            places = np.flatnonzero(codes.counted & (codes.split_of == SPLITS.index(split)) & (self.grid.of >= 0))
            order = np.argsort(codes.token_ids[places], kind="stable")
            places = places[order]
            self._by_token[split] = codes.token_ids[places], self.grid.of[places].astype(np.int64)
        tokens, windows = self._by_token[split]
        first, last = np.searchsorted(tokens, [token, token + 1])
        return windows[first:last]

    def windows(self, latent: int, sign: int = 1, split: Split = "test", n: int = 50) -> list[Window]:
        """``draw`` as windows with their tokens and activations."""
        return self.of(latent, sign, split, self.draw(latent, sign, split, n))

    def of(self, latent: int, sign: int, split: Split, drawn: Drawn) -> list[Window]:
        codes, grid, found = self.codes, self.grid, self.codes.entries(latent, sign)
        out = []
        for window, kind, interval in zip(drawn.window, drawn.kind, drawn.interval, strict=True):
            begin, end, row = int(grid.begin[window]), int(grid.end[window]), int(grid.row[window])
            first, last = np.searchsorted(found.place, [begin, end])
            activations = np.zeros(end - begin, np.float32)
            activations[found.place[first:last] - begin] = found.value[first:last]
            out.append(
                Window(
                    int(codes.sequence[row]),
                    begin - int(codes.begin[row]),
                    codes.token_ids[begin:end],
                    activations,
                    split,
                    KINDS[kind],
                    None if interval < 0 else int(interval),
                )
            )
        return out


def _spread(group: Ints, n: int, rng: np.random.Generator) -> Ints:
    """At most ``n`` places of ``group``, as evenly over its values as their numbers allow, ascending."""
    if len(group) <= n:
        return np.arange(len(group))
    order = rng.permutation(len(group))
    order = order[np.argsort(group[order], kind="stable")]
    sizes = np.bincount(group)
    turn = np.arange(len(group)) - np.repeat(np.cumsum(sizes) - sizes, sizes)  # how many of its group come before
    ties = rng.random(len(group))
    return np.sort(order[np.lexsort((ties, turn))[:n]])


def _common(n: int, some: list[Ints], others: Ints) -> Ints:
    """Those of ``others`` that are in any of ``some``, ascending; all are below ``n``."""
    there, wanted = np.zeros(n, bool), np.zeros(n, bool)
    for one in some:
        there[one] = True
    wanted[others] = True
    return np.flatnonzero(there & wanted)
