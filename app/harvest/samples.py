"""A uniform sample of contexts from every tenth of each latent's activation range, in one pass.

The range is known only at the end. So contexts are binned on a scale that does not move, quarter octaves of |a|, and
every bin keeps the ``k`` contexts of lowest priority (a hash of sequence and latent): a bottom-k sketch, whose content
does not depend on the order of the corpus or on how it is sharded. All bins below an eleventh of the largest |a| seen
can only ever belong to the lowest tenth and share one sketch. At the end a tenth is made of the bins it overlaps: it is
complete below the lowest bound of theirs, and what it holds below that is a uniform sample of it.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from app.harvest.batches import Batch
from app.harvest.grouping import occurrence, spread
from app.harvest.peaks import Peaks, capture
from app.harvest.pool import WindowPool

N_INTERVALS = 10
BINS_PER_OCTAVE = 4
PRIORITY_BITS = 58  # which leaves room for the bin above them in one sort key
GROUPS = 16  # the bin of the maximum, the 14 below it, and one for all that lies lower
_NEVER = torch.iinfo(torch.int64).max
_NONE = -(1 << 20)
_COLUMNS = ("priority", "magnitude", "sequence", "place", "window")
_EMPTY = (_NEVER, 0.0, -1, 0, -1)


def interval_of(magnitude: Tensor, maximum: Tensor) -> Tensor:
    """Which tenth of (0, maximum] a magnitude lies in, 0 to 9; the upper end belongs to its tenth."""
    share = magnitude.double() / maximum.double().clamp_min(1e-300)
    return ((share * N_INTERVALS).ceil().long() - 1).clamp(0, N_INTERVALS - 1)


def bin_of(magnitude: Tensor) -> Tensor:
    """Quarter octave of a magnitude > 0: b holds 2^(b/4) <= |a| < 2^((b+1)/4)."""
    return (magnitude.double().log2() * BINS_PER_OCTAVE).floor().long()


def priority_of(sequence: Tensor, latent: Tensor, seed: int) -> Tensor:
    """[entries] int64 in [0, 2^58): a hash of (sequence, latent, seed), the same in whatever order a corpus is read.

    The finaliser is splitmix64's (Steele, Lea and Flood 2014), in wrapping arithmetic.
    """
    start = ((seed + 1) * 1442695040888963407 + 2**63) % 2**64 - 2**63
    z = sequence * -7046029254386353131 + latent * 6364136223846793005 + start
    z = (z ^ _shift(z, 30)) * -4658895280553007687
    z = (z ^ _shift(z, 27)) * -7723592293110705685
    return (z ^ _shift(z, 31)) & ((1 << PRIORITY_BITS) - 1)


def _shift(z: Tensor, by: int) -> Tensor:
    """Logical right shift of int64."""
    return (z >> by) & ((1 << (64 - by)) - 1)


class Drawn(NamedTuple):
    """One entry a context: latent, interval and the slot of the table: [m] int64, by latent and interval."""

    latent: Tensor
    interval: Tensor
    slot: Tensor


class IntervalSamples:
    """[n, GROUPS * k] tables: slots g*k to (g+1)*k belong to the g-th bin below the maximum's, by priority.

    priority int64 (huge: empty slot), magnitude fp32, sequence, place, window int32; highest [n] int64, the bin of
    the largest magnitude seen.
    """

    def __init__(
        self, n_latents: int, k: int, pool: WindowPool, seed: int = 0, device: torch.device | str = "cpu"
    ) -> None:
        self.k = k
        self.pool = pool
        self.seed = seed
        self.n_latents = n_latents
        shape = (n_latents, GROUPS * k)
        self.priority = torch.full(shape, _NEVER, dtype=torch.int64, device=device)
        self.magnitude = torch.zeros(shape, device=device)
        self.sequence = torch.full(shape, -1, dtype=torch.int32, device=device)
        self.place = torch.zeros(shape, dtype=torch.int32, device=device)
        self.window = torch.full(shape, -1, dtype=torch.int32, device=device)
        self.highest = torch.full((n_latents,), _NONE, dtype=torch.int64, device=device)

    def update(self, batch: Batch, peaks: Peaks) -> None:
        priority = priority_of(peaks.sequence, peaks.latent, self.seed)
        row = self._rows(peaks.latent, peaks.magnitude)
        admitted = priority < self.priority.view(-1, self.k)[row, -1]
        peaks, priority, row = peaks.take(admitted), priority[admitted], row[admitted]
        # A window is captured only for what gets in; until then a candidate is known by -2 - its number.
        unseen = -2 - torch.arange(len(priority), device=priority.device)
        affected = self._insert(row, [priority, peaks.magnitude, peaks.sequence, peaks.place, unseen])
        table = self.window.view(-1, self.k)
        windows = table[affected]
        entered = windows < -1
        taken = capture(batch, peaks.take(-2 - windows[entered].long()), self.pool.width)
        windows[entered] = self.pool.add(taken).int()
        table[affected] = windows

    def merge(self, other: "IntervalSamples") -> None:
        latent, slot = (other.sequence >= 0).nonzero(as_tuple=True)
        columns = [getattr(other, name)[latent, slot] for name in _COLUMNS]
        row = self._rows(latent, columns[1])
        admitted = columns[0] < self.priority.view(-1, self.k)[row, -1]
        row, columns = row[admitted], [column[admitted] for column in columns]
        columns[-1] = self.pool.add(other.pool.rows(columns[-1]))
        self._insert(row, columns)

    def draw(self, maximum: Tensor, k: int, chunk: int = 1 << 14) -> Drawn:
        """Up to ``k`` contexts of every tenth of (0, maximum[latent]], uniformly among the tenth's contexts."""
        parts = []
        for start in range(0, self.n_latents, chunk):
            some = slice(start, start + chunk)
            priority, magnitude = self.priority[some], self.magnitude[some]
            held = self.sequence[some] >= 0
            interval = interval_of(magnitude, maximum[some, None])
            bound = self._tenths(priority, self.highest[some], maximum[some])
            ready = held & (priority <= bound.gather(1, interval))
            key = torch.where(ready, interval, N_INTERVALS)
            by_priority = priority.argsort(dim=1, stable=True)
            order = by_priority.gather(1, key.gather(1, by_priority).argsort(dim=1, stable=True))
            ordered = key.gather(1, order)
            begins = torch.searchsorted(ordered, torch.arange(N_INTERVALS + 1, device=key.device).repeat(len(key), 1))
            rank = torch.arange(key.shape[1], device=key.device) - begins.gather(1, ordered)
            row, column = ((rank < k) & (ordered < N_INTERVALS)).nonzero(as_tuple=True)
            parts.append((row + start, ordered[row, column], order[row, column]))
        return Drawn(*(torch.cat(column) for column in zip(*parts, strict=True)))

    def _tenths(self, priority: Tensor, highest: Tensor, maximum: Tensor) -> Tensor:
        """[rows, 10]: the priority up to which every context of the tenth is in the tables."""
        full = priority[:, self.k - 1 :: self.k]
        group = torch.arange(GROUPS, device=priority.device)
        low = torch.exp2((highest[:, None] - group).double() / BINS_PER_OCTAVE)
        high = torch.exp2((highest[:, None] - group + 1).double() / BINS_PER_OCTAVE)
        low[:, -1] = 0
        tenth = torch.arange(N_INTERVALS, device=priority.device)
        edge = maximum.double()[:, None] / N_INTERVALS
        overlaps = (low[:, None] <= ((tenth + 1) * edge)[:, :, None]) & (high[:, None] > (tenth * edge)[:, :, None])
        return torch.where(overlaps, full[:, None], _NEVER).amin(2)

    def _rows(self, latent: Tensor, magnitude: Tensor) -> Tensor:
        """[entries]: latent * GROUPS + the entry's bin, once the bins have followed a larger maximum."""
        own = bin_of(magnitude)
        before = self.highest
        self.highest = before.clone().scatter_reduce_(0, latent, own, "amax")
        self._follow(((self.highest > before) & (before > _NONE)).nonzero(as_tuple=True)[0])
        return latent * GROUPS + (self.highest[latent] - own).clamp(0, GROUPS - 1)

    def _follow(self, latents: Tensor) -> None:
        """Move what is held of ``latents`` to the bins below their new maxima."""
        if not len(latents):
            return
        table = [getattr(self, name)[latents] for name in _COLUMNS]
        priority, magnitude, sequence = table[0], table[1], table[2]
        group = (self.highest[latents][:, None] - bin_of(magnitude.clamp_min(1e-38))).clamp(0, GROUPS - 1)
        key = torch.where(sequence >= 0, (group << PRIORITY_BITS) | priority, GROUPS << PRIORITY_BITS)
        key, order = key.sort(dim=1)
        group = key >> PRIORITY_BITS
        sizes = torch.zeros(len(latents), GROUPS + 1, dtype=torch.int64, device=latents.device)
        sizes.scatter_add_(1, group, torch.ones_like(group))
        begins = sizes.cumsum(1) - sizes
        rank = torch.arange(group.shape[1], device=latents.device) - begins.gather(1, group)
        row, column = ((rank < self.k) & (group < GROUPS)).nonzero(as_tuple=True)
        slot = group[row, column] * self.k + rank[row, column]
        for name, values, fill in zip(_COLUMNS, table, _EMPTY, strict=True):
            settled = torch.full_like(values, fill)
            settled[row, slot] = values.gather(1, order)[row, column]
            getattr(self, name)[latents] = settled

    def _insert(self, row: Tensor, columns: list[Tensor]) -> Tensor:
        """row: [entries], of the tables seen as one bin a row; columns as in _COLUMNS. Each bin keeps its lowest
        priorities. Returns the rows that got something: [m]."""
        if not len(row):
            return row
        row, order = row.sort(stable=True)
        affected: Tensor
        affected, inverse = torch.unique_consecutive(row, return_inverse=True)
        slot = self.k + occurrence(inverse)
        width = int(slot.max()) + 1
        tables = [getattr(self, name).view(-1, self.k) for name in _COLUMNS]
        filled = [
            spread(table[affected], inverse, slot, column[order], width, fill)
            for table, column, fill in zip(tables, columns, _EMPTY, strict=True)
        ]
        best = filled[0].argsort(dim=1, stable=True)[:, : self.k]
        for table, values in zip(tables, filled, strict=True):
            table[affected] = values.gather(1, best)
        return affected

    def state_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in (*_COLUMNS, "highest")}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            setattr(self, name, value)
