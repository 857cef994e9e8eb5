"""Gated SAEs (Rajamanoharan et al. 2024, "Improving Dictionary Learning with Gated Sparse Autoencoders")."""

from dataclasses import dataclass

import torch
from torch import Tensor

from app.sae.acts import Acts
from app.sae.linear import Linear, gather


@dataclass(frozen=True, eq=False, kw_only=True)
class Gated(Linear):
    """u = (x - b_dec) W_enc; f = 1[u + b_gate > 0] relu(exp(r_mag) u + b_mag). b_enc is not used and is 0.

    b_gate, b_mag, r_mag: [n] fp32.
    """

    b_gate: Tensor
    b_mag: Tensor
    r_mag: Tensor

    @torch.inference_mode()
    def encode(self, x: Tensor) -> Acts:
        """x: [positions, d_in] -> Acts."""
        return gather(len(x), ((first, *self._gate(first, u)) for first, u in self.blocks(x)))

    def _gate(self, first: int, u: Tensor) -> tuple[Tensor, Tensor]:
        """Magnitudes, and where they count."""
        part = slice(first, first + u.shape[1])
        magnitude = torch.addcmul(self.b_mag[part], self.r_mag[part].exp(), u)
        return magnitude, (u > -self.b_gate[part]) & (magnitude > 0)
