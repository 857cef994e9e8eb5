"""TopK SAEs (Gao et al. 2024): relu of the pre-activations, kept where among the token's k largest."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from app.sae.acts import Acts, from_rows
from app.sae.base import SAEConfig


@dataclass(frozen=True, eq=False)
class TopK:
    """W_enc [d_in, n], b_enc [n], W_dec [n, d_in], b_dec [d_in], all fp32.

    ``subtract_b_dec`` is SAELens's apply_b_dec_to_input. With ``rescale_by_decoder_norm`` the k largest are
    chosen by ``pre_acts * norm(W_dec)``, those products are the activations, and decoding divides them by the
    norms again (SAELens's rescale_acts_by_decoder_norm).
    """

    config: SAEConfig
    W_enc: Tensor
    b_enc: Tensor
    W_dec: Tensor
    b_dec: Tensor
    k: int
    subtract_b_dec: bool = True
    rescale_by_decoder_norm: bool = False

    @torch.inference_mode()
    def encode(self, x: Tensor) -> Acts:
        """x: [positions, d_in] -> Acts; computed in fp32."""
        x = x.float()
        if self.subtract_b_dec:
            x = x - self.b_dec
        pre_acts = torch.addmm(self.b_enc, x, self.W_enc)
        if self.rescale_by_decoder_norm:
            pre_acts = pre_acts * self.W_dec.norm(dim=1)
        values, latents = pre_acts.topk(self.k, dim=1, sorted=False)
        return from_rows(values.relu(), latents)

    @torch.inference_mode()
    def decode(self, acts: Acts) -> Tensor:
        W_dec = self.W_dec
        if self.rescale_by_decoder_norm:
            W_dec = W_dec / W_dec.norm(dim=1, keepdim=True)
        summed = torch.nn.functional.embedding_bag(
            acts.latent, W_dec, acts.offsets(), mode="sum", per_sample_weights=acts.value
        )
        return summed + self.b_dec

    def to(self, device: Any) -> "TopK":
        moved = {name: getattr(self, name).to(device) for name in ("W_enc", "b_enc", "W_dec", "b_dec")}
        return replace(self, **moved)
