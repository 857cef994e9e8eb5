"""Quantised SAEs (overcomplete's QSAE): codes are levels, the nearest (hard) or a softmax mean of all (soft)."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from app.sae.acts import Acts
from app.sae.linear import Block, Linear, gather


@dataclass(frozen=True, eq=False, kw_only=True)
class Quantised(Linear):
    """f = relu(q(pre_acts)). Hard: q(a) is the level nearest to a. Soft: q(a) = sum over levels of
    softmax(-(a - level)^2 / temperature) level. levels: [L] fp32."""

    levels: Tensor
    hard: bool = True
    temperature: float = 1.0

    @torch.inference_mode()
    def encode(self, x: Tensor) -> Acts:
        """x: [positions, d_in] -> Acts."""
        return gather(len(x), self._levels(self.blocks(x)))

    def _levels(self, blocks: Iterable[Block]) -> Iterator[tuple[int, Tensor, Tensor]]:
        for first, pre_acts in blocks:
            values = self._quantise(pre_acts)
            yield first, values, values > 0

    def _quantise(self, pre_acts: Tensor) -> Tensor:
        if self.hard:
            levels = self.levels.sort().values
            return levels[torch.bucketize(pre_acts, (levels[1:] + levels[:-1]) / 2)]
        top = torch.full_like(pre_acts, -torch.inf)
        for level in self.levels:
            top = torch.maximum(top, -(pre_acts - level).pow(2) / self.temperature)
        weight, total = torch.zeros_like(pre_acts), torch.zeros_like(pre_acts)
        for level in self.levels:  # a handful; one pass each keeps memory at one block
            share = (-(pre_acts - level).pow(2) / self.temperature - top).exp()
            weight, total = weight + share, total + share * level
        return total / weight
