"""JumpReLU: Rajamanoharan et al. 2024, "Jumping Ahead: Improving Reconstruction Fidelity with JumpReLU SAEs"."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from app.sae.base import SAE, SAEConfig
from app.sae.jumprelu import JumpReLU as Encoder
from app.train import idea
from app.train.idea import Batch, Loss, Shape, Units
from app.train.ideas.relu_l1 import ramp
from app.train.products import counted


@dataclass(frozen=True)
class Options(idea.Options):
    l0: float = 32.0
    weight: float = 1.0
    bandwidth: float = 0.001
    start: float = 0.001


class _Jump(torch.autograd.Function):
    """f = a 1[a > t] and how often each latent is active, with the paper's pseudo-derivatives by t: of f
    -(t / e) K((a - t) / e), of a count -(1 / e) K((a - t) / e), where K is 1 within a half of 0 and e the bandwidth.
    Few entries are that near, so they are taken one by one."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, t: Tensor, bandwidth: float) -> tuple[Tensor, Tensor]:
        active = a > t.to(a.dtype)
        ctx.save_for_backward(a, t, active)
        ctx.bandwidth = bandwidth
        return a.masked_fill(~active, 0.0), counted(active)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        (a, t, active), (of_f, of_count) = ctx.saved_tensors, gradients
        half = ctx.bandwidth / 2
        cell = ((a > (t - half).to(a.dtype)) & (a < (t + half).to(a.dtype))).view(-1).nonzero()[:, 0]
        latent = cell % a.shape[1]
        near = of_f.reshape(-1)[cell].float() * t[latent] + of_count[latent]
        return of_f.masked_fill(~active, 0.0), -torch.zeros_like(t).index_add_(0, latent, near) / ctx.bandwidth, None


class JumpReLU(idea.Idea):
    """a = (x - b_dec) W_enc + b_enc, f = a 1[a > t] with t >= 0, x_hat = f W_dec + b_dec

    L = |x - x_hat|^2 / var(x) + weight (L0 / l0 - 1)^2, unit decoder rows: the paper's penalty on the distance of L0 to
    a wanted one (its other is lambda L0). ``bandwidth``, the thresholds' ``start`` and the thresholds themselves while
    they are trained are for inputs of mean squared norm 1, as in the paper. It trains log(t), we train t, as
    dictionary_learning does: in a short run a logarithm would hardly move.
    """

    name, about, Options = "jumprelu", "Rajamanoharan et al. 2024, JumpReLU SAEs", Options

    def __init__(self, shape: Shape, options: Any, generator: torch.Generator) -> None:
        super().__init__(shape, options, generator)
        self.threshold = nn.Parameter(torch.full((shape.n_latents,), float(options.start)))

    def loss(self, batch: Batch) -> Loss:
        norm = math.sqrt(self.shape.d_in)
        a = self.pre_acts(batch.x)
        f, counts = _Jump.apply(a, norm * self.threshold, norm * self.options.bandwidth)  # type: ignore[no-untyped-call]
        fvu = batch.share((batch.y - self.decode(f)).pow(2))
        l0 = batch.mean(counts)
        sparsity = (l0 / self.options.l0 - 1).pow(2)
        total = fvu + ramp(batch) * self.options.weight * sparsity
        return Loss(total, fvu, l0.detach(), counts.detach() > 0, {"sparsity": sparsity})

    @torch.no_grad()
    def after_step(self, batch: Batch, loss: Loss) -> None:
        self.threshold.clamp_(min=0)

    def finished(self, config: SAEConfig, units: Units) -> SAE:
        threshold = self.threshold.detach().cpu() * math.sqrt(self.shape.d_in) / units.scale
        return Encoder(config, **self.folded(units), threshold=threshold)
