"""One batch of a harvest: sparse activations at the counted positions of a few sequences."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from app.corpus.sequences import Numbered, Sequence
from app.sae.acts import Acts

BASE = 0x9E3779B97F4A7C15  # odd, so that it has an inverse modulo 2^64


class Entries(NamedTuple):
    """The active entries by (latent, sequence), then place: cell [nnz] int64 = latent * sequences + sequence,
    ascending; place [nnz] int64; value [nnz] fp32."""

    cell: Tensor
    place: Tensor
    value: Tensor


@dataclass(frozen=True)
class Batch:
    """``acts.position`` numbers the counted positions (not BOS, EOS, PAD), in order of sequence, then place.

    first_sequence: the corpus number of the first sequence here; the others follow it.
    token_ids: [sequences, length] int64, zero-padded; lengths: [sequences] int64.
    row_of: [sequences, length] int64, the counted position's number, -1 where a position is not counted.
    sequence, place: [counted] int64, where a counted position lies; document: [counted] int64, which it is of.
    """

    acts: Acts
    first_sequence: int
    token_ids: Tensor
    lengths: Tensor
    row_of: Tensor
    sequence: Tensor
    place: Tensor
    document: Tensor

    @cached_property
    def entries(self) -> Entries:
        cell, order = (self.acts.latent * len(self.lengths) + self.sequence[self.acts.position]).sort(stable=True)
        return Entries(cell, self.place[self.acts.position[order]], self.acts.value[order])

    @cached_property
    def id_sums(self) -> Tensor:
        """[sequences, length + 1] int64: sums of mixed ids times BASE^place over the places before, modulo 2^64."""
        z = self.token_ids * -7046029254386353131 + 1442695040888963407  # splitmix64's mixing
        z = (z ^ (z >> 30)) * -4658895280553007687
        z = (z ^ (z >> 27)) * -7723592293110705685
        sums = ((z ^ (z >> 31)) * powers(BASE, z.shape[1], z.device)).cumsum(1)
        return torch.nn.functional.pad(sums, (1, 0))

    @cached_property
    def tokens(self) -> Tensor:
        """[counted] int64: the token id at each counted position."""
        return self.token_ids[self.sequence, self.place]


@lru_cache(maxsize=32)
def powers(base: int, count: int, device: torch.device) -> Tensor:
    """[count] int64: base^0, base^1, ... modulo 2^64."""
    out, value = [], 1
    for _ in range(count):
        out.append(value - (1 << 64) if value >= 1 << 63 else value)
        value = value * base % (1 << 64)
    return torch.tensor(out, device=device)


class Padded(NamedTuple):
    """Sequences as one rectangle: token_ids, attention and documents [sequences, length] int64, lengths
    [sequences]; documents numbers the document of each place."""

    token_ids: Tensor
    attention: Tensor
    lengths: Tensor
    documents: Tensor


def pad(sequences: list[Sequence], device: torch.device) -> Padded:
    lengths = torch.tensor([len(s.token_ids) for s in sequences])
    rows = np.zeros((len(sequences), int(lengths.max())), dtype=np.int64)
    documents = np.zeros_like(rows)
    for row, numbers, sequence in zip(rows, documents, sequences, strict=True):
        row[: len(sequence.token_ids)] = sequence.token_ids
        numbers[:] = sequence.number
        for place, _ in sequence.joins:
            numbers[place:] += 1
    token_ids = torch.from_numpy(rows).to(device)
    lengths = lengths.to(device)
    attention = (torch.arange(rows.shape[1], device=device) < lengths[:, None]).long()
    return Padded(token_ids, attention, lengths, torch.from_numpy(documents).to(device))


def counted(padded: Padded, special_ids: Tensor) -> Tensor:
    """[sequences, length] bool: neither padding nor a special token."""
    return padded.attention.bool() & ~torch.isin(padded.token_ids, special_ids)


def assemble(acts: Acts, first_sequence: int, padded: Padded, mask: Tensor) -> Batch:
    """acts were encoded from the activations at ``mask``, flattened."""
    row_of = torch.full_like(padded.token_ids, -1)
    row_of[mask] = torch.arange(acts.n_positions, device=mask.device)
    sequence, place = mask.nonzero(as_tuple=True)
    return Batch(
        acts, first_sequence, padded.token_ids, padded.lengths, row_of, sequence, place, padded.documents[mask]
    )


def groups(corpus: Numbered, batch_tokens: int, first: int = 0) -> Iterator[tuple[int, list[Sequence]]]:
    """Consecutive sequences of at most ``batch_tokens`` tokens with padding, from sequence ``first`` on: (number of
    the group's first, sequences). Where a group ends depends on nothing before its first sequence."""
    held: list[Sequence] = []
    start, longest, number = first, 0, first
    while True:
        try:
            sequence = corpus[number]
        except IndexError:
            break
        longest = max(longest, len(sequence.token_ids))
        if held and longest * (len(held) + 1) > batch_tokens:
            yield start, held
            start, held, longest = number, [], len(sequence.token_ids)
        held.append(sequence)
        number += 1
    if held:
        yield start, held
