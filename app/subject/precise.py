"""Logits in fp32 of a subject in half precision."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


@contextmanager
def fp32_logits(model: nn.Module) -> Iterator[None]:
    """Inside the block the unembedding is computed in fp32: a logit of 10 in bf16 is rounded to 1/16, which is more
    than most latents do to it. Costs a copy of the unembedding in fp32; nothing where it is fp32 already."""
    head: Any = model.get_output_embeddings()  # type: ignore[operator]
    if head.weight.dtype == torch.float32:
        yield
        return

    weight = head.weight.float()
    bias = None if getattr(head, "bias", None) is None else head.bias.float()

    def again(_module: Any, args: tuple[Tensor, ...], _out: Tensor) -> Tensor:
        return torch.nn.functional.linear(args[0].float(), weight, bias)

    handle = head.register_forward_hook(again)
    try:
        yield
    finally:
        handle.remove()
