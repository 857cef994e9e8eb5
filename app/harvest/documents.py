"""In how many documents a latent fires, and in which it fires most."""

from typing import Any

import torch
from torch import Tensor

from app.harvest.batches import Batch
from app.harvest.grouping import occurrence, spread

CELLS = 1 << 23  # documents times latents counted at once


class Documents:
    """count [n] int64: documents with a firing. fires and number [n, k] int64: the documents with the most firings
    (0 and -1: none), of equal ones the earlier.

    A document may lie in several batches or, at the ends of a shard, in several shards; what is known of one that may
    go on stays open until ``finish``.
    """

    def __init__(self, n_latents: int, k: int, device: torch.device | str = "cpu") -> None:
        self.n_latents, self.k = n_latents, k
        self.count = torch.zeros(n_latents, dtype=torch.int64, device=device)
        self.fires = torch.zeros(n_latents, k, dtype=torch.int64, device=device)
        self.number = torch.full((n_latents, k), -1, dtype=torch.int64, device=device)
        self._open: dict[int, Tensor] = {}
        self._first = -1

    def update(self, batch: Batch) -> None:
        """Documents come in order, as they do in a pass over a corpus."""
        if not len(batch.document):
            return
        numbers, local = torch.unique_consecutive(batch.document, return_inverse=True)
        if self._first < 0:
            self._first = int(numbers[0])
        acts = batch.acts
        where = local[acts.position]
        chunk = max(1, CELLS // self.n_latents)
        for start in range(0, len(numbers), chunk):
            some = numbers[start : start + chunk]
            mine = (where >= start) & (where < start + chunk)
            cell = (where[mine] - start) * self.n_latents + acts.latent[mine]
            counts = torch.bincount(cell, minlength=len(some) * self.n_latents).view(len(some), self.n_latents)
            self._add(some, counts)

    def _add(self, numbers: Tensor, counts: Tensor) -> None:
        names = numbers.tolist()
        over = [name for name in self._open if name not in names and name != self._first and name < names[0]]
        self._close(over)
        ends = [row for row, name in enumerate(names) if name in (self._first, names[-1]) or name in self._open]
        for row in ends:
            held = self._open.get(names[row])
            self._open[names[row]] = counts[row].clone() if held is None else held + counts[row]
        whole = [row for row in range(len(names)) if row not in ends]
        if whole:
            self._take(numbers[whole], counts[whole])
        self._close([name for name in self._open if name in names[:-1] and name != self._first])

    def _close(self, names: list[int]) -> None:
        if names:
            names = sorted(names)
            counts = torch.stack([self._open.pop(name) for name in names])
            self._take(torch.tensor(names, device=self.count.device), counts)

    def _take(self, numbers: Tensor, counts: Tensor) -> None:
        """numbers: [m], counts: [m, n] of documents that are complete."""
        self.count += (counts > 0).sum(0)
        latent, row = (self.fires[:, -1:].clamp_min(1) <= counts.T).nonzero(as_tuple=True)
        self._insert(latent, counts.T[latent, row], numbers[row])

    def _insert(self, latent: Tensor, fires: Tensor, number: Tensor) -> None:
        """latent: [entries] sorted."""
        if not len(latent):
            return
        affected, inverse = torch.unique_consecutive(latent, return_inverse=True)
        slot = self.k + occurrence(inverse)
        width = int(slot.max()) + 1
        held = spread(self.fires[affected], inverse, slot, fires, width, 0)
        named = spread(self.number[affected], inverse, slot, number, width, -1)
        by_number = named.argsort(dim=1, stable=True)
        order = by_number.gather(1, held.gather(1, by_number).argsort(dim=1, descending=True, stable=True))
        best = order[:, : self.k]
        self.fires[affected], self.number[affected] = held.gather(1, best), named.gather(1, best)

    def merge(self, other: "Documents") -> None:
        """``other`` saw other batches of the same corpus."""
        for name, counts in other._open.items():
            held = self._open.get(name)
            self._open[name] = counts if held is None else held + counts
        self._first = max(self._first, other._first) if min(self._first, other._first) < 0 else self._first
        self.count += other.count
        latent, slot = (other.fires > 0).nonzero(as_tuple=True)
        self._insert(latent, other.fires[latent, slot], other.number[latent, slot])

    def finish(self) -> None:
        """No more batches will come."""
        self._close(list(self._open))

    def state_dict(self) -> dict[str, Any]:
        names = ("count", "fires", "number")
        return {name: getattr(self, name) for name in names} | {"open": dict(self._open), "first": self._first}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.count, self.fires, self.number = state["count"], state["fires"], state["number"]
        self._open, self._first = dict(state["open"]), state["first"]
