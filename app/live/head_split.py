"""A latent on attention outputs, taken apart by head and source token."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from app.errors import AttributionUnsupported, BadRequest, LatentOutOfRange
from app.sae.base import SAE
from app.sae.linear import Linear
from app.subject.hook_names import hook_point
from app.subject.hooks import HookPoint, read_activations


@dataclass(frozen=True)
class HeadSplit:
    """pieces: [heads, sources] fp32, what each head brings from each token up to the position. Their sum is
    pre_act - bias, but for the rounding of a subject in bf16."""

    pieces: Tensor
    bias: float
    pre_act: float


@torch.inference_mode()
def head_split(model: nn.Module, sae: SAE, token_ids: Sequence[int], position: int, latent: int) -> HeadSplit:
    """Direct feature attribution by head and source (Kissane et al. 2024, "Interpreting Attention Layer Outputs with
    Sparse Autoencoders"): the input of the SAE is every head's z_h = sum over sources s of A_h[position, s] v_h[s], so
    with w the latent's encoder column on the scale of that input the piece (h, s) is A_h[position, s] v_h[s] . w_h.

    Attention weights and the normalisation's scale are held. pre_act is the affine encoder's, before any gate.

    Raises:
        BadRequest, LatentOutOfRange: a position or a latent that is not there.
        AttributionUnsupported: no SAE of attention outputs with an affine encoder, or an attention that is not a sum of
            values known here.
    """
    heads = sae.config.heads
    if heads is None or not isinstance(sae, Linear):
        raise AttributionUnsupported(
            "Only an SAE of attention outputs with an affine encoder is split by head and source; this one is "
            f"{sae.config.architecture} on {', '.join(sae.config.reads)}."
        )
    if not 0 <= position < len(token_ids):
        raise BadRequest(f"Position {position} is not in the text; it has {len(token_ids)} tokens, from 0.")
    if not 0 <= latent < sae.config.n_latents:
        raise LatentOutOfRange(f"There is no latent {latent}; the SAE has 0 to {sae.config.n_latents - 1}.")
    z, weights, values = _attention(model, hook_point(sae.config.reads[0], model), token_ids[: position + 1])
    _check(z, weights, values)
    w = sae.W_enc[:, latent].float()
    own = sae.normalise.onto(w, z[None])[0]
    pieces = weights * torch.einsum("shd,hd->hs", values, own.unflatten(0, (heads, -1)))
    bias = float(sae.b_enc[latent]) - (float(sae.b_dec @ w) if sae.subtract_b_dec else 0.0)
    return HeadSplit(pieces, bias, float(sae.centred(z[None])[0] @ w) + float(sae.b_enc[latent]))


def _attention(model: nn.Module, point: HookPoint, token_ids: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
    """Of the last token z [heads * d_head] and the attention weights [heads, sources]; of all tokens the values
    [sources, heads, d_head]; fp32."""
    path = point.module.rpartition(".")[0]
    attention, whole = model.get_submodule(path), HookPoint(path, "out")
    names = dict(attention.named_children())
    made = next((HookPoint(f"{path}.{name}", "out") for name in ("v_proj", "c_attn") if name in names), None)
    if made is None or point.side != "in":
        raise AttributionUnsupported(f"{path} has neither v_proj nor c_attn, so its values cannot be read.")
    kept: list[Tensor | None] = []
    output: Any = model.get_output_embeddings()  # type: ignore[operator]
    ids = torch.tensor([token_ids], device=output.weight.device)
    handle = attention.register_forward_hook(lambda _m, _a, out: kept.append(out[1]))
    try:
        with _eager(model):
            found = read_activations(model, ids, [made, point, whole])
    finally:
        handle.remove()
    if kept[0] is None:
        raise AttributionUnsupported(f"{path} gives no attention weights.")
    weights, z, values = kept[0][0, :, -1].float(), found[point][0, -1].float(), found[made][0].float()
    if made.module.endswith("c_attn"):
        values = values.chunk(3, dim=-1)[2]  # queries, keys, values side by side
    values = values.unflatten(-1, (-1, len(z) // len(weights)))
    return z, weights, values.repeat_interleave(len(weights) // values.shape[1], dim=1)  # grouped queries share values


def _check(z: Tensor, weights: Tensor, values: Tensor) -> None:
    made = torch.einsum("hs,shd->hd", weights, values).flatten()
    if float((made - z).norm()) > 0.02 * float(z.norm()) + 1e-6:
        raise AttributionUnsupported(
            "The attention's output is not its weights times its values (values normed or gated on the way), so it "
            "cannot be split by head and source."
        )


@contextmanager
def _eager(model: Any) -> Iterator[None]:
    """The attention that tells its weights, and then again the one the subject had."""
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(before)
