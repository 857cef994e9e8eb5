"""OpenMOSS Language-Model-SAEs and Llama Scope: the gate sees pre-activations times the decoder norms."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from app.sae.acts import Acts, from_rows
from app.sae.linear import Block, Linear, gather
from app.sae.topk import largest


@dataclass(frozen=True, eq=False, kw_only=True)
class NormGated(Linear):
    """h = x W_enc + b_enc, times sigmoid(x W_glu + b_glu) where there is a GLU; f = act(h n) / n with n the norms of
    the decoder rows where ``include_decoder_norm`` (sparsity_include_decoder_norm), else act(h).

    act: relu; jumprelu, a 1[a > threshold]; or topk, the ``k`` largest of relu(a). threshold: [n] or [] fp32.
    W_glu [d_in, n], b_glu [n].
    """

    act: Literal["relu", "jumprelu", "topk"]
    include_decoder_norm: bool = True
    threshold: Tensor | None = None
    k: int | None = None
    W_glu: Tensor | None = None
    b_glu: Tensor | None = None

    @torch.inference_mode()
    def encode(self, x: Tensor) -> Acts:
        """x: [positions, d_in] -> Acts."""
        n = self.W_enc.shape[1]
        scale = self.decoder_norms if self.include_decoder_norm else torch.ones(n, device=x.device)
        hidden = self._hidden(x)
        if self.act == "topk":
            assert self.k is not None
            scaled = (Block(first, (h * scale[first : first + h.shape[1]]).relu()) for first, h in hidden)
            values, latents = largest(scaled, self.k)
            values = values.float()
            return from_rows(torch.where(values > 0, values / scale[latents], 0), latents)
        if self.act == "relu":
            return gather(len(x), ((first, h, h > 0) for first, h in hidden))
        assert self.threshold is not None
        threshold = self.threshold.expand(n)
        return gather(len(x), ((b.first, b.pre_acts, _active(b, scale, threshold)) for b in hidden))

    def _hidden(self, x: Tensor) -> Iterator[Block]:
        if self.W_glu is None or self.b_glu is None:
            yield from self.blocks(x)
            return
        inner = self.centred(x)
        for first, a in self.blocks(x):
            part = slice(first, first + a.shape[1])
            yield Block(first, a * torch.sigmoid(inner @ self.W_glu[:, part].float() + self.b_glu[part]))


def _active(block: Block, scale: Tensor, threshold: Tensor) -> Tensor:
    part = slice(block.first, block.first + block.pre_acts.shape[1])
    return block.pre_acts * scale[part] > threshold[part]
