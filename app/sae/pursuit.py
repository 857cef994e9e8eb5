"""Matching pursuit SAEs (Costa et al. 2025, "From Flat to Hierarchical: Extracting Sparse Representations with
Matching Pursuit"): latents are chosen one after another, each on what the others left."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import torch
from torch import Tensor

from app.sae.acts import Acts, from_rows
from app.sae.base import SAEConfig, Steps
from app.sae.linear import moved, weighted_rows
from app.sae.normalise import Normalisation

CHUNK_ELEMENTS = 1 << 26
# Taking v W_j out of r takes v W W_j^T out of r W^T: with the Gram matrix a step reads one of its rows in place of
# multiplying by all of W. It is made where at least GRAM_PAYS * n steps are to be taken, up to 1 GiB.
GRAM_PAYS, GRAM_ELEMENTS = 4, 1 << 28
NEAR_ELEMENTS = 1 << 19  # products that go through all steps together, which a CPU's cache should hold
UNSURE = 1e-5  # of what was taken out; some eighty times fp32's rounding


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
        n = len(self.W_dec)
        gram = self._gram if len(x) * self.steps >= GRAM_PAYS * n and n * n <= GRAM_ELEMENTS else None
        rows = max(1, CHUNK_ELEMENTS // n)
        parts = [part for i in range(0, max(len(x), 1), rows) for part in self._pursue_rows(x[i : i + rows], gram)]
        chosen, values, residual = (torch.cat(column) for column in zip(*parts, strict=True))
        return chosen, values, residual

    @cached_property
    def _gram(self) -> Tensor:
        """[n, n] fp32, the products of decoder rows with each other."""
        return self.W_dec @ self.W_dec.T

    @cached_property
    def _longest(self) -> float:
        """The largest |row|^2 of the decoder."""
        return float(self.W_dec.pow(2).sum(1).max())

    def _pursue_rows(self, x: Tensor, gram: Tensor | None) -> list[tuple[Tensor, Tensor, Tensor]]:
        left = self.normalise.into(x.float())
        if self.subtract_b_dec:
            left = left - self.b_dec
        products = left @ self.W_dec.T
        # By the Gram matrix a few rows go through all steps at a time, so that a CPU's cache holds their products.
        rows = (
            max(8, NEAR_ELEMENTS // len(self.W_dec)) if gram is not None and x.device.type == "cpu" else max(len(x), 1)
        )
        pieces = zip(left.split(rows), products.split(rows), strict=True)
        return [self._steps(piece, known, gram) for piece, known in pieces]

    def _steps(self, left: Tensor, products: Tensor, gram: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """products: of ``left`` with every decoder row; written over."""
        chosen = torch.full((len(left), self.steps), -1, device=left.device)
        values = torch.zeros(len(left), self.steps, device=left.device)
        norms = torch.zeros(len(left), self.steps, device=left.device)
        going = torch.ones(len(left), dtype=torch.bool, device=left.device)
        largest = torch.zeros(len(left), device=left.device)  # what was taken out of a row of products at most
        for step in range(self.steps):
            value, latent = largest_of(products)
            if gram is not None and step:
                latent = self._surely(value, latent, left, products, largest)
            row = self.W_dec.index_select(0, latent)
            if gram is not None and step:
                value = (left * row).sum(1)
            if self.relu:
                value = value.relu()
                going = going & (value > 0)
            value = torch.where(going, value, 0)
            repeated = (chosen[:, :step] == latent[:, None]).any(1)
            left = left - value[:, None] * row
            chosen[:, step] = torch.where(going, latent, -1)
            values[:, step], norms[:, step] = value, left.norm(dim=1)
            if self.stop_on_repeat:
                going = going & ~repeated
            if self.residual_threshold:
                going = going & (norms[:, step] >= self.residual_threshold)
            if step + 1 == self.steps:
                break
            if gram is None:
                products = left @ self.W_dec.T
            else:
                products.addcmul_(gram.index_select(0, latent), value[:, None], value=-1)
                largest = torch.maximum(largest, value.abs() * self._longest)
        return chosen, values, norms

    def _surely(self, value: Tensor, latent: Tensor, left: Tensor, products: Tensor, largest: Tensor) -> Tensor:
        """Of each row of products that were updated and not taken anew the latent of the largest: where another is as
        near to it as rounding may have moved them, by products that are new."""
        products.scatter_(1, latent[:, None], -torch.inf)
        second = products.amax(1)
        products.scatter_(1, latent[:, None], value[:, None])
        near = (value - second <= UNSURE * largest).nonzero()[:, 0]
        if len(near):
            products[near] = left[near] @ self.W_dec.T
            latent = latent.index_copy(0, near, largest_of(products[near])[1])
        return latent

    @torch.inference_mode()
    def decode(self, acts: Acts, x: Tensor) -> Tensor:
        return self.normalise.back(weighted_rows(acts, self.W_dec) + self.b_dec, x.float())

    def to(self, device: Any) -> Self:
        made: Self = moved(self, device)
        return made


def largest_of(products: Tensor) -> tuple[Tensor, Tensor]:
    """The largest of each row [rows, n] fp32, and its place: the first where several are."""
    if products.device.type != "cpu":
        return products.max(dim=1)
    # torch's own search for a place on a CPU takes one number after another: ten times as long as numpy's.
    place = torch.from_numpy(products.numpy().argmax(1))
    return products.gather(1, place[:, None])[:, 0], place


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
