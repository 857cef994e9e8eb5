"""All accumulators of one SAE, fed together."""

from typing import Any

import torch
from torch import Tensor

from app.harvest.batches import Batch
from app.harvest.peaks import find_peaks
from app.harvest.pool import WindowPool
from app.harvest.quiet import QuietContexts
from app.harvest.samples import IntervalSamples
from app.harvest.stats import LatentStats
from app.harvest.top import TopContexts
from app.sae.base import SAE
from app.sae.metrics import Reconstruction


class Harvester:
    """update, merge and state_dict over LatentStats, Reconstruction and, per sign, TopContexts and
    IntervalSamples. Everything lives on ``device``; loops run over batches, never over latents."""

    def __init__(
        self,
        sae: SAE,
        *,
        top: int,
        per_interval: int,
        width: int,
        reconstruct_every: int = 8,
        seed: int = 0,
        device: torch.device | str = "cpu",
        d_out: int | None = None,
        quiet: QuietContexts | None = None,
    ) -> None:
        n = sae.config.n_latents
        d_out = d_out or sae.config.d_in
        self.sae = sae
        self.reconstruct_every = reconstruct_every
        self.batches = 0
        self.stats = LatentStats(n, sae.config.signed, device)
        self.reconstruction = Reconstruction(d_out)
        self.pool = WindowPool(width, device)
        self.quiet = quiet
        self.signs = (1, -1) if sae.config.signed else (1,)
        # An interval keeps twice what is shown, so that one that just lost some to growth still has enough.
        self.top = {sign: TopContexts(n, top, self.pool, device) for sign in self.signs}
        self.samples = {sign: IntervalSamples(n, 2 * per_interval, self.pool, seed, device) for sign in self.signs}

    def update(self, batch: Batch, x: Tensor, y: Tensor | None = None) -> None:
        """x: [counted positions, d_in], the activations that ``batch.acts`` encodes; y: [counted positions, d_out],
        what the SAE reconstructs where that is something else."""
        self.stats.update(batch)
        if self.batches % self.reconstruct_every == 0:
            self.reconstruction.update(x if y is None else y, self.sae.decode(batch.acts, x), batch.acts)
        self.batches += 1
        if self.quiet is not None:
            self.quiet.update(batch)
        for sign in self.signs:
            peaks = find_peaks(batch, self.sae.config.n_latents, sign)
            self.top[sign].update(batch, peaks)
            self.samples[sign].update(batch, peaks)
        tables = self._window_tables()
        if self.pool.crowded(sum(int((table >= 0).sum()) for table in tables)):
            self.pool.compact(tables)

    def merge(self, other: "Harvester") -> None:
        self.batches += other.batches
        self.stats.merge(other.stats)
        self.reconstruction.merge(other.reconstruction)
        if self.quiet is not None and other.quiet is not None:
            self.quiet.merge(other.quiet)
        for sign in self.signs:
            self.top[sign].merge(other.top[sign])
            self.samples[sign].merge(other.samples[sign])

    def _window_tables(self) -> list[Tensor]:
        return [table.window for sign in self.signs for table in (self.top[sign], self.samples[sign])]

    def state_dict(self) -> dict[str, Any]:
        return {
            "batches": self.batches,
            "stats": self.stats.state_dict(),
            "reconstruction": self.reconstruction.state_dict(),
            "pool": self.pool.state_dict(),
            "quiet": None if self.quiet is None else self.quiet.state_dict(),
            "top": {sign: table.state_dict() for sign, table in self.top.items()},
            "samples": {sign: table.state_dict() for sign, table in self.samples.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.batches = state["batches"]
        self.stats.load_state_dict(state["stats"])
        self.reconstruction.load_state_dict(state["reconstruction"])
        self.pool.load_state_dict(state["pool"])
        if self.quiet is not None:
            self.quiet.load_state_dict(state["quiet"])
        for sign in self.signs:
            self.top[sign].load_state_dict(state["top"][sign])
            self.samples[sign].load_state_dict(state["samples"][sign])
