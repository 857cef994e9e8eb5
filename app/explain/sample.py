"""Which sequences of a corpus are looked at to explain latents, and which documents are for what."""

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from app.explain.samples import SPLITS, Ints

SHARES = {"train": 0.6, "val": 0.2, "test": 0.2}
LEAST = 15  # documents; below, blocks of sequences are what is kept apart
BLOCK = 16  # sequences, or a fifteenth of them if that is less
MOST = 10  # no document is more than one such part of the sample


class Chosen(NamedTuple):
    """sequence: int32 [S] numbers in the corpus, ascending; split: int8 [S]; document: int32 [S]; kept_apart: what no
    two splits share, documents or (of packed or very few ones) blocks of sequences."""

    sequence: Ints
    split: Ints
    document: Ints
    kept_apart: str


def choose(names: Sequence[str], counted: Ints, tokens: int, *, packed: bool) -> Chosen:
    """names: [sequences], the document each begins in; counted: [sequences], its tokens that count; at most ``tokens``.

    Documents are taken in the order of their names' hashes, and each goes to the split that is furthest behind its
    share. Neither a seed nor ``tokens`` has a say in that, so what one run tests on no other run learns from.
    """
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    document = np.array([numbers[name] for name in names], np.int64)
    usable = np.ones(len(names), bool)
    blocks = packed or len(numbers) < LEAST
    units, titles = document, list(numbers)
    if blocks:
        block = max(1, min(BLOCK, len(names) // LEAST))
        units = np.arange(len(names)) // block
        titles = [str(unit) for unit in range(int(units.max(initial=-1)) + 1)]
        if packed:
            usable = ~_carried_on(document, units, block)
    order = sorted(range(len(titles)), key=lambda unit: hashlib.sha256(titles[unit].encode()).digest())
    turn = np.empty(len(titles), np.int64)
    turn[order] = np.arange(len(titles))
    sizes = np.where(usable, counted, 0)
    split = _dealt(np.bincount(units, weights=sizes, minlength=len(titles)), order)
    sequence = np.flatnonzero(_within(units, sizes, turn, tokens) & usable)
    return Chosen(
        sequence.astype(np.int32), split[units[sequence]], units[sequence].astype(np.int32),
        "blocks" if blocks else "documents",
    )  # fmt: skip


def _dealt(sizes: Ints, order: list[int]) -> Ints:
    """[units]: places in SPLITS."""
    shares = [SHARES[split] for split in SPLITS]
    split, held, total = np.zeros(len(sizes), np.int8), [0.0] * len(shares), 0.0
    for unit in order:
        total += float(sizes[unit])
        behind = [share * total - has for share, has in zip(shares, held, strict=True)]
        split[unit] = behind.index(max(behind))
        held[split[unit]] += float(sizes[unit])
    return split


def _carried_on(document: Ints, units: Ints, block: int) -> Ints:
    """Sequences at the beginning of a block that go on with the document the block before ended in."""
    first = np.r_[True, units[1:] != units[:-1]]
    out = np.zeros(len(units), bool)
    for start in np.flatnonzero(first)[1:].tolist():
        stop = start + block
        same = document[start:stop] == document[start]
        out[start : start + int(np.argmin(np.r_[same, False]))] = True
    return out


def _within(units: Ints, counted: Ints, turn: Ints, tokens: int) -> Ints:
    """Sequences to take: unit after unit by ``turn``, of each at most its share, until ``tokens`` are there."""
    order = np.lexsort((np.arange(len(units)), turn[units]))
    sizes = counted[order]
    first = np.r_[True, units[order][1:] != units[order][:-1]]
    total = np.cumsum(sizes)
    before = np.repeat((total - sizes)[first], np.diff(np.r_[np.flatnonzero(first), len(order)]))
    fits = total - before <= max(tokens // MOST, int(sizes.max(initial=0)))
    running = np.cumsum(np.where(fits, sizes, 0))
    out = np.zeros(len(units), bool)
    out[order[fits & (running <= tokens)]] = True
    return out
