"""What explanations are made from, taken from a harvest's own pass: over what it has read, explaining needs none."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from torch import Tensor

from app.corpus.sequences import Corpus
from app.disk import room
from app.errors import DiskFull
from app.explain.codes import TOKENS, chosen_of, kept_codes, part_of, parts_of, sample_name
from app.harvest.reader import Read
from app.harvest.run import Watch
from app.store.explain_sources import index_of

Array = npt.NDArray[Any]
SEQUENCES = 500_000  # of a corpus at most; beside more of them a pass over the sample is nothing


def overheard(watch: Watch, folder: Path, tokens: int = TOKENS) -> Watch:
    """``watch``, and beside it the activations on the sample of at most ``tokens`` tokens that explanations are made
    from are kept with every SAE that is saved. ``folder`` is there until the harvest is over."""
    heard = Overheard(folder, tokens, watch)
    return replace(watch, read=heard.read, saved=heard.saved)


class _Piece(NamedTuple):
    """What one SAE has of a batch. sequence: [counted] numbers in the corpus; place: [counted]; entry: [nnz] the
    counted positions where latent: [nnz] is active, value: [nnz] so much."""

    sequence: Array
    place: Array
    entry: Array
    latent: Array
    value: Array


@dataclass
class _Plan:
    """turn: [sequences of the corpus] each one's place in the sample, -1 for the others; part, begin: [sample] the part
    that each is in and the token of it that each begins at; sizes: tokens of each part; parts: their sequences."""

    sample: str
    turn: Array
    part: Array
    begin: Array
    sizes: list[int]
    parts: list[range]

    @classmethod
    def of(cls, corpus: Corpus, tokens: int) -> "_Plan":
        lengths = corpus.lengths()
        names = [corpus[number].document for number in range(len(lengths))]
        chosen = chosen_of(index_of(names, lengths, sum(1 for _ in corpus.names())), tokens)
        own = lengths[chosen.sequence]
        parts = parts_of(own.tolist())
        turn = np.full(len(lengths), -1, np.int64)
        turn[chosen.sequence] = np.arange(len(own))
        sizes = [int(own[part.start : part.stop].sum()) for part in parts]
        part = np.repeat(np.arange(len(parts)), [len(one) for one in parts])
        first = np.concatenate([[0], np.cumsum(sizes)])[part] if parts else part
        return cls(sample_name(corpus.sha256(), tokens), turn, part, np.cumsum(own) - own - first, sizes, parts)


@dataclass
class _Part:
    """A part that is being read: which of its sequences were, and the entries of each SAE."""

    seen: Array
    counted: Array
    entries: list[list[tuple[Array, Array, Array]]]


@dataclass
class Overheard:
    """Parts that a pass has read in full lie in ``folder`` until their SAE is saved. Those of which an earlier run has
    read something are left to the pass that explaining makes."""

    folder: Path
    tokens: int
    watch: Watch
    _plan: _Plan | None = None
    _early: list[list[_Piece]] = field(default_factory=list)
    _held: int = 0
    _open: dict[int, _Part] = field(default_factory=dict)

    def read(self, corpus: Corpus, part: list[Read]) -> None:
        """Called with every batch, in order."""
        self.watch.read(corpus, part)
        if self._plan is None:
            if not corpus.complete:
                self._wait(part)
                return
            if len(corpus) > SEQUENCES:
                return
            self._plan = _Plan.of(corpus, self.tokens)
            for pieces in self._early:
                self._take(self._plan, pieces)
            self._early = []
        batch = part[0].batch
        rows = self._plan.turn[batch.first_sequence : batch.first_sequence + len(batch.lengths)]
        if (rows >= 0).any():
            self._take(self._plan, _pieces(part))

    def saved(self, number: int, revision: str, folder: Path) -> None:
        """Keep what was heard of an SAE with its files."""
        self.watch.saved(number, revision, folder)
        if self._plan is None:
            return
        kept, parts = kept_codes(folder), len(self._plan.parts)
        try:
            for part in range(parts):
                if (file := self._file(number, part)).is_file():
                    with np.load(file) as arrays:
                        kept.put("codes", part_of(self._plan.sample, revision, part, parts), dict(arrays))
        except DiskFull as error:
            self.watch.note(f"{error.message} The harvest is saved; explaining reads the text again.")

    def _wait(self, part: list[Read]) -> None:
        """What the sample is cannot be said yet: of a short text it may be all of it."""
        self._held += len(part[0].batch.sequence)
        if self._held <= self.tokens:
            self._early.append(_pieces(part))
        else:
            self._early = []

    def _take(self, plan: _Plan, pieces: list[_Piece]) -> None:
        for number, piece in enumerate(pieces):
            turn = plan.turn[piece.sequence]
            for at in np.unique(plan.part[turn[turn >= 0]]).tolist():
                if at not in self._open:
                    entries: list[list[tuple[Array, Array, Array]]] = [[] for _ in pieces]
                    size, rows = plan.sizes[at], len(plan.parts[at])
                    self._open[at] = _Part(np.zeros(rows, bool), np.zeros(size, bool), entries)
                part = self._open[at]
                here = (turn >= 0) & (plan.part[turn] == at)
                place = plan.begin[turn] + piece.place
                if number == 0:
                    part.seen[turn[here] - plan.parts[at].start] = True
                    part.counted[place[here]] = True
                active = here[piece.entry] & (piece.value != 0)
                part.entries[number].append((
                    piece.latent[active].astype(np.int32), place[piece.entry[active]].astype(np.int32),
                    piece.value[active],
                ))  # fmt: skip
        latest = max(self._open, default=-1)
        for at in sorted(self._open):
            if self._open[at].seen.all():
                self._write(at, self._open.pop(at))
            elif at < latest:  # its beginning was read by an earlier run
                del self._open[at]

    def _write(self, at: int, part: _Part) -> None:
        for number, entries in enumerate(part.entries):
            latent, place, value = (np.concatenate(column) for column in zip(*entries, strict=True))
            file = self._file(number, at)
            with room(file, "What latents do on the sample"), file.open("wb") as out:
                np.savez(out, latent=latent, place=place, value=value, counted=part.counted)

    def _file(self, number: int, part: int) -> Path:
        return self.folder / f"{number}-{part}.npz"


def _pieces(part: list[Read]) -> list[_Piece]:
    out = []
    for read in part:
        batch, acts = read.batch, read.batch.acts
        tensors: tuple[Tensor, ...] = (batch.sequence, batch.place, acts.position, acts.latent, acts.value.float())
        row, place, entry, latent, value = (one.cpu().numpy() for one in tensors)
        out.append(_Piece(row + batch.first_sequence, place, entry, latent, value))
    return out
