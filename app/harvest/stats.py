"""Per-latent counts, moments, extremes and histogram, for all latents at once."""

from typing import Any

import torch
from torch import Tensor

from app.harvest.batches import Batch

BINS_PER_OCTAVE = 8
LOWEST_OCTAVE, HIGHEST_OCTAVE = -12, 16
N_BINS = (HIGHEST_OCTAVE - LOWEST_OCTAVE) * BINS_PER_OCTAVE


def bin_of(magnitude: Tensor) -> Tensor:
    """Histogram bin of |activation|: 8 bins an octave over [2^-12, 2^16); beyond, the outermost bins."""
    octaves = magnitude.double().log2() - LOWEST_OCTAVE
    return (octaves * BINS_PER_OCTAVE).floor().long().clamp(0, N_BINS - 1)


def bin_edges() -> Tensor:
    """[N_BINS + 1] fp64 edges of the magnitude bins."""
    return 2.0 ** (torch.arange(N_BINS + 1, dtype=torch.float64) / BINS_PER_OCTAVE + LOWEST_OCTAVE)


class LatentStats:
    """Sums over counted positions. A latent is active where its activation != 0.

    count [n] int64, total and squares [n] fp64 (over active positions; the others add nothing), maximum and
    minimum [n] fp32 over all counted positions (so a latent that is ever silent has minimum <= 0 <= maximum),
    histogram [signs, n, N_BINS] int32 of |activation|, positives first.
    """

    def __init__(self, n_latents: int, signed: bool, device: torch.device | str = "cpu") -> None:
        self.n_latents = n_latents
        self.positions = 0
        self.count = torch.zeros(n_latents, dtype=torch.int64, device=device)
        self.total = torch.zeros(n_latents, dtype=torch.float64, device=device)
        self.squares = torch.zeros(n_latents, dtype=torch.float64, device=device)
        self.maximum = torch.zeros(n_latents, device=device)
        self.minimum = torch.zeros(n_latents, device=device)
        self.histogram = torch.zeros(1 + signed, n_latents, N_BINS, dtype=torch.int32, device=device)

    def update(self, batch: Batch) -> None:
        latent, value = batch.acts.latent, batch.acts.value
        exact = value.double()
        self.positions += batch.acts.n_positions
        self.count += torch.bincount(latent, minlength=self.n_latents)
        self.total.index_add_(0, latent, exact)
        self.squares.index_add_(0, latent, exact * exact)
        self.maximum.scatter_reduce_(0, latent, value, "amax")
        self.minimum.scatter_reduce_(0, latent, value, "amin")
        cell = latent * N_BINS + bin_of(value.abs())
        if len(self.histogram) == 2:
            cell = cell + (value < 0) * (self.n_latents * N_BINS)
        self.histogram.view(-1).index_add_(0, cell, torch.ones_like(cell, dtype=torch.int32))

    def merge(self, other: "LatentStats") -> None:
        self.positions += other.positions
        self.count += other.count
        self.total += other.total
        self.squares += other.squares
        self.maximum = torch.maximum(self.maximum, other.maximum)
        self.minimum = torch.minimum(self.minimum, other.minimum)
        self.histogram += other.histogram

    def state_dict(self) -> dict[str, Any]:
        names = ("positions", "count", "total", "squares", "maximum", "minimum", "histogram")
        return {name: getattr(self, name) for name in names}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            setattr(self, name, value)
