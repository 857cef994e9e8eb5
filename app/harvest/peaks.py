"""A batch's peaks: where in each sequence each latent is strongest, and the window of text around it."""

from typing import NamedTuple

import torch
from torch import Tensor

from app.harvest.batches import BASE, Batch, powers
from app.harvest.grouping import ranges

_INVERSE = pow(BASE, -1, 1 << 64)


class Peaks(NamedTuple):
    """One entry per (sequence, latent) that is active with this sign; sorted by latent, then sequence.

    latent, sequence (corpus number), row (number within the batch), place (position in the sequence): [peaks]
    int64; magnitude: [peaks] fp32, the |activation| there.
    """

    latent: Tensor
    sequence: Tensor
    row: Tensor
    place: Tensor
    magnitude: Tensor

    def take(self, index: Tensor) -> "Peaks":
        return Peaks(*(column[index] for column in self))


def find_peaks(batch: Batch, n_latents: int, sign: int) -> Peaks:
    """The strongest position of each latent in each sequence among activations of ``sign`` (1 or -1).

    Of equal positions the earliest.
    """
    acts = batch.acts
    mine = (acts.value * sign > 0).nonzero(as_tuple=True)[0]
    latent, magnitude = acts.latent[mine], acts.value[mine].abs()
    position = acts.position[mine]
    rows = len(batch.lengths)
    cell = latent * rows + batch.sequence[position]
    strongest = torch.zeros(n_latents * rows, device=magnitude.device)
    strongest.scatter_reduce_(0, cell, magnitude, "amax")
    tied = (magnitude == strongest[cell]).nonzero(as_tuple=True)[0]
    # Entries come in order of position, so the smallest entry number is the earliest position.
    first = torch.full_like(strongest, len(mine), dtype=torch.int64)
    first.scatter_reduce_(0, cell[tied], tied, "amin")
    entry = first[strongest > 0]
    row = batch.sequence[position[entry]]
    return Peaks(
        latent=latent[entry],
        sequence=row + batch.first_sequence,
        row=row,
        place=batch.place[position[entry]],
        magnitude=magnitude[entry],
    )


def window_start(place: Tensor, length: Tensor, width: int) -> Tensor:
    """Where the window of ``width`` positions around ``place`` begins: centred, but inside its sequence."""
    return torch.minimum(place - width // 2, length - width).clamp_min(0)


def text_keys(batch: Batch, peaks: Peaks, width: int) -> Tensor:
    """[peaks] int64: a hash of the token ids in each window; equal texts have equal keys.

    A polynomial over mixed ids modulo 2^64 (Karp and Rabin 1987), taken for any window from the sums up to its ends.
    """
    length = batch.lengths[peaks.row]
    start = window_start(peaks.place, length, width)
    end = torch.minimum(start + width, length)
    sums = batch.id_sums
    inverse = powers(_INVERSE, sums.shape[1], sums.device)
    return (sums[peaks.row, end] - sums[peaks.row, start]) * inverse[start] + end - start


def capture(batch: Batch, peaks: Peaks, width: int) -> Tensor:
    """[peaks, width] fp16: each peak's latent over its window, as a share of the peak's signed activation.

    So a peak holds exactly 1 at its own place, whatever the scale of the SAE, and fp16 never overflows.
    """
    entries = batch.entries
    cell = peaks.latent * len(batch.lengths) + peaks.row
    begins = torch.searchsorted(entries.cell, cell)
    counts = torch.searchsorted(entries.cell, cell, right=True) - begins
    entry = ranges(begins, counts)
    peak = torch.repeat_interleave(torch.arange(len(cell), device=cell.device), counts)
    place, value = entries.place[entry], entries.value[entry]
    own = torch.ones(len(cell), device=cell.device)
    at_peak = place == peaks.place[peak]
    own[peak[at_peak]] = value[at_peak]
    offset = place - window_start(peaks.place, batch.lengths[peaks.row], width)[peak]
    inside = (offset >= 0) & (offset < width)
    windows = torch.zeros(len(cell), width, dtype=torch.float16, device=cell.device)
    windows[peak[inside], offset[inside]] = (value / own[peak])[inside].half()
    return windows
