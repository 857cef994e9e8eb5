"""What fires in the corpus's contexts: of each latent its strongest activation there, for prompts to be compared with.

Sequences are cut into contexts of ``width`` tokens, the first from BOS on. A latent's share needs its maximum, which is
known only at the end, so everything that fires in a context is kept until then. What is kept is a uniform sample of
contexts: those of lowest priority, a hash of the context's place in the corpus, as many of them, from the lowest up, as
``limit`` contexts and ``budget`` activations leave room for. That does not depend on the order of the corpus or on how
it is sharded.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from app.harvest.batches import Batch
from app.harvest.grouping import ranges
from app.harvest.samples import priority_of

BUDGET = 1 << 25  # activations held at once, of 8 bytes each
WAITING = 1 << 20  # activations that wait to be sorted in, at least; a quarter of what is held otherwise
_NEVER = torch.iinfo(torch.int64).max


class Held(NamedTuple):
    """Contexts, and what fires in them, context after context and by latent in each.

    priority, context (sequence * per sequence + number in it), size (how many latents fire): [contexts] int64;
    code (latent * width + offset of its strongest activation, of equal ones the earliest): [sum of sizes] int32 (int64
    where latents * width needs it); value (that activation, signed): [sum of sizes] fp32.
    """

    priority: Tensor
    context: Tensor
    size: Tensor
    code: Tensor
    value: Tensor

    def take(self, chosen: Tensor) -> "Held":
        """The contexts numbered ``chosen`` [m] int64, in that order."""
        begins = self.size.cumsum(0) - self.size
        entries = ranges(begins[chosen], self.size[chosen])
        return Held(
            self.priority[chosen], self.context[chosen], self.size[chosen], self.code[entries], self.value[entries]
        )


class Contexts:
    """``seen`` counts all contexts that held a counted position, ``bound`` is the priority from which none are kept;
    the rest is Held, by priority once ``settle`` has run."""

    def __init__(
        self,
        n_latents: int,
        width: int,
        longest: int,
        limit: int,
        seed: int = 0,
        device: torch.device | str = "cpu",
        budget: int = BUDGET,
    ) -> None:
        self.width, self.limit, self.seed, self.budget = width, limit, seed, budget
        self.per_sequence = -(-longest // width)
        none = torch.zeros(0, dtype=torch.int64, device=device)
        code = torch.int32 if n_latents * width < 2**31 else torch.int64
        self.held = Held(none, none, none, none.to(code), torch.zeros(0, device=device))
        self.seen = 0
        self.bound = _NEVER
        self._pending: list[Held] = []
        self._waiting = 0

    def update(self, batch: Batch) -> None:
        device, per = batch.lengths.device, self.per_sequence
        here = torch.unique_consecutive(batch.sequence * per + batch.place // self.width)
        self.seen += len(here)
        context = here + batch.first_sequence * per
        priority = priority_of(context, torch.zeros_like(context), self.seed + 5)
        admitted = (priority < self.bound).nonzero(as_tuple=True)[0]
        if not len(admitted):
            return
        slot_of = torch.full((len(batch.lengths) * per,), -1, dtype=torch.int64, device=device)
        slot_of[here[admitted]] = torch.arange(len(admitted), device=device)
        slot, code, value = self._strongest(batch, slot_of)
        slot, order = slot.sort(stable=True)
        size = torch.bincount(slot, minlength=len(admitted))
        self._add(Held(priority[admitted], context[admitted], size, code[order].to(self.held.code.dtype), value[order]))

    def _strongest(self, batch: Batch, slot_of: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Each (latent, context) of an admitted context once, by latent: its slot, code and value; all [m]."""
        entries, rows = batch.entries, len(batch.lengths)
        number = entries.place // self.width
        slot = slot_of[entries.cell % rows * self.per_sequence + number]
        inside = (slot >= 0).nonzero(as_tuple=True)[0]
        cell, place, value, number, slot = (
            column[inside] for column in (entries.cell, entries.place, entries.value, number, slot)
        )
        # Entries come by latent and sequence, then place, so those of a latent in a context stand together.
        begins = torch.ones_like(cell, dtype=torch.bool)
        begins[1:] = (cell[1:] != cell[:-1]) | (number[1:] != number[:-1])
        group = begins.cumsum(0) - 1
        magnitude = value.abs()
        peak = torch.zeros(int(begins.sum()), device=value.device).scatter_reduce_(0, group, magnitude, "amax")
        tied = (magnitude == peak[group]).nonzero(as_tuple=True)[0]
        first = torch.ones_like(tied, dtype=torch.bool)
        first[1:] = group[tied[1:]] != group[tied[:-1]]
        best = tied[first]
        code = cell[best] // rows * self.width + place[best] % self.width
        return slot[best], code, value[best]

    def merge(self, other: "Contexts") -> None:
        self.settle()
        other.settle()
        self.seen += other.seen
        self.bound = min(self.bound, other.bound)
        self._add(other.held)
        self.settle()

    def _add(self, held: Held) -> None:
        self._pending.append(held)
        self._waiting += len(held.value)
        if self._waiting > max(WAITING, len(self.held.value) // 4):
            self.settle()

    def settle(self) -> None:
        """Sort in what waits, and drop what there is no room for."""
        if not self._pending:
            return
        every = Held(*(torch.cat(columns) for columns in zip(self.held, *self._pending, strict=True)))
        self._pending, self._waiting = [], 0
        order = every.priority.argsort(stable=True)
        priority = every.priority[order]
        room = (every.size[order].cumsum(0) <= self.budget) & (priority < self.bound)
        kept = min(int(room.sum()), self.limit)
        if kept < len(order):
            self.bound = min(self.bound, int(priority[kept]))
        self.held = every.take(order[:kept])

    def state_dict(self) -> dict[str, Any]:
        # What waits is kept as it is, so that when it is sorted in does not depend on when a checkpoint is written.
        held = self.held._asdict()
        return held | {"seen": self.seen, "bound": self.bound, "pending": [tuple(some) for some in self._pending]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.held = Held(*(state[name] for name in Held._fields))
        self.seen, self.bound = state["seen"], state["bound"]
        self._pending = [Held(*some) for some in state["pending"]]
        self._waiting = sum(len(some.value) for some in self._pending)
