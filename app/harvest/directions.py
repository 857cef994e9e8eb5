"""What can be read off the weights: promoted tokens, decoder neighbours, norms."""

from typing import NamedTuple

import torch
from torch import Tensor

from app.sae.base import SAE
from app.subject.hook_names import hook_point
from app.subject.hooks import resolve
from app.subject.load import Subject


def residual_directions(sae: SAE, subject: Subject) -> Tensor | None:
    """[n, d_model]: what one unit of each latent adds to the residual stream at the last place the SAE writes; None
    where that is no place of the stream. An input of a linear layer (hook_z: o_proj's) goes through the layer."""
    W_dec, d = sae.W_dec.float(), subject.d_model
    writes = sae.config.writes
    if len(writes) > 1 and W_dec.shape[1] == len(writes) * d:
        return W_dec[:, -d:]
    point = hook_point(writes[-1], subject.model)
    module = resolve(subject.model, point)
    weight = getattr(module, "weight", None)
    if point.side == "in" and isinstance(weight, Tensor) and weight.ndim == 2:
        weight = weight.detach().float()
        through = weight.T if isinstance(module, torch.nn.Linear) else weight  # GPT-2's Conv1D keeps [in, out]
        if through.shape == (W_dec.shape[1], d):
            return W_dec @ through
    return W_dec if W_dec.shape[1] == d else None


class Projection(NamedTuple):
    """The tokens whose logits a latent raises and lowers most; all [n, k], strongest first."""

    promoted_ids: Tensor
    promoted_logits: Tensor
    suppressed_ids: Tensor
    suppressed_logits: Tensor


def project(W_dec: Tensor, unembedding: Tensor, k: int, chunk: int = 256) -> Projection:
    """Direct effect on the logits per unit of activation: W_dec @ unembedding, centred over the vocabulary.

    W_dec: [n, d]; unembedding: [d, vocabulary] with the final norm's gain folded in (logit lens: nostalgebraist
    2020). A logit's mean over the vocabulary changes no probability, so it is taken out. Padding rows of the
    unembedding beyond the tokenizer are the caller's to cut.
    """
    parts = []
    for rows in torch.split(W_dec.float(), chunk):
        logits = rows @ unembedding
        logits -= logits.mean(1, keepdim=True)
        high = logits.topk(k, dim=1)
        low = logits.topk(k, dim=1, largest=False)
        parts.append((high.indices, high.values, low.indices, low.values))
    return Projection(*(torch.cat(column) for column in zip(*parts, strict=True)))


def decoder_neighbours(W_dec: Tensor, k: int, chunk: int = 512) -> tuple[Tensor, Tensor]:
    """The k other latents of highest decoder cosine: (ids [n, k], cosines [n, k]); exact, in fp32."""
    unit = torch.nn.functional.normalize(W_dec.float(), dim=1)
    k = min(k, len(unit) - 1)
    ids, cosines = [], []
    for start in range(0, len(unit), chunk):
        rows = unit[start : start + chunk] @ unit.T
        own = torch.arange(len(rows), device=rows.device)
        rows[own, start + own] = -torch.inf
        best = rows.topk(k, dim=1)
        ids.append(best.indices)
        cosines.append(best.values)
    return torch.cat(ids), torch.cat(cosines)


def encoder_decoder_cosine(W_enc: Tensor, W_dec: Tensor) -> Tensor:
    """W_enc: [d, n], W_dec: [n, d] -> [n], the cosine of each latent's encoder and decoder directions."""
    return torch.nn.functional.cosine_similarity(W_enc.float().T, W_dec.float(), dim=1)
