"""The small SAE whose strongest latent is a head's code.

O'Neill & Bui 2024, "Sparse Autoencoders Enable Scalable and Reliable Circuit Identification in Language Models", as
their repository trains it (charlieoneill11/sae-circuits): ReLU, tied bias, unit rows, mean squared error plus ``l1``
times the mean L1 norm, Adam at 0.001 over 500 passes of all examples at once.
"""

from collections.abc import Callable

import torch
from torch import Tensor

LEARNING_RATE = 1e-3
SILENT = -1  # the code where no latent fires


class Dictionary:
    """W_enc, W_dec: [n_latents, d] with unit rows; b_enc [n_latents]; b_dec [d]. Inputs are divided by ``scale``."""

    def __init__(self, d: int, n_latents: int, scale: float, generator: torch.Generator) -> None:
        self.W_enc = _unit(torch.randn(n_latents, d, generator=generator))
        self.W_dec = _unit(torch.randn(n_latents, d, generator=generator))
        self.b_enc = (torch.rand(n_latents, generator=generator) * 2 - 1) / d**0.5
        self.b_dec = torch.zeros(d)
        self.scale = scale

    def train(
        self, x: Tensor, steps: int, l1: float, step: Callable[[int, int], None] = lambda done, total: None
    ) -> None:
        """x: [examples, d]. loss = mean((x - x_hat)^2) + l1 * mean over examples of sum |acts|."""
        x = x / self.scale
        parameters = [p.requires_grad_() for p in (self.W_enc, self.W_dec, self.b_enc, self.b_dec)]
        optimiser = torch.optim.Adam(parameters, lr=LEARNING_RATE)
        for done in range(steps):
            acts = ((x - self.b_dec) @ self.W_enc.T + self.b_enc).relu()
            loss = (acts @ self.W_dec + self.b_dec - x).pow(2).mean() + l1 * acts.sum(1).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            with torch.no_grad():
                for weight in (self.W_enc, self.W_dec):
                    weight.copy_(_unit(weight))
            step(done + 1, steps)
        for parameter in parameters:
            parameter.requires_grad_(False)

    def codes(self, x: Tensor) -> Tensor:
        """[..., d] -> [...] int64: the strongest latent, ``SILENT`` where none fires."""
        acts = ((x / self.scale - self.b_dec) @ self.W_enc.T + self.b_enc).relu()
        value, code = acts.max(-1)
        strongest: Tensor = code.masked_fill(value <= 0, SILENT)
        return strongest


def _unit(rows: Tensor) -> Tensor:
    return torch.nn.functional.normalize(rows, dim=1)
