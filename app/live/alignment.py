"""Two texts' tokens, lined up."""

from collections import Counter
from collections.abc import Sequence
from difflib import SequenceMatcher
from typing import Literal, NamedTuple

Kind = Literal["equal", "replaced", "only_first", "only_second"]
PAIRS = 300_000  # of equal tokens; beyond them frequent tokens no longer begin a match, so that time stays bounded


class Column(NamedTuple):
    """A place in the one text beside its place in the other; None where there is none."""

    kind: Kind
    first: int | None
    second: int | None


def align(first: Sequence[int], second: Sequence[int]) -> list[Column]:
    """Every token of both texts once, in order: the longest runs of equal ids beside each other (difflib), what lies
    between two of them paired token by token as far as both go on. Exchanging the texts exchanges the columns' places
    and nothing else."""
    if (list(second), len(second)) < (list(first), len(first)):
        return [Column(_OTHER[kind], b, a) for kind, a, b in align(second, first)]
    both = Counter(first), Counter(second)
    many = sum(count * both[1][token] for token, count in both[0].items()) > PAIRS
    start, end = _common(first, second)
    a, b = first[start : len(first) - end], second[start : len(second) - end]
    columns = [Column("equal", place, place) for place in range(start)]
    for tag, i, to_i, j, to_j in SequenceMatcher(None, a, b, autojunk=many).get_opcodes():
        alike = min(to_i - i, to_j - j)
        kind: Kind = "equal" if tag == "equal" else "replaced"
        columns += [Column(kind, start + i + n, start + j + n) for n in range(alike)]
        columns += [Column("only_first", start + n, None) for n in range(i + alike, to_i)]
        columns += [Column("only_second", None, start + n) for n in range(j + alike, to_j)]
    return columns + [Column("equal", len(first) - n, len(second) - n) for n in range(end, 0, -1)]


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
