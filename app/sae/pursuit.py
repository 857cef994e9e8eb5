"""Matching pursuit SAEs (Costa et al. 2025, "From Flat to Hierarchical: Extracting Sparse Representations with
Matching Pursuit"): latents are chosen one after another, each on what the others left."""

from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor

from app.sae.acts import Acts, from_rows
from app.sae.base import SAEConfig, Steps
from app.sae.linear import moved, weighted_rows
from app.sae.normalise import Normalisation

CHUNK_ELEMENTS = 1 << 26


@dataclass(frozen=True, eq=False, kw_only=True)
class MatchingPursuit:
    """r = x - s b_dec; then at each step j = argmax(r W_dec^T), v its value, f_j += v, r -= v W_dec[j].

    With ``relu`` projections are relu'd, so a position stops where none is positive (SAELens); without it
    (overcomplete) there are exactly ``steps`` steps and values may be negative. A position also stops after the step
    that brings |r| below ``residual_threshold``, and with ``stop_on_repeat`` after one that chose a latent again.
    W_dec: [n, d] fp32, b_dec: [d] fp32.
    """

    config: SAEConfig
    W_dec: Tensor
    b_dec: Tensor
    steps: int
    relu: bool = False
    residual_threshold: float = 0.0
    stop_on_repeat: bool = False
    subtract_b_dec: bool = False
    normalise: Normalisation = Normalisation()

    @torch.inference_mode()
    def encode(self, x: Tensor) -> Acts:
        """x: [positions, d] -> Acts. A latent chosen twice has the sum of its values."""
        chosen, values, _ = self._pursue(x)
        summed, latents = _sum_repeats(chosen.clamp_min(0), values)
        return from_rows(summed, latents)

    @torch.inference_mode()
    def pursue(self, x: Tensor) -> Steps:
        """The latents in order of selection and the residual norm after each step."""
        chosen, _, residual = self._pursue(x)
        return Steps(chosen, residual)

    def _pursue(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """chosen, values, residual norms: each [positions, steps]; where no step was taken
        chosen is -1 and the value 0."""
        rows = max(1, CHUNK_ELEMENTS // len(self.W_dec))
        parts = [self._pursue_rows(x[i : i + rows]) for i in range(0, len(x), rows)] or [self._pursue_rows(x)]
        chosen, values, residual = (torch.cat(column) for column in zip(*parts, strict=True))
        return chosen, values, residual

    def _pursue_rows(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        left = self.normalise.into(x.float())
        if self.subtract_b_dec:
            left = left - self.b_dec
        chosen = torch.full((len(x), self.steps), -1, device=x.device)
        values = torch.zeros(len(x), self.steps, device=x.device)
        norms = torch.zeros(len(x), self.steps, device=x.device)
        going = torch.ones(len(x), dtype=torch.bool, device=x.device)
        for step in range(self.steps):
            value, latent = (left @ self.W_dec.T).max(dim=1)
            if self.relu:
                value = value.relu()
                going = going & (value > 0)
            value = torch.where(going, value, 0)
            repeated = (chosen[:, :step] == latent[:, None]).any(1)
            left = left - value[:, None] * self.W_dec[latent]
            chosen[:, step] = torch.where(going, latent, -1)
            values[:, step], norms[:, step] = value, left.norm(dim=1)
            if self.stop_on_repeat:
                going = going & ~repeated
            if self.residual_threshold:
                going = going & (norms[:, step] >= self.residual_threshold)
        return chosen, values, norms

    @torch.inference_mode()
    def decode(self, acts: Acts, x: Tensor) -> Tensor:
        return self.normalise.back(weighted_rows(acts, self.W_dec) + self.b_dec, x.float())

    def to(self, device: Any) -> Self:
        made: Self = moved(self, device)
        return made


def _sum_repeats(chosen: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Rows in which each latent stands once, with the sum of its values; the others' places hold value 0."""
    latents, order = chosen.sort(dim=1, stable=True)
    values = values.gather(1, order)
    starts = torch.ones_like(latents, dtype=torch.bool)
    starts[:, 1:] = latents[:, 1:] != latents[:, :-1]
    group = starts.cumsum(1) - 1
    summed = torch.zeros_like(values).scatter_add_(1, group, values)
    unique = torch.zeros_like(latents).scatter_(1, group, latents)
    return summed, unique
