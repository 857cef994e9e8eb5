"""JumpReLU SAEs (Rajamanoharan et al. 2024). BatchTopK and Matryoshka SAEs are this at inference, with one scalar."""

from dataclasses import dataclass

import torch
from torch import Tensor

from app.sae.acts import Acts
from app.sae.linear import Linear, gather


@dataclass(frozen=True, eq=False, kw_only=True)
class JumpReLU(Linear):
    """f = relu(a) 1[a > threshold], or a >= threshold where ``inclusive`` (overcomplete). threshold: [n] or []."""

    threshold: Tensor
    inclusive: bool = False

    @torch.inference_mode()
    def encode(self, x: Tensor) -> Acts:
        """x: [positions, d_in] -> Acts."""
        return gather(len(x), ((first, a, self._active(first, a)) for first, a in self.blocks(x)))

    def _active(self, first: int, pre_acts: Tensor) -> Tensor:
        threshold = self.threshold.expand(self.W_enc.shape[1])[first : first + pre_acts.shape[1]]
        over = pre_acts >= threshold if self.inclusive else pre_acts > threshold
        return over if float(threshold.min()) >= 0 and not self.inclusive else over & (pre_acts > 0)
