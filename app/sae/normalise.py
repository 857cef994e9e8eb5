"""Normalisation of an SAE's input, undone at its output. Nothing is kept between the two: both are given x."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Kind = Literal["none", "scale", "unit_norm", "layer_norm"]
EPSILON = 1e-5


@dataclass(frozen=True)
class Normalisation:
    """``scale``: x * scale_in, and x_hat / scale_out. For SAELens's expected_average_only_in with a stored factor,
    and for Llama Scope's and OpenMOSS's dataset-wise norm, where the factor is sqrt(d) / average norm.

    ``unit_norm``: x * sqrt(d) / |x| a position, undone by the same factor (SAELens: constant_norm_rescale).

    ``layer_norm``: (x - mean) / (std + eps) with the unbiased std of the position, undone by * std + mean
    (OpenAI sparse_autoencoder; SAELens: layer_norm; BatchTopK and top-afa: input_unit_norm).
    """

    kind: Kind = "none"
    scale_in: float = 1.0
    scale_out: float = 1.0
    undo: bool = True

    def into(self, x: Tensor) -> Tensor:
        """x: [positions, d] fp32 -> the encoder's input."""
        match self.kind:
            case "scale":
                return x * self.scale_in
            case "unit_norm":
                return x * _unit_factor(x)
            case "layer_norm":
                centred = x - x.mean(-1, keepdim=True)
                return centred / (_std(centred) + EPSILON)
            case _:
                return x

    def back(self, x_hat: Tensor, x: Tensor) -> Tensor:
        """x_hat: [positions, d_out] fp32 on the normalised scale -> on the scale of ``x``."""
        if not self.undo:
            return x_hat
        match self.kind:
            case "scale":
                return x_hat / self.scale_out
            case "unit_norm":
                return x_hat / _unit_factor(x)
            case "layer_norm":
                mean = x.mean(-1, keepdim=True)
                return x_hat * _std(x - mean) + mean
            case _:
                return x_hat

    def onto(self, w: Tensor, x: Tensor) -> Tensor:
        """What a direction on the normalised scale is on the scale of x: into(x) . w = x . onto(w, x), position by
        position. w: [d] fp32; x: [positions, d] -> [positions, d] fp32."""
        x = x.float()
        match self.kind:
            case "scale":
                return (w * self.scale_in).expand(x.shape)
            case "unit_norm":
                return w * _unit_factor(x)
            case "layer_norm":
                return (w - w.mean()) / (_std(x - x.mean(-1, keepdim=True)) + EPSILON)
            case _:
                return w.expand(x.shape)

    def slope(self, x: Tensor) -> Tensor:
        """How much ``back`` stretches, d back / d x_hat: [positions, 1] fp32."""
        ones = torch.ones(len(x), 1, device=x.device)
        if not self.undo:
            return ones
        match self.kind:
            case "scale":
                return ones / self.scale_out
            case "unit_norm":
                return ones / _unit_factor(x.float())
            case "layer_norm":
                return _std(x.float() - x.float().mean(-1, keepdim=True))
            case _:
                return ones


def _std(centred: Tensor) -> Tensor:
    """The unbiased standard deviation of rows whose mean is taken out: [positions, 1]."""
    variance: Tensor = centred.pow(2).sum(-1, keepdim=True) / (centred.shape[-1] - 1)
    return variance.sqrt()


def _unit_factor(x: Tensor) -> Tensor:
    factor: Tensor = math.sqrt(x.shape[-1]) / x.norm(dim=-1, keepdim=True).clamp_min(1e-12)
    return factor
