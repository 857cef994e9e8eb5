"""What most families share: an affine encoder, an affine decoder, and encoding in blocks of latents."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from app.sae.acts import Acts
from app.sae.base import SAEConfig
from app.sae.normalise import Normalisation

BLOCK_ELEMENTS = 1 << 26  # pre-activations held at once: 256 MiB in fp32
DENSE_SHARE = 0.12  # above this share of active entries a dense product beats gathering rows (benchmarks/encode.py)


class Block(NamedTuple):
    """Pre-activations of the latents ``first`` to ``first + width``: pre_acts [positions, width] in W_enc's dtype."""

    first: int
    pre_acts: Tensor


@dataclass(frozen=True, eq=False)
class Linear:
    """W_enc [d_in, n], b_enc [n], W_dec [n, d_out], b_dec [d_out], W_skip [d_out, d_in] or None.

    pre_acts = (n(x) - s b_dec) W_enc + b_enc and x_hat = undo(f W_dec + b_dec) + x W_skip^T, where n is
    ``normalise`` and s says ``subtract_b_dec`` (SAELens: apply_b_dec_to_input). Matrices may be bf16 (``halved``):
    products, pre-activations and the choice of latents are then bf16 too, so nothing of the size of the
    pre-activations is held in fp32; biases and what comes out are fp32.
    """

    config: SAEConfig
    W_enc: Tensor
    b_enc: Tensor
    W_dec: Tensor
    b_dec: Tensor
    subtract_b_dec: bool = True
    normalise: Normalisation = Normalisation()
    W_skip: Tensor | None = None

    @cached_property
    def decoder_norms(self) -> Tensor:
        """[n] fp32, the length of each decoder row; taken once, for it costs as much as reading W_dec."""
        lengths: Tensor = self.W_dec.float().norm(dim=1)
        return lengths

    def centred(self, x: Tensor) -> Tensor:
        """The encoder's input: [positions, d_in] fp32."""
        x = self.normalise.into(x.float())
        return x - self.b_dec if self.subtract_b_dec else x

    def blocks(self, x: Tensor) -> Iterator[Block]:
        """Pre-activations of ``x`` in blocks of latents, each at most BLOCK_ELEMENTS large."""
        inner, n = self.centred(x).to(self.W_enc.dtype), self.W_enc.shape[1]
        width = max(1, min(n, BLOCK_ELEMENTS // max(len(inner), 1)))
        for first in range(0, n, width):
            part = slice(first, first + width)
            bias = self.b_enc[part].to(self.W_enc.dtype)
            yield Block(first, torch.addmm(bias, inner, self.W_enc[:, part]))

    def runs(self, x: Tensor) -> Iterator[Tensor]:
        """``x`` in runs of positions whose pre-activations of all latents fit BLOCK_ELEMENTS, for families that need
        a position's pre-activations at once."""
        rows = max(1, BLOCK_ELEMENTS // self.W_enc.shape[1])
        yield from x.split(rows) if len(x) else (x,)

    @torch.inference_mode()
    def decode(self, acts: Acts, x: Tensor) -> Tensor:
        """acts of ``x``: [positions, d_in] -> reconstruction [positions, d_out] fp32."""
        x = x.float()
        out = self.normalise.back(weighted_rows(acts, self.W_dec) + self.b_dec, x)
        return out if self.W_skip is None else out + x @ self.W_skip.float().T

    def to(self, device: Any) -> Self:
        made: Self = moved(self, device)
        return made


def moved(sae: Any, device: Any) -> Any:
    """A dataclass with its tensors on ``device``."""
    tensors = {f.name: getattr(sae, f.name) for f in fields(sae)}
    return replace(sae, **{name: v.to(device) for name, v in tensors.items() if isinstance(v, Tensor)})


def halved(sae: Any) -> Any:
    """The same SAE with its matrices in bf16: half the memory and, where the hardware multiplies bf16, faster; values
    are rounded to 8 bits, so latents at the edge of the choice may differ."""
    made = {f.name: getattr(sae, f.name) for f in fields(sae) if f.name in ("W_enc", "W_dec", "W_glu")}
    return replace(
        sae, **{n: v.bfloat16() for n, v in made.items() if isinstance(v, Tensor) and isinstance(sae, Linear)}
    )


def gather(n_positions: int, blocks: Iterable[tuple[int, Tensor, Tensor]]) -> Acts:
    """Acts from blocks (first latent, values [positions, width], active [positions, width] bool)."""
    parts = []
    for first, values, active in blocks:
        cell = _true_cells(active)
        position = cell // values.shape[1]
        parts.append((position, cell - position * values.shape[1] + first, values.reshape(-1)[cell].float()))
    if len(parts) == 1:
        return Acts(*parts[0], n_positions)
    position, latent, value = (torch.cat(column) for column in zip(*parts, strict=True))
    order = position.argsort(stable=True)  # blocks come in the order of latents, so each position's stay sorted
    return Acts(position[order], latent[order], value[order], n_positions)


def _true_cells(mask: Tensor) -> Tensor:
    """The numbers of the true cells, row by row: [nnz] int64. On a CPU numpy finds them twice as fast."""
    if mask.device.type == "cpu":
        return torch.from_numpy(np.flatnonzero(mask.numpy()))
    return mask.reshape(-1).nonzero()[:, 0]


def weighted_rows(acts: Acts, W: Tensor) -> Tensor:
    """Sum over each position's active latents of value * W[latent]: [positions, d] fp32."""
    if len(acts.value) > DENSE_SHARE * acts.n_positions * len(W):
        return acts.dense(len(W)) @ W.float()
    latent, table = acts.latent, W
    if W.dtype != torch.float32:
        used, latent = acts.latent.unique(return_inverse=True)
        table = W[used].float()
    summed: Tensor = torch.nn.functional.embedding_bag(
        latent, table, acts.offsets(), mode="sum", per_sample_weights=acts.value.float()
    )
    return summed
