"""All accumulators of one SAE, fed together."""

from typing import Any

import torch
from torch import Tensor

from app.harvest.batches import Batch
from app.harvest.coactivation import coactivation
from app.harvest.contexts import Contexts
from app.harvest.documents import Documents
from app.harvest.parameters import Parameters
from app.harvest.peaks import find_peaks
from app.harvest.places import Places
from app.harvest.pool import WindowPool
from app.harvest.quiet import QuietContexts
from app.harvest.samples import GROUPS, IntervalSamples
from app.harvest.stages import Stages
from app.harvest.stats import LatentStats
from app.harvest.tokens import TokenPairs
from app.harvest.top import TopContexts
from app.sae.acts import Acts
from app.sae.base import SAE
from app.sae.metrics import Reconstruction

SPARE = 3  # contexts a bin of the samples keeps beyond what a tenth shows


class Harvester:
    """update, merge and state_dict over every accumulator. Everything lives on ``device``; loops run over batches,
    never over latents. What it ends with does not depend on how a corpus is sharded, but for the rounding of sums.

    vocabulary: number of token ids; longest: tokens in the longest sequence; l0: active latents a position, about;
    d_out: the width of what the SAE reconstructs.
    """

    def __init__(
        self,
        sae: SAE,
        parameters: Parameters,
        *,
        vocabulary: int,
        longest: int,
        l0: float,
        device: torch.device | str = "cpu",
        d_out: int | None = None,
    ) -> None:
        n, seed = sae.config.n_latents, parameters.seed
        self.sae = sae
        self.parameters = parameters
        self.n_latents = n
        self.signs = (1, -1) if sae.config.signed else (1,)
        kept = parameters.per_interval + SPARE
        self.pool = WindowPool(
            parameters.width, device, min(n * len(self.signs) * (parameters.top + GROUPS * kept), 1 << 28)
        )
        self.stats = LatentStats(n, sae.config.signed, device)
        self.reconstruction = Reconstruction(d_out or sae.config.d_in)
        self.quiet = QuietContexts(n, parameters.width, parameters.quiet_windows, seed, device)
        self.places = Places(n, longest, device)
        self.tokens = TokenPairs(n, vocabulary, device=device)
        self.documents = Documents(n, parameters.documents, device)
        self.together = coactivation(n, l0, seed, device)
        self.contexts = Contexts(n, parameters.context_width, longest, parameters.contexts, seed, device)
        self.top = {sign: TopContexts(n, parameters.top, self.pool, device) for sign in self.signs}
        self.samples = {sign: IntervalSamples(n, kept, self.pool, seed, device) for sign in self.signs}

    def update(self, batch: Batch, x: Tensor, y: Tensor | None = None, stages: Stages | None = None) -> None:
        """x: [counted positions, d_in], the activations that ``batch.acts`` encodes; y: [counted positions, d_out],
        what the SAE reconstructs where that is something else."""
        stage = stages or Stages()
        with stage("reconstruction"):
            self._reconstruct(batch, x, x if y is None else y)
        with stage("stats"):
            self.stats.update(batch)
        with stage("places"):
            self.places.update(batch)
        with stage("tokens"):
            self.tokens.update(batch)
        with stage("documents"):
            self.documents.update(batch)
        with stage("coactivation"):
            self.together.update(batch)
        with stage("quiet contexts"):
            self.quiet.update(batch)
        with stage("contexts"):
            self.contexts.update(batch)
        for sign in self.signs:
            with stage("peaks"):
                peaks = find_peaks(batch, self.n_latents, sign)
            with stage("top contexts"):
                self.top[sign].update(batch, peaks)
            with stage("samples"):
                self.samples[sign].update(batch, peaks)
        with stage("samples"):
            self._recycle()

    def _recycle(self) -> None:
        if self.pool.crowded:
            self.pool.recycle([t.window for sign in self.signs for t in (self.top[sign], self.samples[sign])])

    def _reconstruct(self, batch: Batch, x: Tensor, y: Tensor) -> None:
        chosen = (batch.sequence + batch.first_sequence) % self.parameters.reconstruct_every == 0
        if not chosen.any():
            return
        entries = chosen[batch.acts.position]
        number = chosen.long().cumsum(0) - 1
        acts = Acts(
            number[batch.acts.position[entries]],
            batch.acts.latent[entries],
            batch.acts.value[entries],
            int(chosen.sum()),
        )
        self.reconstruction.update(y[chosen], self.sae.decode(acts, x[chosen]), acts)

    def merge(self, other: "Harvester") -> None:
        """``other`` saw other sequences of the same corpus; it is used up."""
        for mine, theirs in zip(self._parts().values(), other._parts().values(), strict=True):
            mine.merge(theirs)
        self._recycle()

    def finish(self) -> None:
        """No more batches will come."""
        self.documents.finish()
        self.contexts.settle()

    def _parts(self) -> dict[str, Any]:
        """The accumulators by name; the pool is theirs."""
        parts = {
            "stats": self.stats,
            "reconstruction": self.reconstruction,
            "quiet": self.quiet,
            "places": self.places,
            "tokens": self.tokens,
            "documents": self.documents,
            "together": self.together,
            "contexts": self.contexts,
        }
        signed = {f"{name} {sign}": table[sign] for sign in self.signs for name, table in
                  (("top", self.top), ("samples", self.samples))}  # fmt: skip
        return parts | signed

    def state_dict(self) -> dict[str, Any]:
        return {name: part.state_dict() for name, part in self._parts().items()} | {"pool": self.pool.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.pool.load_state_dict(state["pool"])
        for name, part in self._parts().items():
            part.load_state_dict(state[name])
