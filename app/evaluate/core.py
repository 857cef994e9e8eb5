"""How well the SAE reconstructs, how sparsely, and what the subject loses when it stands in."""

import torch
from torch import Tensor

from app.corpus.sequences import Held, Sequence
from app.evaluate.outcome import Outcome, bars
from app.harvest.batches import Batch
from app.harvest.recovery import recovered
from app.sae.base import SAE
from app.sae.metrics import Reconstruction, finite
from app.subject.load import Subject

EDGES = torch.arange(-24, 1) / 4  # of log10 density


class Core:
    """recovery: sequences on which the loss is measured."""

    def __init__(self, subject: Subject, sae: SAE, sequences: list[Sequence], recovery: int) -> None:
        self.subject, self.sae = subject, sae
        self.sequences, self.recovery = sequences, recovery
        self.norms = sae.W_dec.float().norm(dim=1)
        self.reconstruction = Reconstruction(0)
        self.fired = torch.zeros(sae.config.n_latents, dtype=torch.int64, device=self.norms.device)
        self.l1 = self.l1_scaled = 0.0

    def update(self, batch: Batch, x: Tensor, y: Tensor) -> None:
        acts = batch.acts
        if not self.reconstruction.positions:
            self.reconstruction = Reconstruction(y.shape[1])
        self.reconstruction.update(y, self.sae.decode(acts, x), acts)
        self.fired += torch.bincount(acts.latent, minlength=len(self.fired))
        self.l1 += float(acts.value.abs().double().sum())
        self.l1_scaled += float((acts.value.abs() * self.norms[acts.latent]).double().sum())

    def result(self) -> Outcome:
        whole = self.reconstruction.result()
        tokens = self.reconstruction.positions
        mean = (self.reconstruction.total / max(tokens, 1)).float().to(self.norms.device)
        loss = recovered(self.subject, self.sae, Held(self.sequences), self.recovery, mean)
        density = self.fired.double() / max(tokens, 1)
        alive = density > 0
        # by hand: torch.histc wants equal widths, but leaves out what lies beyond
        place = torch.bucketize(density[alive].log10().cpu(), EDGES.double(), right=True) - 1
        counts = torch.bincount(place.clamp(0, len(EDGES) - 2), minlength=len(EDGES) - 1)
        values = {name: whole[name] for name in ("fvu", "explained_variance", "cosine", "norm_ratio", "l0")}
        values |= {
            "l1": finite(self.l1 / max(tokens, 1)),
            "l1_scaled": finite(self.l1_scaled / max(tokens, 1)),
            "dead_share": float((~alive).double().mean()),
        }
        chart = bars("Density of the latents that fired", "log10 of density", EDGES, counts)
        return Outcome(values | loss, tokens, {"bars": [chart]})
