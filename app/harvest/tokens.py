"""Which tokens a latent fires on: counts and sums for every pair of latent and token that occurs."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from app.harvest.batches import Batch
from app.harvest.grouping import occurrence

PENDING = 1 << 21  # entries that wait to be summed up


class TopTokens(NamedTuple):
    """Best first; all [n, k]: ids int64 (-1: none), values fp64, seen int64 (how often the token occurs)."""

    ids: Tensor
    values: Tensor
    seen: Tensor


class TokenPairs:
    """key [pairs] int64 = latent * vocabulary + token, sorted; fires int64 and total fp64: how often the latent is
    active on the token, and the sum of its activations there. seen [vocabulary] int64: how often a token occurs.

    At most ``limit`` pairs are kept. When there are more, each latent keeps its ``limit / 2n`` most frequent; what
    it may thereby miss of any pair is at most lost[latent] firings (Misra and Gries 1982, without their subtraction).
    Until then counts are exact.
    """

    def __init__(
        self, n_latents: int, vocabulary: int, limit: int | None = None, device: torch.device | str = "cpu"
    ) -> None:
        self.n_latents, self.vocabulary = n_latents, vocabulary
        self.limit = limit or max(1 << 22, 128 * n_latents)
        self.seen = torch.zeros(vocabulary, dtype=torch.int64, device=device)
        self.lost = torch.zeros(n_latents, dtype=torch.int64, device=device)
        self.key = torch.zeros(0, dtype=torch.int64, device=device)
        self.fires = torch.zeros(0, dtype=torch.int64, device=device)
        self.total = torch.zeros(0, dtype=torch.float64, device=device)
        self._pending: list[tuple[Tensor, Tensor]] = []
        self._waiting = 0

    def update(self, batch: Batch) -> None:
        tokens = batch.tokens
        self.seen += torch.bincount(tokens, minlength=self.vocabulary)
        acts = batch.acts
        self._pending.append((acts.latent * self.vocabulary + tokens[acts.position], acts.value))
        self._waiting += len(acts.value)
        if self._waiting >= PENDING:
            self._settle()

    def _settle(self) -> None:
        if not self._pending:
            return
        keys, values = (torch.cat(column) for column in zip(*self._pending, strict=True))
        self._pending, self._waiting = [], 0
        key, inverse = torch.unique(keys, return_inverse=True)
        fires = torch.bincount(inverse, minlength=len(key))
        total = torch.zeros(len(key), dtype=torch.float64, device=key.device).index_add_(0, inverse, values.double())
        self._join(key, fires, total)

    def _join(self, key: Tensor, fires: Tensor, total: Tensor) -> None:
        both = torch.cat([self.key, key])
        self.key, inverse = torch.unique(both, return_inverse=True)
        self.fires = torch.zeros_like(self.key).index_add_(0, inverse, torch.cat([self.fires, fires]))
        zeros = torch.zeros(len(self.key), dtype=torch.float64, device=key.device)
        self.total = zeros.index_add_(0, inverse, torch.cat([self.total, total]))
        if len(self.key) > self.limit:
            self._prune(max(1, self.limit // (2 * self.n_latents)))

    def _prune(self, most: int) -> None:
        latent = self.key // self.vocabulary
        order = self.fires.argsort(descending=True, stable=True)
        order = order[latent[order].argsort(stable=True)]
        kept = occurrence(latent[order]) < most
        gone = order[~kept]
        dropped = torch.zeros_like(self.lost).scatter_reduce_(0, latent[gone], self.fires[gone], "amax")
        self.lost += dropped
        index = order[kept].sort().values
        self.key, self.fires, self.total = self.key[index], self.fires[index], self.total[index]

    def merge(self, other: "TokenPairs") -> None:
        self._settle()
        other._settle()
        self.seen += other.seen
        self.lost += other.lost
        self._join(other.key, other.fires, other.total)

    def by_mean(self, k: int, least: int) -> TopTokens:
        """The tokens of highest mean activation in size, over all their occurrences (silent ones count as 0), among
        those that occur at least ``least`` times."""
        self._settle()
        seen = self.seen[self.key % self.vocabulary]
        mean = self.total / seen
        return self._best(k, mean.abs(), mean, seen >= least)

    def by_probability(self, k: int, least: int) -> TopTokens:
        """The tokens on which it fires most surely: values are firings over occurrences, ranked by the lower end of
        the share's 95% interval (Wilson 1927), so that 5 of 5 does not come before 4,990 of 5,000."""
        self._settle()
        seen = self.seen[self.key % self.vocabulary]
        n, z = seen.double(), 1.96
        share = self.fires / n
        spread = z * (share * (1 - share) / n + z * z / (4 * n * n)).sqrt()
        low = (share + z * z / (2 * n) - spread) / (1 + z * z / n)
        return self._best(k, low, share, seen >= least)

    def _best(self, k: int, rank: Tensor, value: Tensor, wanted: Tensor) -> TopTokens:
        wanted = wanted & (value != 0)
        key, rank, value = self.key[wanted], rank[wanted], value[wanted]
        order = rank.argsort(descending=True, stable=True)
        latent = key // self.vocabulary
        order = order[latent[order].argsort(stable=True)]
        slot = occurrence(latent[order])
        order, slot = order[slot < k], slot[slot < k]
        shape, device = (self.n_latents, k), key.device
        ids = torch.full(shape, -1, dtype=torch.int64, device=device)
        values = torch.zeros(shape, dtype=torch.float64, device=device)
        seen = torch.zeros(shape, dtype=torch.int64, device=device)
        at, token = latent[order], key[order] % self.vocabulary
        ids[at, slot], values[at, slot], seen[at, slot] = token, value[order], self.seen[token]
        return TopTokens(ids, values, seen)

    def state_dict(self) -> dict[str, Any]:
        # What waits is kept as it is, so that when it is summed up does not depend on when a checkpoint is written.
        names = ("seen", "lost", "key", "fires", "total")
        return {name: getattr(self, name) for name in names} | {"pending": list(self._pending)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name in ("seen", "lost", "key", "fires", "total"):
            setattr(self, name, state[name])
        self._pending = [(key, value) for key, value in state["pending"]]
        self._waiting = sum(len(value) for _, value in self._pending)
