"""TopK SAEs (Gao et al. 2024) and their kin: AbsTopK, signed TopK, vSAE's means, g-SAE at inference."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from app.sae.acts import Acts, from_rows
from app.sae.linear import Block, Linear


@dataclass(frozen=True, eq=False, kw_only=True)
class TopK(Linear):
    """Of each position the ``k`` latents with the largest pre-activations, relu'd where ``relu``.

    ``by_magnitude`` chooses by absolute value and keeps the sign (AbsTopK; sparsify's old signed flag).
    With ``rescale_by_decoder_norm`` the choice is by ``pre_acts * norm(W_dec)``, those products are the
    activations, and decoding divides by the norms again (SAELens: rescale_acts_by_decoder_norm).
    """

    k: int
    relu: bool = True
    by_magnitude: bool = False
    rescale_by_decoder_norm: bool = False

    @torch.inference_mode()
    def encode(self, x: Tensor) -> Acts:
        """x: [positions, d_in] -> Acts, at most k a position."""
        blocks = self.blocks(x)
        if self.rescale_by_decoder_norm:
            scale = self.decoder_norms
            blocks = (Block(first, a * scale[first : first + a.shape[1]]) for first, a in blocks)
        values, latents = largest(blocks, self.k, by_magnitude=self.by_magnitude)
        values = values.float()
        return from_rows(values.relu() if self.relu else values, latents)

    @torch.inference_mode()
    def decode(self, acts: Acts, x: Tensor) -> Tensor:
        if self.rescale_by_decoder_norm:
            acts = acts._replace(value=acts.value / self.decoder_norms[acts.latent])
        return super().decode(acts, x)


def largest(blocks: Iterable[Block], k: int, *, by_magnitude: bool = False) -> tuple[Tensor, Tensor]:
    """The k largest pre-activations of each position over all blocks: values and latents, both [positions, k]."""
    values, latents = None, None
    for first, pre_acts in blocks:
        score = pre_acts.abs() if by_magnitude else pre_acts
        chosen = score.topk(min(k, score.shape[1]), dim=1, sorted=False).indices
        found = pre_acts.gather(1, chosen)
        if values is None or latents is None:
            values, latents = found, chosen + first
            continue
        values, latents = torch.cat([values, found], 1), torch.cat([latents, chosen + first], 1)
        score = values.abs() if by_magnitude else values
        kept = score.topk(min(k, score.shape[1]), dim=1, sorted=False).indices
        values, latents = values.gather(1, kept), latents.gather(1, kept)
    assert values is not None
    assert latents is not None
    return values, latents
