"""Contexts in which a latent does not fire: random ones, and near misses that hold the token its top context peaks on.

A uniform sample of windows, at most one a sequence, is kept with the latents that fire in each. A latent's random
contexts are those windows without it that come first in an order of its own.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

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
    """The ``windows`` sequences of lowest priority (a hash of their number), ascending: priority, sequence, start
    [w] int64; ids [w, width] int64 (-1 past the end); fired [w, n_latents] bool."""

    def __init__(
        self, n_latents: int, width: int, windows: int, seed: int = 0, device: torch.device | str = "cpu"
    ) -> None:
        self.n_latents, self.width, self.windows, self.seed = n_latents, width, windows, seed
        self.priority = torch.zeros(0, dtype=torch.int64, device=device)
        self.sequence = torch.zeros(0, dtype=torch.int64, device=device)
        self.start = torch.zeros(0, dtype=torch.int64, device=device)
        self.ids = torch.zeros(0, width, dtype=torch.int64, device=device)
        self.fired = torch.zeros(0, n_latents, dtype=torch.bool, device=device)

    def update(self, batch: Batch) -> None:
        device = self.priority.device
        row = torch.arange(len(batch.lengths), device=device)
        sequence = row + batch.first_sequence
        none = torch.zeros_like(row)
        priority = priority_of(sequence, none, self.seed + 3)
        if len(self.priority) == self.windows:
            row = row[priority < self.priority[-1]]
        row = row[priority[row].argsort()[: self.windows]]
        if not len(row):
            return
        sequence, priority, none = sequence[row], priority[row], none[row]
        length = batch.lengths[row]
        start = priority_of(sequence, none, self.seed + 4) % (length - self.width + 1).clamp_min(1)
        places = start[:, None] + torch.arange(self.width, device=device)
        ids = batch.token_ids[row[:, None], places.clamp_max(batch.token_ids.shape[1] - 1)]
        ids = torch.where(places < length[:, None], ids, -1)
        window_of = torch.full((len(batch.lengths),), -1, dtype=torch.int64, device=device)
        window_of[row] = torch.arange(len(row), device=device)
        window = window_of[batch.sequence]
        offset = batch.place - start[window.clamp_min(0)]
        window = torch.where((offset >= 0) & (offset < self.width), window, -1)[batch.acts.position]
        seen = window >= 0
        fired = torch.zeros(len(row), self.n_latents, dtype=torch.bool, device=device)
        fired[window[seen], batch.acts.latent[seen]] = True
        self._add(priority, sequence, start, ids, fired)

    def _add(self, *columns: Tensor) -> None:
        """columns: as in state_dict."""
        order = torch.cat([self.priority, columns[0]]).argsort(stable=True)[: self.windows]
        for name, column in zip(_COLUMNS, columns, strict=True):
            setattr(self, name, torch.cat([getattr(self, name), column])[order])

    def merge(self, other: "QuietContexts") -> None:
        self._add(*(getattr(other, name) for name in _COLUMNS))

    def state_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in _COLUMNS}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name in _COLUMNS:
            setattr(self, name, state[name])

    def random(self, k: int) -> Quiet:
        """Up to ``k`` windows a latent in which it does not fire."""
        return self._choose(k, None)

    def near(self, k: int, token: Tensor) -> Quiet:
        """Up to ``k`` windows a latent that hold its ``token`` [n] (-1: none) though it does not fire in them; the
        place is the token's first."""
        return self._choose(k, token)

    def _choose(self, k: int, token: Tensor | None) -> Quiet:
        n, parts = self.n_latents, []
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


_COLUMNS = ("priority", "sequence", "start", "ids", "fired")
