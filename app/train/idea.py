"""What an idea for an SAE has to say: its parameters, its loss, what follows a step, and the SAE that comes out.

Inputs are normalised: centred, of mean squared norm d. Losses are shares of the batch's variance, so that fvu is 1
for predicting the mean and weights mean the same whatever the subject.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from app.sae.base import SAE, SAEConfig
from app.train.products import affine
from app.train.world import ALONE, World


class Shape(NamedTuple):
    d_in: int
    d_out: int
    n_latents: int


@dataclass(frozen=True)
class Batch:
    """x: [rows, d_in], what the SAE reads; y: [rows, d_out], what it is to write (x itself, but for a transcoder);
    gradient: [rows, d_in], the subject's loss by x, of mean squared norm d, where the idea asks for it.

    ``rows`` may be one process's share of a batch of ``size``; ``variance`` is sum |y - mean(y)|^2 over all of it.
    dead: [n_latents] bool, what has not fired for long. ``noise`` draws the same whatever the number of processes.
    """

    x: Tensor
    y: Tensor
    variance: Tensor
    size: int
    step: int
    steps: int
    dead: Tensor
    world: World = ALONE
    gradient: Tensor | None = None
    seed: int = 0

    def total(self, values: Tensor) -> Tensor:
        """The sum over the whole batch, in fp32."""
        return self.world.total(values.sum(dtype=torch.float32))

    def mean(self, values: Tensor) -> Tensor:
        """The sum over the whole batch by its number of rows."""
        return self.total(values) / self.size

    def share(self, squares: Tensor) -> Tensor:
        """The sum over the whole batch as a share of its variance."""
        return self.total(squares) / self.variance

    def noise(self, width: int) -> Tensor:
        """Standard normal, [rows, width]; that of a step is always the same."""
        generator = torch.Generator(self.x.device).manual_seed(self.seed * 1_000_003 + self.step)
        drawn = torch.randn(self.size, width, generator=generator, device=self.x.device)
        return drawn[self.world.share(self.size)]


class Loss(NamedTuple):
    """``total`` is what is minimised; fvu, l0 and terms (by name) are logged; fired: [n_latents] bool."""

    total: Tensor
    fvu: Tensor
    l0: Tensor
    fired: Tensor
    terms: dict[str, Tensor] = {}  # noqa: RUF012


class Units(NamedTuple):
    """How what is trained on stands to raw activations: x = (raw - mean) * scale, y = (raw' - out_mean) * out_scale."""

    mean: Tensor
    scale: float
    out_mean: Tensor
    out_scale: float


@dataclass(frozen=True)
class Options:
    """What an idea lets its user choose; each idea's own, with defaults."""


class Idea(nn.Module, ABC):
    """Starts with unit decoder rows drawn at random, the encoder their transpose, and biases of 0.

    W_enc [d_in, n], b_enc [n], W_dec [n, d_out], b_dec [d_out]. An idea without an encoder of its own (``tied``) has
    no W_enc. ``centred`` says that the encoder reads x - b_dec. With ``unit_rows`` decoder rows stay of norm 1.
    """

    name: ClassVar[str]
    about: ClassVar[str]  # the paper
    Options: ClassVar[type[Options]]
    architecture: ClassVar[str | None] = None  # what the SAE is called, where not by the idea's name
    signed: ClassVar[bool] = False
    tied: ClassVar[bool] = False
    centred: ClassVar[bool] = True
    unit_rows: ClassVar[bool] = True
    wants_gradient: ClassVar[bool] = False
    b_enc: Tensor
    b_dec: Tensor

    def __init__(self, shape: Shape, options: Any, generator: torch.Generator) -> None:
        super().__init__()
        self.shape, self.options = shape, options
        rows = torch.randn(shape.n_latents, shape.d_in, generator=generator)
        rows = rows / rows.norm(dim=1, keepdim=True)
        if not self.tied:
            self.W_enc = nn.Parameter(rows.T.contiguous())
        if shape.d_out != shape.d_in:
            rows = torch.randn(shape.n_latents, shape.d_out, generator=generator)
            rows = rows / rows.norm(dim=1, keepdim=True)
        self.W_dec = nn.Parameter(rows.clone())
        self.b_enc = nn.Parameter(torch.zeros(shape.n_latents))
        self.b_dec = nn.Parameter(torch.zeros(shape.d_out))

    @abstractmethod
    def loss(self, batch: Batch) -> Loss: ...

    def after_step(self, batch: Batch, loss: Loss) -> None:
        """What else changes with a step, without gradients."""

    @abstractmethod
    def finished(self, config: SAEConfig, units: Units) -> SAE:
        """The SAE for raw activations."""

    def offset(self) -> Tensor:
        """[n], what a pre-activation is beside x W_enc. With b_dec taken in here, x needs no gradient."""
        if not self.centred:
            return self.b_enc
        with torch.autocast(self.b_dec.device.type, enabled=False):
            return self.b_enc - self.b_dec @ self.W_enc

    def pre_acts(self, x: Tensor) -> Tensor:
        """x: [rows, d_in] -> (x - b_dec) W_enc + b_enc, [rows, n], in bf16 under autocast."""
        return affine(x, self.W_enc, self.offset())

    def decode(self, f: Tensor) -> Tensor:
        """f: [rows, n] -> f W_dec + b_dec, [rows, d_out] fp32."""
        return (f @ self.W_dec).float() + self.b_dec

    @torch.no_grad()
    def before_step(self) -> None:
        """Take out of the decoder's gradient what only changes the rows' norms."""
        if self.unit_rows and self.W_dec.grad is not None:
            along = (self.W_dec.grad * self.W_dec).sum(1, keepdim=True)
            self.W_dec.grad.addcmul_(along, self.W_dec, value=-1)

    @torch.no_grad()
    def normalise(self) -> None:
        if self.unit_rows:
            self.W_dec.div_(self.W_dec.norm(dim=1, keepdim=True).clamp_min(1e-8))

    def folded(self, units: Units) -> dict[str, Any]:
        """The linear parts for raw activations. A latent's raw value is the trained one by the input's scale."""
        mean, s, out_mean, t = units
        W_enc, b_enc = self.W_enc.detach().cpu(), self.b_enc.detach().cpu()
        b_enc = b_enc / s if self.centred else b_enc / s - mean @ W_enc
        return {
            "W_enc": W_enc.clone(),
            "b_enc": b_enc,
            "W_dec": self.W_dec.detach().cpu() * (s / t),
            "b_dec": out_mean + self.b_dec.detach().cpu() / t,
            "subtract_b_dec": self.centred,
        }
