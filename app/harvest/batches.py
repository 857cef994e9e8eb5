"""One batch of a harvest: sparse activations at the counted positions of a few sequences."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from app.corpus.sequences import Sequence
from app.sae.acts import Acts


class Batch(NamedTuple):
    """``acts.position`` numbers the counted positions (not BOS, EOS, PAD), in order of sequence, then place.

    first_sequence: the corpus number of the first sequence here; the others follow it.
    token_ids: [sequences, length] int64, zero-padded; lengths: [sequences] int64.
    row_of: [sequences, length] int64, the counted position's number, -1 where a position is not counted.
    sequence, place: [counted] int64, where a counted position lies.
    """

    acts: Acts
    first_sequence: int
    token_ids: Tensor
    lengths: Tensor
    row_of: Tensor
    sequence: Tensor
    place: Tensor


class Padded(NamedTuple):
    """Sequences as one rectangle: token_ids and attention [sequences, length] int64, lengths [sequences]."""

    token_ids: Tensor
    attention: Tensor
    lengths: Tensor


def pad(sequences: list[Sequence], device: torch.device) -> Padded:
    lengths = torch.tensor([len(s.token_ids) for s in sequences])
    rows = np.zeros((len(sequences), int(lengths.max())), dtype=np.int64)
    for row, sequence in zip(rows, sequences, strict=True):
        row[: len(sequence.token_ids)] = sequence.token_ids
    token_ids = torch.from_numpy(rows).to(device)
    lengths = lengths.to(device)
    attention = (torch.arange(rows.shape[1], device=device) < lengths[:, None]).long()
    return Padded(token_ids, attention, lengths)


def counted(padded: Padded, special_ids: Tensor) -> Tensor:
    """[sequences, length] bool: neither padding nor a special token."""
    return padded.attention.bool() & ~torch.isin(padded.token_ids, special_ids)


def assemble(acts: Acts, first_sequence: int, padded: Padded, mask: Tensor) -> Batch:
    """acts were encoded from the activations at ``mask``, flattened."""
    row_of = torch.full_like(padded.token_ids, -1)
    row_of[mask] = torch.arange(acts.n_positions, device=mask.device)
    sequence, place = mask.nonzero(as_tuple=True)
    return Batch(acts, first_sequence, padded.token_ids, padded.lengths, row_of, sequence, place)


def groups(sequences: list[Sequence], batch_tokens: int) -> list[tuple[int, list[Sequence]]]:
    """Consecutive sequences of at most ``batch_tokens`` tokens with padding: (number of the first, sequences)."""
    out: list[tuple[int, list[Sequence]]] = []
    start, longest = 0, 0
    for number, sequence in enumerate(sequences):
        longest = max(longest, len(sequence.token_ids))
        if number > start and longest * (number - start + 1) > batch_tokens:
            out.append((start, sequences[start:number]))
            start, longest = number, len(sequence.token_ids)
    if start < len(sequences):
        out.append((start, sequences[start:]))
    return out
