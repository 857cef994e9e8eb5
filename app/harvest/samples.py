"""A uniform sample of contexts from every tenth of each latent's activation range, in one pass.

The range is known only at the end, so this is a bottom-k sketch that survives its growth. Every context has a
random priority (a hash of its sequence and latent). Each interval keeps the ``k`` contexts of lowest priority
and a completeness bound: all contexts of the interval with a priority below the bound are here. When the
maximum grows, contexts move to their new intervals, and a new interval's bound is the lowest bound of the old
ones it overlaps. What an interval holds is therefore always a uniform sample of its contexts; growth only makes
it smaller than k for a while, until later contexts fill it again.
"""

from typing import Any

import torch
from torch import Tensor

from app.harvest.batches import Batch
from app.harvest.grouping import occurrence, spread
from app.harvest.peaks import Peaks, capture
from app.harvest.pool import WindowPool

N_INTERVALS = 10
_NEVER = torch.iinfo(torch.int64).max
_COLUMNS = ("priority", "magnitude", "sequence", "place", "window")
_EMPTY = (_NEVER, 0.0, -1, 0, -1)


def interval_of(magnitude: Tensor, maximum: Tensor) -> Tensor:
    """Which tenth of (0, maximum] a magnitude lies in, 0 to 9; the upper end belongs to its tenth."""
    share = magnitude.double() / maximum.double().clamp_min(1e-300)
    return ((share * N_INTERVALS).ceil().long() - 1).clamp(0, N_INTERVALS - 1)


def priority_of(sequence: Tensor, latent: Tensor, seed: int) -> Tensor:
    """[entries] int64 >= 0: a hash of (sequence, latent, seed), the same in whatever order a corpus is read.

    The finaliser is splitmix64's (Steele, Lea and Flood 2014), in wrapping arithmetic.
    """
    start = ((seed + 1) * 1442695040888963407 + 2**63) % 2**64 - 2**63
    z = sequence * -7046029254386353131 + latent * 6364136223846793005 + start
    z = (z ^ _shift(z, 30)) * -4658895280553007687
    z = (z ^ _shift(z, 27)) * -7723592293110705685
    return (z ^ _shift(z, 31)) & _NEVER


def _shift(z: Tensor, by: int) -> Tensor:
    """Logical right shift of int64."""
    return (z >> by) & ((1 << (64 - by)) - 1)


class IntervalSamples:
    """[n, 10 * k] tables: slots i*k to (i+1)*k belong to interval i, in order of priority.

    priority int64 (huge: empty slot), magnitude fp32, sequence, place, window int64; bound [n, 10] int64;
    maximum [n] fp32.
    """

    def __init__(
        self, n_latents: int, k: int, pool: WindowPool, seed: int = 0, device: torch.device | str = "cpu"
    ) -> None:
        self.k = k
        self.pool = pool
        self.seed = seed
        self.n_latents = n_latents
        shape = (n_latents, N_INTERVALS * k)
        self.priority = torch.full(shape, _NEVER, dtype=torch.int64, device=device)
        self.magnitude = torch.zeros(shape, device=device)
        self.sequence = torch.full(shape, -1, dtype=torch.int64, device=device)
        self.place = torch.zeros(shape, dtype=torch.int64, device=device)
        self.window = torch.full(shape, -1, dtype=torch.int64, device=device)
        self.bound = torch.full((n_latents, N_INTERVALS), _NEVER, dtype=torch.int64, device=device)
        self.maximum = torch.zeros(n_latents, device=device)

    def update(self, batch: Batch, peaks: Peaks) -> None:
        priority = priority_of(peaks.sequence, peaks.latent, self.seed)
        grown = self.maximum.clone()
        grown.scatter_reduce_(0, peaks.latent, peaks.magnitude, "amax")
        self._grow(grown)
        interval = interval_of(peaks.magnitude, self.maximum[peaks.latent])
        admitted = priority < self.bound[peaks.latent, interval]
        peaks, priority = peaks.take(admitted), priority[admitted]
        if not len(priority):
            return
        unseen = -2 - torch.arange(len(priority), device=priority.device)
        self._insert(peaks.latent, [priority, peaks.magnitude, peaks.sequence, peaks.place, unseen])
        entered = self.window < -1
        chosen = -2 - self.window[entered]
        windows = capture(batch, peaks.take(chosen), self.pool.width, self.n_latents)
        self.window[entered] = self.pool.add(windows)

    def merge(self, other: "IntervalSamples") -> None:
        """Both bounds hold for the union where the intervals are the same, so grow both to one maximum first."""
        grown = torch.maximum(self.maximum, other.maximum)
        self._grow(grown)
        theirs = IntervalSamples(self.n_latents, other.k, other.pool, self.seed, self.maximum.device)
        theirs.load_state_dict({name: value.clone() for name, value in other.state_dict().items()})
        theirs._grow(grown)
        self.bound = torch.minimum(self.bound, theirs.bound)
        self._rearrange(torch.arange(self.n_latents, device=self.maximum.device))
        latent, slot = (theirs.sequence >= 0).nonzero(as_tuple=True)
        columns = [getattr(theirs, name)[latent, slot] for name in _COLUMNS]
        interval = interval_of(columns[1], self.maximum[latent])
        below = columns[0] < self.bound[latent, interval]
        latent, columns = latent[below], [column[below] for column in columns]
        columns[-1] = self.pool.add(theirs.pool.rows(columns[-1]))
        self._insert(latent, columns)

    def _grow(self, maximum: Tensor) -> None:
        """Raise the maxima, bound the new intervals and move what is held to them."""
        latents = (maximum > self.maximum).nonzero(as_tuple=True)[0]
        if not len(latents):
            return
        old = self.maximum[latents].double()[:, None, None]
        new = maximum[latents].double()[:, None, None]
        i = torch.arange(N_INTERVALS, dtype=torch.float64, device=maximum.device)
        overlaps = (i * old < (i[:, None] + 1) * new) & ((i + 1) * old > i[:, None] * new)  # [latents, new, old]
        bounds = self.bound[latents][:, None, :].expand(-1, N_INTERVALS, -1)
        self.bound[latents] = torch.where(overlaps, bounds, _NEVER).amin(2)
        self.maximum[latents] = maximum[latents]
        self._rearrange(latents[self.sequence[latents].amax(1) >= 0])

    def _rearrange(self, latents: Tensor) -> None:
        if len(latents):
            self._settle(latents, [getattr(self, name)[latents] for name in _COLUMNS])

    def _insert(self, latent: Tensor, columns: list[Tensor]) -> None:
        """latent: [entries] sorted; columns as in _COLUMNS."""
        if not len(latent):
            return
        affected, inverse = torch.unique_consecutive(latent, return_inverse=True)
        slot = N_INTERVALS * self.k + occurrence(inverse)
        width = int(slot.max()) + 1
        table = [
            spread(getattr(self, name)[affected], inverse, slot, column, width, fill)
            for name, column, fill in zip(_COLUMNS, columns, _EMPTY, strict=True)
        ]
        self._settle(affected, table)

    def _settle(self, latents: Tensor, table: list[Tensor]) -> None:
        """Put the rows of ``table`` [latents, m] into their intervals' slots; what no longer fits lowers bounds."""
        priority, magnitude, sequence = table[0], table[1], table[2]
        interval = interval_of(magnitude, self.maximum[latents][:, None])
        bound = self.bound[latents]
        present = (sequence >= 0) & (priority < bound.gather(1, interval))
        interval = torch.where(present, interval, N_INTERVALS)
        by_priority = priority.argsort(dim=1, stable=True)
        order = by_priority.gather(1, interval.gather(1, by_priority).argsort(dim=1, stable=True))
        interval = interval.gather(1, order)
        sizes = torch.zeros(len(latents), N_INTERVALS + 1, dtype=torch.int64, device=latents.device)
        sizes.scatter_add_(1, interval, torch.ones_like(interval))
        begins = sizes.cumsum(1) - sizes
        rank = torch.arange(interval.shape[1], device=latents.device) - begins.gather(1, interval)
        first_out = (rank == self.k) & (interval < N_INTERVALS)
        row, column = first_out.nonzero(as_tuple=True)
        bound[row, interval[row, column]] = priority.gather(1, order)[row, column]
        self.bound[latents] = bound
        row, column = ((rank < self.k) & (interval < N_INTERVALS)).nonzero(as_tuple=True)
        slot = interval[row, column] * self.k + rank[row, column]
        for name, values, fill in zip(_COLUMNS, table, _EMPTY, strict=True):
            settled = torch.full((len(latents), N_INTERVALS * self.k), fill, dtype=values.dtype, device=values.device)
            settled[row, slot] = values.gather(1, order)[row, column]
            getattr(self, name)[latents] = settled

    def state_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in (*_COLUMNS, "bound", "maximum")}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            setattr(self, name, value)
