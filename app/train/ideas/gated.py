"""Gated: Rajamanoharan et al. 2024, "Improving Dictionary Learning with Gated Sparse Autoencoders"."""

from typing import Any

import torch
from torch import nn

from app.sae.base import SAE, SAEConfig
from app.sae.gated import Gated as Encoder
from app.train.idea import Batch, Idea, Loss, Shape, Units
from app.train.ideas.relu_l1 import Led, Options, ramp
from app.train.products import counted


class Gated(Idea):
    """u = (x - b_dec) W_enc, gate = u + b_gate, f = 1[gate > 0] relu(exp(r_mag) u + b_mag), x_hat = f W_dec + b_dec

    L = (|x - x_hat|^2 + lambda sum_i relu(gate)_i + |x - x_hat_frozen(relu(gate))|^2) / var(x), unit decoder rows;
    the last term's decoder is a copy without gradients. lambda is led to ``l0`` as in relu-l1, which is ours.
    """

    name, about, Options = "gated", "Rajamanoharan et al. 2024, Gated Sparse Autoencoders", Options

    def __init__(self, shape: Shape, options: Any, generator: torch.Generator) -> None:
        super().__init__(shape, options, generator)
        del self.b_enc
        self.register_buffer("b_enc", torch.zeros(shape.n_latents))  # there are two in its place
        self.b_gate, self.b_mag, self.r_mag = (nn.Parameter(torch.zeros(shape.n_latents)) for _ in range(3))
        self.led = Led(options.l1, options.l0)

    def loss(self, batch: Batch) -> Loss:
        u = self.pre_acts(batch.x)
        gate = (u + self.b_gate.to(u.dtype)).relu()
        magnitude = (self.r_mag.exp().to(u.dtype) * u + self.b_mag.to(u.dtype)).relu()
        f = magnitude.masked_fill(gate.detach() <= 0, 0.0)
        fvu = batch.share((batch.y - self.decode(f)).pow(2))
        frozen = (gate @ self.W_dec.detach()).float() + self.b_dec.detach()
        aux = batch.share((batch.y - frozen).pow(2))
        sparsity = batch.share(gate @ torch.ones_like(self.b_gate))
        total = fvu + ramp(batch) * self.led.weight * sparsity + aux
        counts = counted(f > 0)
        terms = {"l1": sparsity, "aux": aux, "weight": self.led.weight}
        return Loss(total, fvu, batch.mean(counts), counts > 0, terms)

    def after_step(self, batch: Batch, loss: Loss) -> None:
        self.led.step(loss.l0, batch.steps)

    def finished(self, config: SAEConfig, units: Units) -> SAE:
        biases = {name: getattr(self, name).detach().cpu() for name in ("b_gate", "b_mag", "r_mag")}
        return Encoder(
            config, **self.folded(units), b_gate=biases["b_gate"] / units.scale, b_mag=biases["b_mag"] / units.scale,
            r_mag=biases["r_mag"],
        )  # fmt: skip
