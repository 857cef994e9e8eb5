"""Crosscoders (Lindsey et al. 2024): one set of latents reads several hook points and writes them all.

With the layers side by side, x [positions, L d], a crosscoder without gating is an ordinary SAE: ReLU, JumpReLU
and TopK serve. OpenMOSS's gates each layer by its own decoder norm, so a latent may write some layers only.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from app.sae.acts import Acts, joined
from app.sae.linear import Linear, gather, weighted_rows

CHUNK = 256


@dataclass(frozen=True, eq=False, kw_only=True)
class Crosscoder(Linear):
    """h = x W_enc + b_enc over all L layers; layer l sees f_l = act(h n_l) / n_l with n_l the norms of W_dec's
    rows in that layer, and x_hat_l = f_l W_dec[l] + b_dec[l]. ``encode`` gives h where any layer is on: f_l follows
    from it, so nothing needs to be kept.

    act: relu; jumprelu with threshold [n], [L, n] or []; topk with ``k`` for each layer.
    """

    layers: int
    act: Literal["relu", "jumprelu", "topk"]
    threshold: Tensor | None = None
    k: int | None = None

    @torch.inference_mode()
    def encode(self, x: Tensor) -> Acts:
        """x: [positions, L d] -> Acts."""
        return joined([self._run(rows) for rows in self.runs(x)])

    def _run(self, x: Tensor) -> Acts:
        hidden = torch.cat([a for _, a in self.blocks(x)], dim=1).float()
        return gather(len(x), [(0, hidden, self._on(hidden).any(0))])

    @torch.inference_mode()
    def decode(self, acts: Acts, x: Tensor) -> Tensor:
        layers = self.W_dec.tensor_split(self.layers, dim=1)
        out = [
            torch.cat([weighted_rows(part.keep(on), W) for on, W in zip(self._open(part), layers, strict=True)], 1)
            for part in _chunks(acts)
        ]
        summed = torch.cat(out) if out else x.new_zeros(0, self.W_dec.shape[1])
        return self.normalise.back(summed + self.b_dec, x.float())

    @torch.inference_mode()
    def gates(self, acts: Acts) -> Tensor:
        """Which layers each entry writes: [L, nnz] bool."""
        none = torch.zeros(self.layers, 0, dtype=torch.bool, device=acts.value.device)
        return torch.cat([none, *(self._open(part) for part in _chunks(acts))], dim=1)

    def _open(self, acts: Acts) -> Tensor:
        """``gates`` of a few positions: it holds all latents of each."""
        return self._on(acts.dense(self.W_enc.shape[1]))[:, acts.position, acts.latent]

    def _on(self, hidden: Tensor) -> Tensor:
        """hidden: [positions, n] -> [L, positions, n] bool: where each layer's gate is open."""
        scaled = hidden * torch.stack(self.layer_norms)[:, None]
        match self.act:
            case "relu":
                return scaled > 0
            case "jumprelu":
                assert self.threshold is not None
                threshold = self.threshold if self.threshold.ndim < 2 else self.threshold[:, None]
                return scaled > threshold
            case "topk":
                assert self.k is not None
                kth = scaled.relu().topk(self.k, dim=2).values[..., -1:]
                return (scaled > 0) & (scaled >= kth)

    @cached_property
    def layer_norms(self) -> list[Tensor]:
        """The norm of each latent's decoder row, layer by layer: L times [n]."""
        return [W.float().norm(dim=1) for W in self.W_dec.tensor_split(self.layers, dim=1)]


def _chunks(acts: Acts) -> Iterator[Acts]:
    """``acts`` in runs of CHUNK positions."""
    for first in range(0, acts.n_positions, CHUNK):
        part = acts.keep((acts.position >= first) & (acts.position < first + CHUNK))
        yield part._replace(position=part.position - first, n_positions=min(CHUNK, acts.n_positions - first))
