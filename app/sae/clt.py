"""Cross-layer transcoders (Ameisen et al. 2025, "Circuit Tracing"): latents of layer i write layers i and above."""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor

from app.sae.acts import Acts
from app.sae.base import SAEConfig
from app.sae.linear import gather, weighted_rows


@dataclass(frozen=True, eq=False, kw_only=True)
class CLT:
    """h_i = x_i W_enc[i] + b_enc[i]; f_i = act(h_i g_i) / g_i with g the gate norms, or act(h_i) without them;
    y_l = sum over i <= l of f_i W_dec_to[l][i] + b_dec[l].

    Latent ``i * n + j`` is the j-th of layer i. x: [positions, L d], the layers' inputs side by side; the output is
    the layers' outputs side by side. W_enc [L, d, n], b_enc [L, n], W_dec_to[l] [l + 1, n, d], b_dec [L, d].
    act: relu; jumprelu with threshold [L, n]; topk, k of each layer; layertopk, k of all layers together.
    gate: [L, n] (OpenMOSS: the norm over all layers written).
    """

    config: SAEConfig
    W_enc: Tensor
    b_enc: Tensor
    W_dec_to: tuple[Tensor, ...]
    b_dec: Tensor
    act: Literal["relu", "jumprelu", "topk", "layertopk"] = "relu"
    threshold: Tensor | None = None
    k: int | None = None
    gate: Tensor | None = None

    @cached_property
    def W_dec(self) -> Tensor:
        """[L n, d]: what each latent adds to the residual stream over all layers it writes."""
        n_layers = len(self.W_enc)
        return torch.cat(
            [torch.stack([self.W_dec_to[to][i] for to in range(i, n_layers)]).sum(0) for i in range(n_layers)]
        )

    @torch.inference_mode()
    def encode(self, x: Tensor) -> Acts:
        """x: [positions, L d] -> Acts."""
        layers = x.float().tensor_split(len(self.W_enc), dim=1)
        hidden = torch.stack(
            [torch.addmm(b, x_i, W) for x_i, W, b in zip(layers, self.W_enc, self.b_enc, strict=True)], dim=1
        )
        scaled = hidden if self.gate is None else hidden * self.gate
        return gather(len(x), [(0, hidden.flatten(1), self._on(scaled).flatten(1))])

    def _on(self, scaled: Tensor) -> Tensor:
        """scaled: [positions, L, n] -> bool of the same shape."""
        match self.act:
            case "relu":
                return scaled > 0
            case "jumprelu":
                assert self.threshold is not None
                return scaled > self.threshold
            case _:
                assert self.k is not None
                rows = scaled if self.act == "topk" else scaled.flatten(1)
                chosen = rows.relu().topk(self.k, dim=-1, sorted=False).indices
                on = torch.zeros_like(rows, dtype=torch.bool).scatter_(-1, chosen, True)
                return on.reshape(scaled.shape) & (scaled > 0)

    @torch.inference_mode()
    def decode(self, acts: Acts, x: Tensor) -> Tensor:
        n, n_layers = self.W_enc.shape[2], len(self.W_enc)
        owner = acts.latent // n
        own = [acts.keep(owner == i) for i in range(n_layers)]
        own = [part._replace(latent=part.latent - i * n) for i, part in enumerate(own)]
        out = []
        for to, W in enumerate(self.W_dec_to):
            summed = self.b_dec[to].expand(acts.n_positions, -1)
            for i in range(to + 1):
                summed = summed + weighted_rows(own[i], W[i])
            out.append(summed)
        return torch.cat(out, dim=1)

    def to(self, device: Any) -> "CLT":
        def move(value: Tensor | None) -> Tensor | None:
            return None if value is None else value.to(device)

        return replace(
            self,
            W_enc=self.W_enc.to(device),
            b_enc=self.b_enc.to(device),
            W_dec_to=tuple(W.to(device) for W in self.W_dec_to),
            b_dec=self.b_dec.to(device),
            threshold=move(self.threshold),
            gate=move(self.gate),
        )
