"""What must hold of every encoder whatever its weights: permutation, rescaling, sparsity, batches; and pursuit
against a plain matching pursuit."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from app.sae import linear
from app.sae.acts import Acts
from tests.families import FAMILIES, N, make

seeds = st.integers(0, 2**31 - 1)
FREE = [
    "relu", "relu-layer-norm", "jumprelu", "topk", "topk-rescaled", "vsae", "abstopk", "gated", "top-afa", "quantised",
    "norm-gated", "matching-pursuit", "matching-pursuit-signed", "crosscoder",
]  # fmt: skip
LATENT_DIMENSION = {"W_enc": 1, "b_enc": 0, "W_dec": 0, "threshold": 0, "b_gate": 0, "b_mag": 0, "r_mag": 0,
                    "W_glu": 1, "b_glu": 0}  # fmt: skip


def inputs(sae, seed, rows=7):
    scale = 0.3 if sae.config.architecture != "matching-pursuit" else 1.0
    return scale * torch.randn(rows, sae.config.d_in, generator=torch.Generator().manual_seed(seed))


def permuted(sae, order):
    moved = {}
    for name, dimension in LATENT_DIMENSION.items():
        value = getattr(sae, name, None)
        if isinstance(value, torch.Tensor) and value.ndim > dimension:
            moved[name] = value.index_select(dimension, order)
    return replace(sae, **moved)


@pytest.mark.parametrize("name", FREE)
@settings(max_examples=15, deadline=None)
@given(seed=seeds)
def test_permuting_latents_permutes_activations(name, seed):
    sae = make(name)
    order = torch.randperm(N, generator=torch.Generator().manual_seed(seed))
    x = inputs(sae, seed)
    acts, moved = sae.encode(x), permuted(sae, order).encode(x)
    assert torch.allclose(moved.dense(N), acts.dense(N)[:, order], atol=1e-6)
    assert torch.allclose(permuted(sae, order).decode(moved, x), sae.decode(acts, x), atol=1e-5)


@pytest.mark.parametrize("name", ["relu", "relu-layer-norm", "norm-gated", "transcoder"])
@settings(max_examples=15, deadline=None)
@given(seed=seeds)
def test_scaling_an_encoder_and_its_decoder_row_against_each_other_leaves_the_reconstruction(name, seed):
    sae = make(name)
    if name == "norm-gated":  # its GLU multiplies h, so scaling W_enc and b_enc still scales h
        assert sae.include_decoder_norm
    x = inputs(sae, seed)
    c = torch.rand(N, generator=torch.Generator().manual_seed(seed)) * 3 + 0.3
    scaled = replace(sae, W_enc=sae.W_enc * c, b_enc=sae.b_enc * c, W_dec=sae.W_dec / c[:, None])
    one, two = sae.encode(x), scaled.encode(x)
    assert torch.equal(one.latent, two.latent)
    assert torch.allclose(sae.decode(one, x), scaled.decode(two, x), atol=1e-5)


@pytest.mark.parametrize("name", FAMILIES)
@settings(max_examples=8, deadline=None)
@given(seed=seeds, cut=st.integers(0, 9))
def test_splitting_a_batch_changes_nothing_and_entries_are_sorted(name, seed, cut):
    sae = make(name)
    x = inputs(sae, seed, rows=9)
    whole = sae.encode(x)
    key = whole.position * sae.config.n_latents + whole.latent
    assert (key.diff() > 0).all()
    assert (whole.value != 0).all()
    parts = [sae.encode(part) for part in (x[:cut], x[cut:])]
    joined = torch.cat([part.dense(sae.config.n_latents) for part in parts])
    assert torch.allclose(whole.dense(sae.config.n_latents), joined, atol=1e-6)
    hats = torch.cat([sae.decode(part, rows) for part, rows in zip(parts, (x[:cut], x[cut:]), strict=True)])
    assert torch.allclose(sae.decode(whole, x), hats, atol=1e-5)
    k = getattr(sae, "k", None) or getattr(sae, "steps", None)
    if k and sae.config.architecture != "clt":
        assert torch.bincount(whole.position, minlength=9).max() <= k


@pytest.mark.parametrize("name", FAMILIES)
def test_blocks_of_latents_are_seamless(name, monkeypatch):
    """Encoding in blocks of a few latents gives what one block gives."""
    sae = make(name)
    x = inputs(sae, 5)
    whole = sae.encode(x)
    monkeypatch.setattr(linear, "BLOCK_ELEMENTS", 7 * 11)
    pieces = sae.encode(x)
    assert torch.equal(whole.latent, pieces.latent)
    assert torch.equal(whole.position, pieces.position)
    assert torch.allclose(whole.value, pieces.value, atol=1e-6)


@pytest.mark.parametrize("name", ["relu", "jumprelu", "topk", "abstopk", "gated", "groupmax", "top-afa", "norm-gated"])
def test_matrices_in_bf16_stay_bf16_and_come_close(name):
    sae = make(name)
    half = linear.halved(sae)
    assert half.W_enc.dtype == half.W_dec.dtype == torch.bfloat16
    x = inputs(sae, 3, rows=40)
    assert next(iter(half.blocks(x))).pre_acts.dtype == torch.bfloat16
    one, two = sae.encode(x), half.encode(x)
    assert two.value.dtype == torch.float32
    strong = one.dense(N).abs() > 0.3
    both = strong & (two.dense(N) != 0)
    assert both.sum() >= 0.9 * strong.sum()  # rounding decides at the edge of the choice
    assert (two.dense(N)[both] - one.dense(N)[both]).abs().max() < 0.05
    assert half.decode(two, x).dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gathering_rows_and_the_dense_product_agree(dtype, monkeypatch):
    g = torch.Generator().manual_seed(0)
    W = torch.randn(50, 6, generator=g).to(dtype)
    dense = torch.randn(8, 50, generator=g) * (torch.rand(8, 50, generator=g) < 0.3)
    position, latent = dense.nonzero(as_tuple=True)
    acts = Acts(position, latent, dense[position, latent], 8)
    made = []
    for share in (0.0, 1.0):
        monkeypatch.setattr(linear, "DENSE_SHARE", share)
        made.append(linear.weighted_rows(acts, W))
    assert torch.allclose(made[0], made[1], atol=1e-5)
    assert torch.allclose(made[0], dense @ W.float(), atol=1e-5)


def plain_pursuit(x, W, steps, relu):
    """Matching pursuit (Mallat and Zhang 1993) without normalising by the atoms' norms, position by position."""
    code, order = np.zeros((len(x), len(W)), np.float32), []
    for row, r in enumerate(x.copy()):
        chosen = []
        for _ in range(steps):
            products = W @ r
            if relu:
                products = np.maximum(products, 0)
            j = int(np.argmax(products))
            if relu and products[j] == 0:
                break
            repeated = j in chosen
            code[row, j] += products[j]
            r -= products[j] * W[j]
            chosen.append(j)
            if relu and repeated:
                break
        order.append(chosen)
    return code, order


@pytest.mark.parametrize("name", ["matching-pursuit", "matching-pursuit-signed"])
@settings(max_examples=20, deadline=None)
@given(seed=seeds)
def test_pursuit_is_matching_pursuit(name, seed):
    sae = make(name)
    x = inputs(sae, seed)
    code, order = plain_pursuit(x.numpy(), sae.W_dec.numpy(), sae.steps, sae.relu)
    assert np.allclose(sae.encode(x).dense(N).numpy(), code, atol=1e-5)
    assert [[j for j in row if j >= 0] for row in sae.pursue(x).latent.tolist()] == order
