"""ReLU with an L1 penalty: Bricken et al. 2023, "Towards Monosemanticity", as changed by Conerly et al. 2024."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from app.sae.base import SAE, SAEConfig
from app.sae.relu import ReLU
from app.train import idea
from app.train.idea import Batch, Loss, Shape, Units
from app.train.products import counted

WARMUP = 0.05  # of the steps, over which the penalty comes in
RATE = 10.0  # how far log(weight) moves in a whole run at most
AHEAD = 0.05  # of the steps
SHORT = 0.1  # the decoder rows' norm at the start


@dataclass(frozen=True)
class Options(idea.Options):
    l1: float = 1.0
    l0: float = 32.0  # the L0 that the penalty is led to; 0 leaves it at l1


class ReLUL1(idea.Idea):
    """f = relu((x - b_dec) W_enc + b_enc), x_hat = f W_dec + b_dec

    L = (|x - x_hat|^2 + lambda sum_i f_i |W_dec_i|) / var(x), decoder rows of any norm (Conerly et al.'s April update).
    Rows are short at the start, as there: half of the latents fire then, and with rows of norm 1 they would write
    several times x, which the first steps could only put right by silencing nearly all.

    Ours is how lambda is found: it starts at ``l1`` and is led to where L0 is ``l0``. Nothing revives dead latents.
    """

    name, about, Options = "relu-l1", "Bricken et al. 2023, Towards Monosemanticity; Conerly et al. 2024", Options
    architecture, unit_rows = "relu", False

    def __init__(self, shape: Shape, options: Any, generator: torch.Generator) -> None:
        super().__init__(shape, options, generator)
        with torch.no_grad():
            self.W_enc.mul_(SHORT)
            self.W_dec.mul_(SHORT)
        self.led = Led(options.l1, options.l0)

    def loss(self, batch: Batch) -> Loss:
        f = self.pre_acts(batch.x).relu()
        fvu = batch.share((batch.y - self.decode(f)).pow(2))
        sparsity = batch.share(f @ self.W_dec.norm(dim=1))
        total = fvu + ramp(batch) * self.led.weight * sparsity
        counts = counted(f > 0)
        return Loss(total, fvu, batch.mean(counts), counts > 0, {"l1": sparsity, "weight": self.led.weight})

    def after_step(self, batch: Batch, loss: Loss) -> None:
        self.led.step(loss.l0, batch.steps)

    def finished(self, config: SAEConfig, units: Units) -> SAE:
        return ReLU(config, **self.folded(units))


def ramp(batch: Batch) -> float:
    """0 to 1 over the first steps."""
    return min(1.0, (batch.step + 1) / max(1.0, WARMUP * batch.steps))


class Led(nn.Module):
    """A penalty's weight, led to where L0 is ``wanted`` (0: left as it is). At every step its logarithm moves by at
    most RATE by the number of steps, by how far log(L0) will be from log(wanted) in AHEAD of them if it goes on as of
    late."""

    weight: Tensor
    error: Tensor
    slope: Tensor

    def __init__(self, start: float, wanted: float) -> None:
        super().__init__()
        self.wanted = wanted
        for name, value in (("weight", float(start)), ("error", torch.nan), ("slope", 0.0)):
            self.register_buffer(name, torch.tensor(value))

    @torch.no_grad()
    def step(self, l0: Tensor, steps: int) -> None:
        if not self.wanted:
            return
        error = (l0.clamp_min(1e-3) / self.wanted).log()
        change = torch.where(self.error.isnan(), torch.zeros_like(error), error - self.error)
        self.slope, self.error = 0.9 * self.slope + 0.1 * change, error
        self.weight = self.weight * (RATE / steps * (error + AHEAD * steps * self.slope).clamp(-1, 1)).exp()
