"""Classes of tokens that a text itself tells, to probe for: of any text, with no labels from outside."""

import hashlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from app.corpus.sequences import Sequence as Tokens
from app.evaluate.outcome import NotApplicable
from app.harvest.batches import Batch
from app.sae.acts import Acts
from app.subject.load import Subject

Flags = npt.NDArray[np.int8]
TRAIN, TEST = 1000, 500  # tokens of either kind, at most
LEAST = {"train": 100, "test": 40}
TEST_SHARE = 0.3


def capital(pieces: Sequence[str], ids: Sequence[int]) -> list[int]:
    """Words that begin with a capital, against those that do not."""
    return [(1 if p[0].isupper() else 0) if (p := piece.strip())[:1].isalpha() else -1 for piece in pieces]


def number(pieces: Sequence[str], ids: Sequence[int]) -> list[int]:
    """Tokens with a digit, against all others."""
    return [int(any(c.isdigit() for c in piece)) for piece in pieces]


def continues(pieces: Sequence[str], ids: Sequence[int]) -> list[int]:
    """Tokens that carry a word on, against those that begin one."""
    before = ["", *pieces[:-1]]
    return [
        1 if piece[:1].isalpha() and last[-1:].isalpha() else 0 if piece[:1] == " " and piece[1:2].isalpha() else -1
        for last, piece in zip(before, pieces, strict=True)
    ]


def _between(pieces: Sequence[str], opens: str, closes: str) -> list[int]:
    out, depth = [], 0
    for piece in pieces:
        marks = [c for c in piece if c in opens + closes]
        out.append(-1 if marks else int(depth > 0))
        for mark in marks:
            depth = 1 - depth if opens == closes else max(0, depth + (1 if mark in opens else -1))
        if "\n" in piece:
            depth = 0
    return out


def parentheses(pieces: Sequence[str], ids: Sequence[int]) -> list[int]:
    """Tokens between parentheses, against those outside; a line's end closes them."""
    return _between(pieces, "(", ")")


def quotation(pieces: Sequence[str], ids: Sequence[int]) -> list[int]:
    """Tokens between straight double quotation marks, against those outside; a line's end closes them."""
    return _between(pieces, '"', '"')


def repeated(pieces: Sequence[str], ids: Sequence[int]) -> list[int]:
    """Words of four letters or more that stood in the sequence before, against those that did not."""
    seen: set[int] = set()
    out = []
    for piece, token in zip(pieces, ids, strict=True):
        word = piece.strip()
        out.append(int(token in seen) if len(word) >= 4 and word.isalpha() else -1)
        seen.add(token)
    return out


def ends(pieces: Sequence[str], ids: Sequence[int]) -> list[int]:
    """Tokens before a full stop, question or exclamation mark, against all others."""
    after = [*pieces[1:], None]
    return [-1 if p is None else int(p.strip()[:1] in (".", "!", "?")) for p in after]


CLASSES: dict[str, Callable[[Sequence[str], Sequence[int]], list[int]]] = {
    "capital": capital, "number": number, "continues": continues, "parentheses": parentheses, "quotation": quotation,
    "repeated": repeated, "ends": ends,
}  # fmt: skip


def held_out(names: Sequence[str]) -> npt.NDArray[np.bool_]:
    """Of sequences by their documents' names, which are for testing: documents in the order of a hash of their names,
    until three tenths of the sequences are. With fewer than five documents there is nothing to hold out.

    Raises:
        NotApplicable: there are fewer than five.
    """
    counts: dict[str, int] = {}
    for name in names:
        counts[name] = counts.get(name, 0) + 1
    if len(counts) < 5:
        raise NotApplicable(f"the text is of {len(counts)} documents, and five or more can be held apart")
    chosen, held = set(), 0
    for name in sorted(counts, key=lambda one: hashlib.sha256(one.encode()).digest()):
        if held + counts[name] <= TEST_SHARE * len(names):
            chosen.add(name)
            held += counts[name]
    return np.array([name in chosen for name in names])


class Part(NamedTuple):
    """Rows of the gathered tokens, and whether each is of the class: [n] int64 and bool, half of them."""

    rows: Tensor
    y: Tensor


class Data:
    """Tokens drawn for each class, half of them of it, from documents for learning and from others for testing.

    parts: by class, its train and test parts; x, y, acts: of the gathered tokens, once a pass has given them.
    """

    def __init__(self, subject: Subject, sequences: Sequence[Tokens], seed: int) -> None:
        test = held_out([s.document for s in sequences])
        begin = np.concatenate([[0], np.cumsum([len(s.token_ids) for s in sequences])])
        flags: dict[str, Flags] = {name: np.full(begin[-1], -1, np.int8) for name in CLASSES}
        for number_, sequence in enumerate(sequences):
            ids = [int(i) for i in sequence.token_ids]
            pieces = [subject.vocabulary.text(i) for i in ids]
            special = np.isin(sequence.token_ids, subject.special_ids)
            for name, rule in CLASSES.items():
                mine = np.array(rule(pieces, ids), np.int8)
                flags[name][begin[number_] : begin[number_ + 1]] = np.where(special, -1, mine)
        of_test = np.repeat(test, np.diff(begin))
        rng = np.random.default_rng([seed, 19])
        places: dict[tuple[str, str], tuple[Any, Any]] = {}
        for name, flag in flags.items():
            found = {part: _balanced(flag, of_test == (part == "test"), most, rng)
                     for part, most in (("train", TRAIN), ("test", TEST))}  # fmt: skip
            if all(len(found[part]) >= 2 * LEAST[part] for part in found):
                places |= {(name, part): (place, flag[place] == 1) for part, place in found.items()}
        self.names = list(dict.fromkeys(name for name, _ in places))
        if len(self.names) < 2:
            raise NotApplicable("its text holds fewer than two of the classes often enough")
        every = np.unique(np.concatenate([place for place, _ in places.values()]))
        self.parts = {
            key: Part(torch.from_numpy(np.searchsorted(every, place)), torch.from_numpy(is_))
            for key, (place, is_) in places.items()
        }
        row = np.full(begin[-1], -1)
        row[every] = np.arange(len(every))
        self._row, self._begin = torch.from_numpy(row), torch.from_numpy(begin)
        self._x: list[Tensor] = []
        self._y: list[Tensor] = []
        self._acts: list[tuple[Tensor, Tensor, Tensor]] = []
        self._rows: list[Tensor] = []

    def update(self, batch: Batch, x: Tensor, y: Tensor) -> None:
        sequence = (batch.sequence + batch.first_sequence).cpu()
        row = self._row[self._begin[sequence] + batch.place.cpu()].to(x.device)
        wanted = row >= 0
        self._rows.append(row[wanted].cpu())
        self._x.append(x[wanted].float().cpu())
        self._y.append(y[wanted].float().cpu())
        mine = wanted[batch.acts.position]
        latent, value = batch.acts.latent[mine], batch.acts.value[mine]
        self._acts.append((row[batch.acts.position[mine]].cpu(), latent.cpu(), value.cpu()))

    def gathered(self) -> tuple[Tensor, Tensor, Acts]:
        """x: [rows, d_in], y: [rows, d_out], and the acts of x."""
        order = torch.cat(self._rows).argsort()
        position, latent, value = (torch.cat(column) for column in zip(*self._acts, strict=True))
        by = position.argsort(stable=True)
        acts = Acts(position[by], latent[by], value[by], len(order))
        return torch.cat(self._x)[order].clone(), torch.cat(self._y)[order].clone(), acts


def _balanced(flag: Flags, inside: npt.NDArray[np.bool_], most: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Places of either kind, as many of one as of the other, at random."""
    yes, no = (np.flatnonzero(inside & (flag == kind)) for kind in (1, 0))
    n = min(most, len(yes), len(no))
    return np.concatenate([rng.permutation(yes)[:n], rng.permutation(no)[:n]])


def dense(acts: Acts, rows: Tensor, n_latents: int) -> Tensor:
    """[rows, n_latents] fp32."""
    place = torch.full((acts.n_positions,), -1)
    place[rows] = torch.arange(len(rows))
    mine = acts.keep(place[acts.position] >= 0)
    out = torch.zeros(len(rows), n_latents)
    out[place[mine.position], mine.latent] = mine.value
    return out
