"""Contexts in which a latent does not fire: random ones, and near misses that hold the token its top context peaks on.

Windows are drawn before the pass, uniformly over the corpus; the pass notes which latents fire in which window. A
latent's random contexts are then those windows without it that come first in an order of its own.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from app.corpus.sequences import Sequence
from app.harvest.batches import Batch
from app.harvest.samples import priority_of

CHUNK = 256


class Quiet(NamedTuple):
    """One entry a context shown: latent, rank (0 is first), sequence, start and place (in the sequence): [m] int64."""

    latent: Tensor
    rank: Tensor
    sequence: Tensor
    start: Tensor
    place: Tensor


class QuietContexts:
    """``fired`` [windows, n_latents] bool. At most one window a sequence; sequence and start: [windows] int64."""

    def __init__(
        self, n_latents: int, sequences: list[Sequence], width: int, windows: int, seed: int, device: torch.device | str
    ) -> None:
        random = np.random.default_rng(seed)
        chosen = np.sort(random.choice(len(sequences), min(windows, len(sequences)), replace=False))
        lengths = np.array([len(sequences[i].token_ids) for i in chosen])
        starts = (random.random(len(chosen)) * np.maximum(lengths - width + 1, 1)).astype(np.int64)
        ids = np.full((len(chosen), width), -1, dtype=np.int64)
        for row, (number, start) in enumerate(zip(chosen, starts, strict=True)):
            part = sequences[number].token_ids[start : start + width]
            ids[row, : len(part)] = part
        self.width, self.seed = width, seed
        self.sequence = torch.from_numpy(chosen.astype(np.int64)).to(device)
        self.start = torch.from_numpy(starts).to(device)
        self.ids = torch.from_numpy(ids).to(device)
        self.fired = torch.zeros(len(chosen), n_latents, dtype=torch.bool, device=device)

    def update(self, batch: Batch) -> None:
        rows = len(batch.lengths)
        first = torch.searchsorted(self.sequence, batch.first_sequence)
        last = torch.searchsorted(self.sequence, batch.first_sequence + rows)
        if first == last:
            return
        window_of = torch.full((rows,), -1, dtype=torch.int64, device=self.fired.device)
        inside = torch.arange(int(first), int(last), device=self.fired.device)
        window_of[self.sequence[inside] - batch.first_sequence] = inside
        window = window_of[batch.sequence]
        offset = batch.place - self.start[window.clamp_min(0)]
        window = torch.where((offset >= 0) & (offset < self.width), window, -1)[batch.acts.position]
        seen = window >= 0
        self.fired[window[seen], batch.acts.latent[seen]] = True

    def merge(self, other: "QuietContexts") -> None:
        self.fired |= other.fired

    def state_dict(self) -> dict[str, Any]:
        return {"fired": self.fired}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.fired = state["fired"]

    def random(self, k: int) -> Quiet:
        """Up to ``k`` windows a latent in which it does not fire."""
        return self._choose(k, None)

    def near(self, k: int, token: Tensor) -> Quiet:
        """Up to ``k`` windows a latent that hold its ``token`` [n] (-1: none) though it does not fire in them; the
        place is the token's first."""
        return self._choose(k, token)

    def _choose(self, k: int, token: Tensor | None) -> Quiet:
        n, parts = self.fired.shape[1], []
        never = torch.iinfo(torch.int64).max
        for first in range(0, n, CHUNK):
            latent = torch.arange(first, min(first + CHUNK, n), device=self.fired.device)
            priority = priority_of(self.sequence[:, None], latent[None], self.seed + 1)
            priority[self.fired[:, latent]] = never
            place = torch.full_like(priority, self.width // 2)
            if token is not None:
                holds = (self.ids[:, :, None] == token[latent]) & (token[latent] >= 0)
                priority[~holds.any(1)] = never
                place = holds.byte().argmax(1)
            found, window = priority.sort(dim=0)
            found, window = found[:k], window[:k]
            rank, column = (found != never).nonzero(as_tuple=True)
            chosen = window[rank, column]
            start = self.start[chosen]
            at = start + place[chosen, column]
            length = (self.ids[chosen] >= 0).sum(1)
            parts.append((latent[column], rank, self.sequence[chosen], start, torch.minimum(at, start + length - 1)))
        return Quiet(*(torch.cat(column) for column in zip(*parts, strict=True)))
