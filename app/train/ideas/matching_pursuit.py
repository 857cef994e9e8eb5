"""MP-SAE: Costa et al. 2025, "From Flat to Hierarchical: Extracting Sparse Representations with Matching Pursuit"."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from app.sae.base import SAE, SAEConfig
from app.sae.pursuit import MatchingPursuit as Encoder
from app.sae.pursuit import largest_of
from app.train import idea
from app.train.idea import Batch, Loss, Shape, Units

ROWS = 32  # whose products with all latents stay in a CPU's cache
RESIDUALS = 256  # rows whose residuals do


@dataclass(frozen=True)
class Options(idea.Options):
    k: int = 32  # steps


class MatchingPursuit(idea.Idea):
    """r = x - b_dec; k times: j = argmax r W^T, v = relu(r W_j), f_j += v, r = r - v W_j;   x_hat = f W + b_dec

    L = |r|^2 / var(x), W with unit rows, one matrix for both ways. Gradients go through the values and residuals of the
    chosen rows. The relu is SAELens's. An L0 is below k where a row is chosen twice.
    """

    name, about, Options = "matching-pursuit", "Costa et al. 2025, From Flat to Hierarchical", Options
    architecture, tied = "matching_pursuit", True

    def __init__(self, shape: Shape, options: Any, generator: torch.Generator) -> None:
        super().__init__(shape, options, generator)
        del self.b_enc

    def loss(self, batch: Batch) -> Loss:
        x = batch.y - self.b_dec
        latents = pursued(x.detach(), self.W_dec.detach(), self.options.k)
        left, values = residual(x, self.W_dec, latents)
        fvu = batch.share(left.pow(2))
        active = torch.zeros(len(x), self.shape.n_latents, dtype=torch.bool, device=x.device)
        rows, steps = (values > 0).nonzero(as_tuple=True)
        active[rows, latents[rows, steps]] = True
        return Loss(fvu, fvu, batch.mean(active), active.any(0))

    def finished(self, config: SAEConfig, units: Units) -> SAE:
        return Encoder(
            config=config, W_dec=self.W_dec.detach().cpu().clone(), steps=self.options.k, relu=True,
            b_dec=units.mean + self.b_dec.detach().cpu() / units.scale, subtract_b_dec=True,
        )  # fmt: skip


@torch.no_grad()
def pursued(x: Tensor, W: Tensor, k: int) -> Tensor:
    """The rows of W [n, d] that matching pursuit takes from x [rows, d]: [rows, k] int64.

    Products with all rows are kept up to date by the Gram matrix: taking v W_j out of r takes v W W_j^T out of r W^T,
    so a step reads a row of it instead of multiplying by all of W. On a CPU a few rows go through all steps at a time,
    so that their products stay in its cache.
    """
    gram, latents = (W @ W.T).float(), torch.zeros(len(x), k, dtype=torch.int64, device=x.device)
    rows = ROWS if x.device.type == "cpu" else len(x)
    for products, found in zip((x @ W.T).float().split(rows), latents.split(rows), strict=True):
        for step in range(k):
            value, latent = largest_of(products)
            found[:, step] = latent
            if step + 1 < k:
                products.addcmul_(gram.index_select(0, latent), value.relu()[:, None], value=-1)
    return latents


class _Residual(torch.autograd.Function):
    """Gradients of r_k by W: with r_t = r_{t-1} - v_t w_t, v_t = r_{t-1} w_t and g_t the gradient by r_t,
    g_{t-1} = g_t - (g_t w_t) w_t and w_t's is -(g_t w_t) r_{t-1} - v_t g_t; nothing where v_t was not positive."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, W: Tensor, latents: Tensor) -> tuple[Tensor, Tensor]:
        left, values = x.clone(), torch.empty(latents.shape, dtype=x.dtype, device=x.device)
        for rows, found, chosen in _parts(left, values, latents):
            for step in range(chosen.shape[1]):
                atom = W.index_select(0, chosen[:, step])
                value = (rows * atom).sum(1, keepdim=True).relu_()
                rows.addcmul_(value, atom, value=-1)
                found[:, step] = value[:, 0]
        ctx.save_for_backward(left, values, W, latents)
        ctx.mark_non_differentiable(values)
        return left, values

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        left, values, W, latents = ctx.saved_tensors
        gradient, of_W = gradients[0].clone(), torch.zeros_like(W)
        for rows, found, chosen, slope in _parts(left.clone(), values, latents, gradient):
            for step in reversed(range(chosen.shape[1])):
                latent, value = chosen[:, step], found[:, step, None]
                atom = W.index_select(0, latent)
                rows.addcmul_(value, atom)
                along = (slope * atom).sum(1, keepdim=True) * (value > 0)
                of_W.index_add_(0, latent, (along * rows).addcmul_(value, slope), alpha=-1)
                slope.addcmul_(along, atom, value=-1)
        return gradient, of_W, None


def _parts(*of_rows: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Views of as many rows as stay in a CPU's cache through all steps; all of them elsewhere."""
    size = RESIDUALS if of_rows[0].device.type == "cpu" else max(1, len(of_rows[0]))
    return zip(*(one.split(size) for one in of_rows), strict=True)


def residual(x: Tensor, W: Tensor, latents: Tensor) -> tuple[Tensor, Tensor]:
    """What pursuit along ``latents`` leaves of x, [rows, d], and the values taken, [rows, k]."""
    with torch.autocast(x.device.type, enabled=False):
        left, values = _Residual.apply(x, W, latents)  # type: ignore[no-untyped-call]
    return left, values
