"""Documents cut into sequences of token ids, the unit that the subject reads."""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from app.corpus.sources import Document


class Sequence(NamedTuple):
    """One input to the subject. ``token_ids`` starts with BOS where the subject has one."""

    token_ids: npt.NDArray[np.int32]
    document: str


def cut(
    documents: Iterable[Document],
    encode: Callable[[str], list[int]],
    *,
    bos_id: int | None,
    context: int,
    tokens: int | None = None,
    shortest: int = 16,
) -> Iterator[Sequence]:
    """Each document on its own, cut into sequences of at most ``context`` ids including BOS.

    Stops once ``tokens`` ids (BOS not counted) are out. Tails shorter than ``shortest`` are left out: they say
    little about a latent and cost a whole row.
    """
    body = context - (bos_id is not None)
    left = tokens if tokens is not None else float("inf")
    for document in documents:
        ids = encode(document.text)
        for start in range(0, len(ids), body):
            piece = ids[start : start + body]
            if len(piece) > left:
                piece = piece[: int(left)]
            if len(piece) < shortest:
                continue
            left -= len(piece)
            row = [bos_id, *piece] if bos_id is not None else piece
            yield Sequence(np.array(row, dtype=np.int32), document.name)
            if left <= 0:
                return


def corpus_hash(sequences: Iterable[Sequence]) -> str:
    """SHA-256 over the ids and document names: the identity of what was harvested."""
    digest = hashlib.sha256()
    for sequence in sequences:
        digest.update(sequence.document.encode() + b"\0")
        digest.update(sequence.token_ids.astype("<i4").tobytes())
    return digest.hexdigest()
