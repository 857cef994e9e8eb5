"""A batch's peaks: where in each sequence each latent is strongest, and the window of text around it."""

from typing import NamedTuple

import torch
from torch import Tensor

from app.harvest.batches import Batch


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

    A sum of ids times fixed random odd 64-bit numbers, one a place, wrapping; positions past the end add 0.
    """
    _, ids = _window_ids(batch, peaks, width)
    weights = _hash_weights(width).to(ids.device)
    return ((ids + 1) * weights).sum(1)


def capture(batch: Batch, peaks: Peaks, width: int, n_latents: int) -> Tensor:
    """[peaks, width] fp16: each peak's latent over its window, as a share of the peak's signed activation.

    So a peak holds exactly 1 at its own place, whatever the scale of the SAE, and fp16 never overflows.
    """
    places, inside = _window_places(batch, peaks, width)
    row = torch.where(inside, batch.row_of[peaks.row[:, None], places.clamp_max(batch.row_of.shape[1] - 1)], -1)
    acts = batch.acts
    known = acts.position * n_latents + acts.latent
    wanted = row * n_latents + peaks.latent[:, None]
    at = torch.searchsorted(known, wanted.clamp_min(0)).clamp_max(len(known) - 1)
    found = (row >= 0) & (known[at] == wanted)
    values = torch.where(found, acts.value[at], 0.0)
    own = values.gather(1, (peaks.place[:, None] - places[:, :1]))
    return (values / own).half()


def _window_places(batch: Batch, peaks: Peaks, width: int) -> tuple[Tensor, Tensor]:
    start = window_start(peaks.place, batch.lengths[peaks.row], width)
    places = start[:, None] + torch.arange(width, device=start.device)
    return places, places < batch.lengths[peaks.row][:, None]


def _window_ids(batch: Batch, peaks: Peaks, width: int) -> tuple[Tensor, Tensor]:
    places, inside = _window_places(batch, peaks, width)
    ids = batch.token_ids[peaks.row[:, None], places.clamp_max(batch.token_ids.shape[1] - 1)]
    return places, torch.where(inside, ids, -1)


def _hash_weights(width: int) -> Tensor:
    generator = torch.Generator().manual_seed(20240607)
    return torch.randint(-(2**62), 2**62, (width,), generator=generator) * 2 + 1
