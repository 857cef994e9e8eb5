"""Two texts' tokens, lined up."""

from collections.abc import Sequence
from difflib import SequenceMatcher
from typing import Literal, NamedTuple

Kind = Literal["equal", "replaced", "only_first", "only_second"]
SMALL = 250_000  # tokens of one text times tokens of the other


class Column(NamedTuple):
    """A place in the one text beside its place in the other; None where there is none."""

    kind: Kind
    first: int | None
    second: int | None


def align(first: Sequence[int], second: Sequence[int]) -> list[Column]:
    """Every token of both texts once, in order: equal ids beside each other, what lies between two of them paired token
    by token as far as both go on. Short texts are matched by their longest runs (difflib); for longer ones, where that
    may take minutes, by a longest common subsequence. Exchanging the texts exchanges the columns' places and nothing
    else."""
    if (list(second), len(second)) < (list(first), len(first)):
        return [Column(_OTHER[kind], b, a) for kind, a, b in align(second, first)]
    start, end = _common(first, second)
    a, b = first[start : len(first) - end], second[start : len(second) - end]
    columns = [Column("equal", place, place) for place in range(start)]
    i = j = 0
    for next_i, next_j in [*(_by_runs(a, b) if len(a) * len(b) <= SMALL else _by_count(a, b)), (len(a), len(b))]:
        alike = min(next_i - i, next_j - j)
        columns += [Column("replaced", start + i + n, start + j + n) for n in range(alike)]
        columns += [Column("only_first", start + n, None) for n in range(i + alike, next_i)]
        columns += [Column("only_second", None, start + n) for n in range(j + alike, next_j)]
        if next_i < len(a):
            columns.append(Column("equal", start + next_i, start + next_j))
        i, j = next_i + 1, next_j + 1
    return columns + [Column("equal", len(first) - n, len(second) - n) for n in range(end, 0, -1)]


def _by_runs(a: Sequence[int], b: Sequence[int]) -> list[tuple[int, int]]:
    """Pairs of equal tokens, rising."""
    blocks = SequenceMatcher(None, a, b, autojunk=False).get_matching_blocks()
    return [(block.a + n, block.b + n) for block in blocks for n in range(block.size)]


def _by_count(a: Sequence[int], b: Sequence[int]) -> list[tuple[int, int]]:
    """As many pairs of equal tokens as there can be, rising (Hyyrö 2004, "Bit-Parallel LCS-length Computation
    Revisited"). Bit j of row i is 0 where a[:i + 1] has more in common with b[:j + 1] than with b[:j]."""
    places: dict[int, int] = {}
    for j, token in enumerate(b):
        places[token] = places.get(token, 0) | 1 << j
    row = whole = (1 << len(b)) - 1
    rows = []
    for token in a:
        both = row & places.get(token, 0)
        row = ((row + both) | (row - both)) & whole
        rows.append(row)
    pairs, i, j = [], len(a) - 1, len(b) - 1
    while i >= 0 and j >= 0:
        if rows[i] >> j & 1:
            j -= 1
        elif i and not rows[i - 1] >> j & 1:
            i -= 1
        else:
            pairs.append((i, j))
            i, j = i - 1, j - 1
    return pairs[::-1]


_OTHER: dict[Kind, Kind] = {
    "equal": "equal", "replaced": "replaced", "only_first": "only_second", "only_second": "only_first",
}  # fmt: skip


def _common(first: Sequence[int], second: Sequence[int]) -> tuple[int, int]:
    """How many tokens both begin with, and how many of the rest both end with."""
    shorter = min(len(first), len(second))
    start = next((n for n in range(shorter) if first[n] != second[n]), shorter)
    rest = shorter - start
    end = next((n for n in range(rest) if first[-1 - n] != second[-1 - n]), rest)
    return start, end
