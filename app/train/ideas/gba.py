"""GBA: Chen et al. 2025, "Taming Polysemanticity in LLMs: Provable Feature Recovery via Sparse Autoencoders"."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from app.sae.base import SAE, SAEConfig
from app.sae.relu import ReLU
from app.train import idea
from app.train.idea import Batch, Loss, Shape, Units
from app.train.products import affine, counted


@dataclass(frozen=True)
class Options(idea.Options):
    groups: int = 10
    frequency: float = 0.1  # of the first group; each next one has half of it
    every: int = 5  # steps between adaptations
    down: float = 0.01
    up: float = 0.01
    rare: float = 1e-6


class GBA(idea.Idea):
    """f = relu((x - b_dec) W^T + b), x_hat = (a f) W + b_dec, W with unit rows, a [n] a scale a latent

    L = |x - x_hat|^2 / var(x). b is not trained. Latents are in groups with a target frequency each, half from group
    to group; over the tokens of ``every`` steps, with p how often a latent fired, r its largest pre-activation (0 at
    least) and T the mean of r over those of its group that fired,

        p > target: b = max(b - down r, -1);    p < rare: b = min(b + up T, 0).

    The -1 is for inputs of norm 1, so it is -sqrt(d) here. Written from the paper's account of the algorithm; the size
    of its buffer and its groups' frequencies are not known to us, and it was tried with JumpReLU too.
    """

    name, about, Options = "gba", "Chen et al. 2025, Taming Polysemanticity in LLMs", Options
    architecture, tied = "relu", True
    seen: Tensor
    fires: Tensor
    peak: Tensor

    def __init__(self, shape: Shape, options: Any, generator: torch.Generator) -> None:
        super().__init__(shape, options, generator)
        n = shape.n_latents
        del self.b_enc
        self.a = nn.Parameter(torch.ones(n))
        for name, start in (("b_enc", torch.zeros(n)), ("seen", torch.zeros(())), ("fires", torch.zeros(n)),
                            ("peak", torch.zeros(n)), ("group", torch.arange(n) * options.groups // n)):  # fmt: skip
            self.register_buffer(name, start)

    def loss(self, batch: Batch) -> Loss:
        with torch.autocast(self.b_dec.device.type, enabled=False):
            offset = self.b_enc - self.b_dec @ self.W_dec.T
        f = affine(batch.x, self.W_dec.T, offset).relu()
        fvu = batch.share((batch.y - self.decode(f * self.a.to(f.dtype))).pow(2))
        with torch.no_grad():
            counts = batch.world.total(counted(f > 0))
            self.peak = torch.maximum(self.peak, batch.world.most(f.amax(0).float()))
            self.fires, self.seen = self.fires + counts, self.seen + batch.size
        return Loss(fvu, fvu, counts.sum() / batch.size, counts > 0)

    @torch.no_grad()
    def after_step(self, batch: Batch, loss: Loss) -> None:
        if (batch.step + 1) % self.options.every:
            return
        o, group = self.options, self.get_buffer("group")
        often = self.fires / self.seen
        target = o.frequency * 0.5 ** group.float()
        sums = torch.zeros(o.groups, device=group.device)
        alive = sums.index_add(0, group, (self.peak > 0).float())
        T = (sums.index_add(0, group, self.peak) / alive.clamp_min(1))[group]
        lower = (self.b_enc - o.down * self.peak).clamp_min(-math.sqrt(self.shape.d_in))
        raised = (self.b_enc + o.up * T).clamp_max(0)
        self.b_enc = torch.where(often > target, lower, torch.where(often < o.rare, raised, self.b_enc))
        self.seen, self.fires, self.peak = 0 * self.seen, 0 * self.fires, 0 * self.peak

    def finished(self, config: SAEConfig, units: Units) -> SAE:
        W = self.W_dec.detach().cpu()
        return ReLU(
            config, W_enc=W.T.contiguous(), b_enc=self.b_enc.cpu() / units.scale,
            W_dec=W * self.a.detach().cpu()[:, None], b_dec=units.mean + self.b_dec.detach().cpu() / units.scale,
        )  # fmt: skip
