"""Gradients in a subject in bf16 on a CPU."""

import pytest
import torch
from torch.nn.functional import cross_entropy, scaled_dot_product_attention

from app.subject.backward import AttentionInFp32
from app.train.activations import ROWS, loss_gradient


def heads(dtype, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(2, 3, 20, 16, generator=generator).to(dtype).requires_grad_() for _ in range(3)]


def attend(dtype, **given):
    q, k, v = heads(dtype)
    with AttentionInFp32():
        out = scaled_dot_product_attention(q, k, v, is_causal=True, **given)
    return out, torch.autograd.grad(out.float().square().sum(), (q, k, v))


def test_attention_of_bf16_is_that_of_fp32_rounded_once():
    out, gradients = attend(torch.bfloat16)
    q, k, v = (one.detach().float().requires_grad_() for one in heads(torch.bfloat16))
    exact = scaled_dot_product_attention(q, k, v, is_causal=True)
    assert out.dtype == torch.bfloat16
    assert torch.equal(out, exact.bfloat16())
    slope = 2 * out.detach().float()  # what flows back is rounded to bf16 on its way in and once more on its way out
    expected = torch.autograd.grad(exact, (q, k, v), slope.bfloat16().float())
    assert all(torch.equal(a, b.bfloat16()) for a, b in zip(gradients, expected, strict=True))


@pytest.mark.parametrize("mask", [False, True])
def test_a_mask_of_bf16_goes_with_it(mask):
    q, k, v = heads(torch.bfloat16)
    hidden = torch.zeros(20, 20).masked_fill(torch.ones(20, 20).triu(1).bool(), float("-inf"))
    given = {"attn_mask": hidden.bfloat16()} if mask else {"is_causal": True}
    with AttentionInFp32():
        out = scaled_dot_product_attention(query=q, key=k, value=v, **given)
    exact = scaled_dot_product_attention(q.float(), k.float(), v.float(), is_causal=True)
    assert torch.equal(out, exact.bfloat16())


def test_attention_in_fp32_is_left_alone():
    out, _ = attend(torch.float32)
    q, k, v = heads(torch.float32)
    assert torch.equal(out, scaled_dot_product_attention(q, k, v, is_causal=True))


def test_the_slope_of_the_loss_is_autograds_over_several_blocks():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2 * ROWS + 5, 50, generator=generator).requires_grad_()
    targets = torch.randint(0, 50, (len(logits),), generator=generator)
    targets[::7] = -1
    loss = cross_entropy(logits, targets, ignore_index=-1, reduction="sum")
    (expected,) = torch.autograd.grad(loss, logits)
    found = loss_gradient(logits.detach(), targets)
    torch.testing.assert_close(found, expected)
    assert found[::7].abs().max() == 0
    assert loss_gradient(logits.detach().bfloat16(), targets).dtype == torch.bfloat16
