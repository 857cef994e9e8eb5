"""The dense products of a training step, and counts of what is active, as fast as the hardware has them."""

from typing import Any

import torch
from torch import Tensor


class _Affine(torch.autograd.Function):
    """x W + b of an x that needs no gradient. b's is a product with ones: a CPU sums bf16 columns slowly."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, W: Tensor, b: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return torch.addmm(b, x, W)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        (x,), g = ctx.saved_tensors, gradients[0]
        ones = torch.ones(1, len(x), dtype=g.dtype, device=g.device)
        return None, (x.to(g.dtype).T @ g).float(), (ones @ g)[0].float()


def affine(x: Tensor, W: Tensor, b: Tensor) -> Tensor:
    """x: [rows, d], without gradients; W: [d, n]; b: [n] -> [rows, n], in bf16 under autocast."""
    made: Tensor = _Affine.apply(x, W, b)  # type: ignore[no-untyped-call]
    return made


def counted(active: Tensor) -> Tensor:
    """active: [rows, n] bool -> how many rows each latent is active in, [n] fp32. On a CPU numpy is fastest."""
    if active.device.type == "cpu":
        return torch.from_numpy(active.detach().numpy().sum(0)).float()
    return active.sum(0).float()
