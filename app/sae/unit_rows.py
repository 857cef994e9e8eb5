"""What one more unit of a latent adds to what the SAE writes: the derivative of ``decode``, in the subject's units."""

import torch
from torch import Tensor

from app.sae.acts import Acts
from app.sae.base import SAE
from app.sae.clt import CLT
from app.sae.crosscoder import Crosscoder
from app.sae.normalise import Normalisation
from app.sae.topk import TopK

CHUNK_ELEMENTS = 1 << 24  # of gathered decoder rows: 64 MiB in fp32


def decoder_row(sae: SAE, latent: int) -> Tensor:
    """[d_out] fp32, all writes side by side: what one unit adds to the reconstruction before the normalisation is
    undone. The row of W_dec, divided by its norm where the SAE's activations hold the norm already; gates of a
    crosscoder's layers count as open."""
    if isinstance(sae, CLT):
        owner, own = divmod(latent, sae.W_enc.shape[2])
        rows = [W[owner, own] if owner <= to else torch.zeros_like(W[0, own]) for to, W in enumerate(sae.W_dec_to)]
        return torch.cat(rows).float()
    row = sae.W_dec[latent].float()
    if isinstance(sae, TopK) and sae.rescale_by_decoder_norm:
        row = row / sae.decoder_norms[latent]
    return row


def unit_row(sae: SAE, latent: int, x: Tensor) -> Tensor:
    """x: [positions, d_in], what was encoded -> [positions, d_out] fp32: ``decoder_row`` stretched as ``decode`` undoes
    the normalisation of each position."""
    return decoder_row(sae, latent) * _normalisation(sae).slope(x)


def pulled_back(sae: SAE, acts: Acts, x: Tensor, gradient: Tensor) -> Tensor:
    """[nnz] fp32: the derivative with respect to each entry's value of sum(decode(acts, x) * gradient), gates held.

    ``decode`` is linear but for gates, so sum(value * this) over a position's entries is
    gradient . (decode(acts, x) - decode(no acts, x)). x: [positions, d_in]; gradient: [positions, d_out].
    """
    gradient = gradient.float()
    if isinstance(sae, CLT):
        return _of_layers(sae, acts, gradient)
    gradient = gradient * _normalisation(sae).slope(x)
    if isinstance(sae, Crosscoder):
        layers = zip(sae.W_dec.tensor_split(sae.layers, 1), gradient.tensor_split(sae.layers, 1), strict=True)
        parts = [_products(W, acts.latent, part, acts.position) for W, part in layers]
        gated: Tensor = (torch.stack(parts) * sae.gates(acts)).sum(0)
        return gated
    pulled = _products(sae.W_dec, acts.latent, gradient, acts.position)
    if isinstance(sae, TopK) and sae.rescale_by_decoder_norm:
        pulled = pulled / sae.decoder_norms[acts.latent]
    return pulled


def _of_layers(sae: CLT, acts: Acts, gradient: Tensor) -> Tensor:
    n, n_layers = sae.W_enc.shape[2], len(sae.W_enc)
    pulled = torch.zeros_like(acts.value)
    for owner in range(n_layers):
        mine = acts.latent // n == owner
        latent, position = acts.latent[mine] - owner * n, acts.position[mine]
        layers = list(zip(sae.W_dec_to, gradient.tensor_split(n_layers, 1), strict=True))[owner:]
        pulled[mine] = torch.stack([_products(W[owner], latent, part, position) for W, part in layers]).sum(0)
    return pulled


def _products(W: Tensor, latent: Tensor, gradient: Tensor, position: Tensor) -> Tensor:
    """W[latent] . gradient[position], entry by entry: [nnz] fp32."""
    rows = max(1, CHUNK_ELEMENTS // W.shape[1])
    pairs = zip(latent.split(rows), position.split(rows), strict=True)
    return torch.cat([(W[j].float() * gradient[p]).sum(1) for j, p in pairs])


def _normalisation(sae: SAE) -> Normalisation:
    return getattr(sae, "normalise", Normalisation())
