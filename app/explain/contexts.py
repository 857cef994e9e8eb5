"""What stands at a token and to the left of it, numbered, and how often latents fire there."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from app.explain.samples import SPLITS, Bools, Codes, Ints, Split

Offsets = tuple[int, ...]
TOKEN: Offsets = (0,)
BEFORE: Offsets = (-1,)
NEXT: Offsets = (1,)
SHAPES: tuple[Offsets, ...] = (TOKEN, BEFORE, (-1, 0), (-2, 0), (-2, -1, 0), (-3, -2, -1, 0), NEXT)
SHAPE_AT = {offsets: number for number, offsets in enumerate(SHAPES)}
NOTHING = -1  # the token before a sequence's first, and after its last


class Shape(NamedTuple):
    """The contexts that have tokens at the same offsets: of every counted position its number (key: int32 [N]), and of
    every number the tokens (tokens: int32 [K, offsets])."""

    offsets: Offsets
    key: npt.NDArray[np.int32]
    tokens: npt.NDArray[np.int32]


class Counts(NamedTuple):
    """How often units fire on contexts: code: int64 [P] = unit * K + key, ascending; fires, seen: int64 [P]."""

    code: Ints
    fires: Ints
    seen: Ints


class Contexts:
    """Counted positions of a sample, and entries of its codes by unit: a latent and a sign.

    place: [N] among the sample's tokens; split: int8 [N]; unit, at: [nnz], unit and counted position of each entry.
    signs: 2 where the SAE is signed, else 1; unit = latent * signs + (activation < 0).
    """

    def __init__(self, codes: Codes, *, signed: bool) -> None:
        self.codes, self.signs = codes, 2 if signed else 1
        self.place = np.flatnonzero(codes.counted)
        self.split = codes.split_of[self.place]
        number = np.cumsum(codes.counted, dtype=np.int32) - np.int32(1)
        self.at = number[codes.place]
        latent = np.repeat(np.arange(codes.n_latents, dtype=np.int32), np.diff(codes.indptr))
        self.unit = latent if not signed else latent * 2 + (codes.value < 0)
        self.n_units = codes.n_latents * self.signs
        tokens = {offset: self._tokens(offset) for offset in range(-3, 2)}
        self.shapes = {offsets: _numbered(offsets, [tokens[one] for one in offsets]) for offsets in SHAPES}
        self._of_entry = self.split[self.at]
        self._counts: dict[tuple[Offsets, Split], Counts] = {}

    def _tokens(self, offset: int) -> npt.NDArray[np.int32]:
        codes = self.codes
        row, place = codes.row[self.place], self.place + offset
        inside = (place >= codes.begin[row]) & (place < codes.begin[row + 1])
        return np.where(inside, codes.token_ids[np.clip(place, 0, len(codes.token_ids) - 1)], np.int32(NOTHING))

    def fired(self, split: Split) -> Ints:
        """[units]: firings."""
        return np.bincount(self.unit[self.entries(split)], minlength=self.n_units)

    def entries(self, split: Split) -> Bools:
        """[nnz]"""
        return np.asarray(self._of_entry == SPLITS.index(split))

    def positions(self, split: Split) -> Bools:
        """[N]"""
        return np.asarray(self.split == SPLITS.index(split))

    def counts(self, offsets: Offsets, split: Split) -> Counts:
        if (offsets, split) not in self._counts:
            self._counts[offsets, split] = self._count(offsets, split)
        return self._counts[offsets, split]

    def _count(self, offsets: Offsets, split: Split) -> Counts:
        shape, mine = self.shapes[offsets], self.entries(split)
        k = len(shape.tokens)
        code, fires = np.unique(self.unit[mine].astype(np.int64) * k + shape.key[self.at[mine]], return_counts=True)
        seen = self.seen(offsets, split)
        return Counts(code, fires, seen[code % k])

    def seen(self, offsets: Offsets, split: Split) -> Ints:
        """[K]: how often each context is there."""
        shape = self.shapes[offsets]
        return np.bincount(shape.key[self.positions(split)], minlength=len(shape.tokens))


def _numbered(offsets: Offsets, tokens: list[npt.NDArray[np.int32]]) -> Shape:
    number = np.zeros(len(tokens[0]), np.int64)
    for column in tokens:
        wide = int(column.max(initial=0)) + 2
        _, number = np.unique(number * wide + column + 1, return_inverse=True)
    first = np.zeros(int(number.max(initial=-1)) + 1, np.int64)
    first[number] = np.arange(len(number))
    return Shape(offsets, number.astype(np.int32), np.stack([column[first] for column in tokens], 1))


def segments(values: Ints) -> Ints:
    """Where runs of equal values begin."""
    return np.flatnonzero(np.r_[True, values[1:] != values[:-1]]) if len(values) else np.zeros(0, np.int64)


def running(values: Ints, begins: Ints) -> Ints:
    """Sums up to and with each place, from the beginning of its run."""
    total = np.cumsum(values)
    lengths = np.diff(np.r_[begins, len(values)])
    return total - np.repeat((total - values)[begins], lengths)
