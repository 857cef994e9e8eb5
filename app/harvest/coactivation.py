"""Which latents fire together: exact joint counts for small SAEs, a uniform sample of positions for large ones."""

from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from app.harvest.batches import Batch
from app.harvest.grouping import ranges
from app.harvest.samples import priority_of
from app.sae.acts import Acts

EXACT_LATENTS = 32_768
EXACT_L0 = 128
SAMPLED_POSITIONS = 65_536
PAIRS = 1 << 30  # joint firings looked at in a sample, at most
LEAST = 3  # joint firings below which two latents are not called co-active


class Partners(NamedTuple):
    """The co-active latents of each, best first; all [n, k]: ids int64 (-1: none), phi fp64, together int64."""

    ids: Tensor
    phi: Tensor
    together: Tensor


class Coactivation(Protocol):
    """``positions`` is what the counts are over; ``exact`` whether those are all there were."""

    exact: bool

    @property
    def positions(self) -> int: ...
    def update(self, batch: Batch) -> None: ...
    def merge(self, other: Any) -> None: ...
    def partners(self, k: int) -> Partners: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any]) -> None: ...


def coactivation(n_latents: int, l0: float, seed: int, device: torch.device | str) -> Coactivation:
    """The accumulator that fits: exact up to 32,768 latents of which 128 are active at a position, else sampled.
    ``l0`` is taken on the first sequences of the corpus, so that every shard of it decides alike."""
    if n_latents <= EXACT_LATENTS and l0 <= EXACT_L0:
        return ExactPairs(n_latents, device)
    most = int(min(SAMPLED_POSITIONS, max(256, PAIRS / max(l0, 1) ** 2)))
    return SampledPairs(n_latents, most, seed, device)


def rectangles(acts: Acts, fill: int, rows: int = 256) -> Iterator[Tensor]:
    """The latents active at each position, ``rows`` positions with about as many at a time: [positions, most] int32,
    ascending in a row and filled up with ``fill``. Each position with two or more is in one of them."""
    counts = torch.bincount(acts.position, minlength=acts.n_positions)
    begins = counts.cumsum(0) - counts
    counts, order = counts.sort()
    latent = torch.cat([acts.latent.int(), torch.tensor([fill], dtype=torch.int32, device=acts.latent.device)])
    first = int((counts < 2).sum())
    for start in range(first, len(counts), rows):
        some = counts[start : start + rows, None]
        column = torch.arange(int(some[-1]), device=some.device)
        at = torch.where(column < some, begins[order[start : start + rows], None] + column, len(latent) - 1)
        yield latent[at]


def phi(together: Tensor, one: Tensor, other: Tensor, positions: int) -> Tensor:
    """Pearson's correlation of two firings, from counts: how often together, and each at all; fp64."""
    a, b, n = one.double(), other.double(), float(max(positions, 1))
    spread = (a * (n - a) * b * (n - b)).sqrt()
    return (together * n - a * b) / spread.clamp_min(1e-12)


class ExactPairs:
    """together [n (n + 1) / 2] int32, the upper triangle row by row, with a column for a latent n that there is not
    (what rectangles are filled up with); fired [n] int64."""

    exact = True

    def __init__(self, n_latents: int, device: torch.device | str = "cpu") -> None:
        self.n = n_latents
        self._positions = 0
        self.fired = torch.zeros(n_latents, dtype=torch.int64, device=device)
        self.together = torch.zeros(n_latents * (n_latents + 1) // 2, dtype=torch.int32, device=device)
        row = torch.arange(n_latents + 1, device=device)
        self._base = (row * (n_latents + 1) - row * (row + 1) // 2 - row - 1).int()  # (i, j) lies at base[i] + j

    @property
    def positions(self) -> int:
        return self._positions

    def update(self, batch: Batch) -> None:
        self.add(batch.acts)

    def add(self, acts: Acts) -> None:
        self._positions += acts.n_positions
        self.fired += torch.bincount(acts.latent, minlength=self.n)
        one = torch.ones(1, dtype=torch.int32, device=self.fired.device)
        for latent in rectangles(acts, self.n):
            low, high = torch.triu_indices(latent.shape[1], latent.shape[1], 1, device=latent.device)
            cell = (self._base[latent.long()][:, low] + latent[:, high]).view(-1)
            self.together.index_add_(0, cell, one.expand(len(cell)))

    def merge(self, other: "ExactPairs") -> None:
        self._positions += other._positions
        self.fired += other.fired
        self.together += other.together

    def joint(self, mine: Tensor) -> Tensor:
        """How often the latents ``mine`` [rows] fire together with each: [rows, n] int64, 0 with itself."""
        every = torch.arange(self.n, device=self.fired.device)
        low, high = torch.minimum(mine[:, None], every), torch.maximum(mine[:, None], every)
        at = (self._base[low] + high).masked_fill(low == high, 0)
        return self.together[at].long().masked_fill(low == high, 0)

    def partners(self, k: int) -> Partners:
        chunk = max(1, (1 << 23) // self.n)
        every = torch.arange(self.n, device=self.fired.device)
        parts = []
        for start in range(0, self.n, chunk):
            mine = every[start : start + chunk]
            parts.append(_best(self.joint(mine), self.fired[mine, None], self.fired[None], self._positions, k))
        return Partners(*(torch.cat(column) for column in zip(*parts, strict=True)))

    def state_dict(self) -> dict[str, Any]:
        return {"positions": self._positions, "fired": self.fired, "together": self.together}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._positions, self.fired, self.together = state["positions"], state["fired"], state["together"]


class SampledPairs:
    """The positions of lowest priority (a hash of sequence and place) with the latents active there: the same
    whatever the order and the sharding. priority [m] int64, ascending; count [m] int64; latent [sum of count] int32."""

    exact = False

    def __init__(self, n_latents: int, most: int, seed: int, device: torch.device | str = "cpu") -> None:
        self.n, self.most, self.seed = n_latents, most, seed
        self.priority = torch.zeros(0, dtype=torch.int64, device=device)
        self.count = torch.zeros(0, dtype=torch.int64, device=device)
        self.latent = torch.zeros(0, dtype=torch.int32, device=device)

    @property
    def positions(self) -> int:
        return len(self.priority)

    def update(self, batch: Batch) -> None:
        priority = priority_of(batch.sequence + batch.first_sequence, batch.place, self.seed + 2)
        if len(self.priority) == self.most:
            wanted = priority < self.priority[-1]
        else:
            wanted = torch.ones_like(priority, dtype=torch.bool)
        counts = torch.bincount(batch.acts.position, minlength=batch.acts.n_positions)
        latent = batch.acts.latent[wanted[batch.acts.position]].int()
        self._add(priority[wanted], counts[wanted], latent)

    def _add(self, priority: Tensor, count: Tensor, latent: Tensor) -> None:
        if not len(priority):
            return
        priority, count = torch.cat([self.priority, priority]), torch.cat([self.count, count])
        latent = torch.cat([self.latent, latent])
        begins = count.cumsum(0) - count
        order = priority.argsort(stable=True)[: self.most]
        self.priority, self.count = priority[order], count[order]
        self.latent = latent[ranges(begins[order], self.count)]

    def merge(self, other: "SampledPairs") -> None:
        self._add(other.priority, other.count, other.latent)

    def partners(self, k: int) -> Partners:
        begins = self.count.cumsum(0) - self.count
        position = torch.repeat_interleave(torch.arange(len(self.count), device=self.count.device), self.count)
        order = self.latent.argsort(stable=True)
        latent, position = self.latent[order].long(), position[order]
        fired = torch.bincount(latent, minlength=self.n)
        ends = fired.cumsum(0)
        chunk = max(1, (1 << 23) // self.n)
        parts = []
        for start in range(0, self.n, chunk):
            stop = min(start + chunk, self.n)
            low, high = int(ends[start] - fired[start]), int(ends[stop - 1])
            where = position[low:high]
            partner = self.latent[ranges(begins[where], self.count[where])].long()
            mine = torch.repeat_interleave(latent[low:high], self.count[where])
            cells = torch.bincount((mine - start) * self.n + partner, minlength=(stop - start) * self.n)
            together = cells.view(stop - start, self.n)
            own = torch.arange(start, stop, device=together.device)
            together[own - start, own] = 0
            parts.append(_best(together, fired[own, None], fired[None], self.positions, k))
        return Partners(*(torch.cat(column) for column in zip(*parts, strict=True)))

    def state_dict(self) -> dict[str, Any]:
        return {"priority": self.priority, "count": self.count, "latent": self.latent}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.priority, self.count, self.latent = state["priority"], state["count"], state["latent"]


def _best(together: Tensor, one: Tensor, other: Tensor, positions: int, k: int) -> Partners:
    """together: [rows, n] joint counts; one: [rows, 1], other: [1, n] firings -> the k of highest phi above 0."""
    score = phi(together, one, other, positions)
    score = torch.where((together >= LEAST) & (score > 0), score, -1.0)
    found, ids = highest(score, min(k, score.shape[1]))
    ids = torch.where(found > 0, ids, -1)
    joint = together.gather(1, ids.clamp_min(0)).masked_fill(ids < 0, 0)
    return Partners(ids, found.clamp_min(0), joint.long())


def highest(score: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """score: [rows, n] -> the k highest of each row in descending order, and where they are. Of equal scores above 0
    the first come first, also where only some of them are taken: topk promises no order, and may take any."""
    found, ids = score.topk(k, dim=1)
    last = found[:, -1:]
    above = (found > last).sum(1, keepdim=True)
    torn = ((score == last).sum(1) > k - above[:, 0]) & (last[:, 0] > 0)
    if bool(torn.any()):
        some, edge = score[torn], last[torn]
        equal = some == edge
        chosen = (some > edge) | (equal & (equal.cumsum(1) <= k - above[torn]))
        ids[torn] = chosen.nonzero()[:, 1].view(-1, k)
        found[torn] = some.gather(1, ids[torn])
    by_id = ids.argsort(dim=1)
    order = by_id.gather(1, found.gather(1, by_id).argsort(dim=1, descending=True, stable=True))
    return found.gather(1, order), ids.gather(1, order)
