"""Where in their sequences latents fire: a profile over places, and the first and last position that counts."""

from typing import Any

import torch

from app.harvest.batches import Batch

EDGES = tuple(range(9)) + tuple(round(2 ** (i / 2)) for i in range(7, 35))


class Places:
    """counts [n, bins] int64: firings with EDGES[b] <= place < EDGES[b + 1], places counted from 0 in the sequence,
    BOS included; first and last [n] int64: firings on the first and the last counted position of a sequence.
    positions [bins] int64 and sequences: how many there were to fire on."""

    def __init__(self, n_latents: int, longest: int, device: torch.device | str = "cpu") -> None:
        self.edges = torch.tensor([edge for edge in EDGES if edge < longest], device=device)
        self.n_latents = n_latents
        bins = len(self.edges)
        self.counts = torch.zeros(n_latents, bins, dtype=torch.int64, device=device)
        self.positions = torch.zeros(bins, dtype=torch.int64, device=device)
        self.first = torch.zeros(n_latents, dtype=torch.int64, device=device)
        self.last = torch.zeros(n_latents, dtype=torch.int64, device=device)
        self.sequences = 0

    def update(self, batch: Batch) -> None:
        bins = len(self.edges)
        bin_of = torch.bucketize(batch.place, self.edges, right=True) - 1
        self.positions += torch.bincount(bin_of, minlength=bins)
        acts = batch.acts
        cells = torch.bincount(acts.latent * bins + bin_of[acts.position], minlength=self.n_latents * bins)
        self.counts += cells.view(self.n_latents, bins)
        edge = torch.ones(len(batch.sequence) + 1, dtype=torch.bool, device=self.first.device)
        edge[1:-1] = batch.sequence[1:] != batch.sequence[:-1]
        first, last = edge[:-1], edge[1:]
        self.sequences += int(first.sum()) if len(batch.sequence) else 0
        self.first += torch.bincount(acts.latent[first[acts.position]], minlength=self.n_latents)
        self.last += torch.bincount(acts.latent[last[acts.position]], minlength=self.n_latents)

    def merge(self, other: "Places") -> None:
        for name in ("counts", "positions", "first", "last", "sequences"):
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def state_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("counts", "positions", "first", "last", "sequences")}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            setattr(self, name, value)
