"""Documents cut into sequences of token ids, the unit that the subject reads."""

import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from app.corpus.sources import Document

SHORTEST = 16  # tokens: a shorter tail says little about a latent and costs a whole row


class Sequence(NamedTuple):
    """One input to the subject. ``token_ids`` starts with BOS where the subject has one.

    document is the name of the document it begins in and number that document's place in the corpus. Where several
    are packed into one sequence, joins has the place at which each following one begins, and its name; their numbers
    follow.
    """

    token_ids: npt.NDArray[np.int32]
    document: str
    number: int = 0
    joins: tuple[tuple[int, str], ...] = ()


class Numbered(Protocol):
    """Sequences by number; IndexError past the last."""

    def __getitem__(self, number: int, /) -> Sequence: ...


class Corpus(Numbered, Protocol):
    """Sequences in a fixed order, some of which may still be on their way (app.corpus.store); a Held list is one."""

    def __len__(self) -> int: ...
    def lengths(self) -> npt.NDArray[np.int64]: ...
    def counted(self, special_ids: Collection[int]) -> int: ...
    def names(self) -> Iterator[tuple[int, str]]: ...
    def sha256(self) -> str: ...
    @property
    def complete(self) -> bool: ...


class Held(list[Sequence]):
    """A corpus in memory."""

    complete = True

    def lengths(self) -> npt.NDArray[np.int64]:
        """Tokens in each sequence."""
        return np.array([len(s.token_ids) for s in self], dtype=np.int64)

    def counted(self, special_ids: Collection[int]) -> int:
        """Tokens that are none of ``special_ids``."""
        return sum(others(s.token_ids, special_ids) for s in self)

    def names(self) -> Iterator[tuple[int, str]]:
        """Every document's number and name."""
        found = {
            number: name
            for s in self
            for number, name in enumerate((s.document, *(name for _, name in s.joins)), s.number)
        }
        return iter(sorted(found.items()))

    def sha256(self) -> str:
        return corpus_hash(self)


def others(token_ids: npt.NDArray[np.int32], special_ids: Collection[int]) -> int:
    """How many of ``token_ids`` are none of ``special_ids``."""
    return int((~np.isin(token_ids, list(special_ids))).sum())


def cut(
    documents: Iterable[Document],
    encode: Callable[[str], list[int]],
    *,
    bos_id: int | None,
    context: int,
    tokens: int | None = None,
    shortest: int = SHORTEST,
    separator: int | None = None,
) -> Iterator[Sequence]:
    """Documents as sequences of at most ``context`` ids including BOS: each on its own or, given a ``separator``
    id to stand between them, packed one after another into full sequences.

    Stops once ``tokens`` ids (BOS not counted) are out, or fewer than ``shortest`` are wanted. Tails shorter than that
    are left out. A document that brings its own BOS (a chat) gets no second one.
    """
    body = context - (bos_id is not None)
    left = tokens if tokens is not None else 1 << 62
    pieces = _packed if separator is not None else _single
    for ids, name, number, joins in pieces(documents, encode, body, bos_id, separator):
        piece = ids[: min(len(ids), left)]
        if len(piece) < shortest:
            continue
        left -= len(piece)
        start = bos_id is not None
        row = [bos_id, *piece] if start else piece
        places = tuple((join + start, title) for join, title in joins if join < len(piece))
        yield Sequence(np.array(row, dtype=np.int32), name, number, places)
        if left < shortest:
            return


_Piece = tuple[list[int], str, int, tuple[tuple[int, str], ...]]


def _single(
    documents: Iterable[Document], encode: Callable[[str], list[int]], body: int, bos_id: int | None, _: int | None
) -> Iterator[_Piece]:
    for number, document in enumerate(documents):
        ids = _bare(encode(document.text), bos_id)
        for start in range(0, len(ids), body):
            yield ids[start : start + body], document.name, number, ()


def _packed(
    documents: Iterable[Document],
    encode: Callable[[str], list[int]],
    body: int,
    bos_id: int | None,
    separator: int | None,
) -> Iterator[_Piece]:
    held: list[int] = []
    starts: list[tuple[int, int, str]] = []  # where in ``held`` a document begins, its number, its name
    number = -1
    for document in documents:
        ids = _bare(encode(document.text), bos_id)
        if not ids:
            continue
        number += 1
        if held and separator is not None:
            held.append(separator)
        starts.append((len(held), number, document.name))
        held += ids
        while len(held) >= body:
            yield _first(held[:body], starts)
            del held[:body]
            last = [entry for entry in starts if entry[0] < body][-1]
            later = [(place - body, number_, name) for place, number_, name in starts if place >= body]
            carried = [(0, last[1], last[2])] if held and not (later and later[0][0] == 0) else []
            starts = [*carried, *later]
    if held:
        yield _first(held, starts)


def _first(ids: list[int], starts: list[tuple[int, int, str]]) -> _Piece:
    inside = [entry for entry in starts if entry[0] < len(ids)]
    return ids, inside[0][2], inside[0][1], tuple((place, name) for place, _, name in inside[1:])


def _bare(ids: list[int], bos_id: int | None) -> list[int]:
    return ids[1:] if bos_id is not None and ids[:1] == [bos_id] else ids


class CorpusHash:
    """SHA-256 over the ids and document names, sequence by sequence: the identity of what is harvested."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()

    def copy(self) -> "CorpusHash":
        """What it is up to here, to go on from apart."""
        made = CorpusHash()
        made._digest = self._digest.copy()
        return made

    def add(self, sequence: Sequence) -> None:
        self._digest.update(sequence.document.encode() + b"\0")
        self._digest.update(sequence.token_ids.astype("<i4").tobytes())
        if sequence.joins:
            self._digest.update(repr(sequence.joins).encode())

    def hexdigest(self) -> str:
        return self._digest.hexdigest()


def corpus_hash(sequences: Iterable[Sequence]) -> str:
    digest = CorpusHash()
    for sequence in sequences:
        digest.add(sequence)
    return digest.hexdigest()
