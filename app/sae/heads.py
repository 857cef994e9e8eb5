"""SAEs on attention outputs (Kissane et al. 2024, "Interpreting Attention Layer Outputs with Sparse Autoencoders"):
the input is all heads' outputs side by side, so a decoder row says which heads a latent writes."""

from torch import Tensor


def per_head_norms(W_dec: Tensor, heads: int) -> Tensor:
    """W_dec: [n, heads * d_head] -> [n, heads] fp32, the norm of each latent's decoder row within each head."""
    norms: Tensor = W_dec.float().unflatten(1, (heads, -1)).norm(dim=2)
    return norms


def per_head_shares(W_dec: Tensor, heads: int) -> Tensor:
    """[n, heads] fp32: each head's share of the squared norm of the latent's decoder row; rows sum to 1."""
    squares = per_head_norms(W_dec, heads).pow(2)
    return squares / squares.sum(1, keepdim=True).clamp_min(1e-30)
