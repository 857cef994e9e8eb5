"""ReLU SAEs (Bricken et al. 2023). GBA (Chen et al. 2025) is one at inference; FAST is this or JumpReLU."""

from dataclasses import dataclass

import torch
from torch import Tensor

from app.sae.acts import Acts
from app.sae.linear import Linear, gather


@dataclass(frozen=True, eq=False)
class ReLU(Linear):
    """f = relu(pre_acts)."""

    @torch.inference_mode()
    def encode(self, x: Tensor) -> Acts:
        """x: [positions, d_in] -> Acts."""
        return gather(len(x), ((first, a, a > 0) for first, a in self.blocks(x)))
