"""Gradients in a subject whose weights are in bf16, on a CPU."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode


class AttentionInFp32(TorchFunctionMode):
    """Within it, scaled dot-product attention of bf16 tensors on a CPU is computed in fp32, and cast back.

    torch has no fast product of bf16 in the backward of it: for 8 sequences of 128 tokens, 9 heads of 64, that takes
    50 ms in bf16 and 16 in fp32 (2 cores of an Intel Xeon with AMX); the forward takes the same in both.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is not scaled_dot_product_attention or not _slow([*args[:3], *kwargs.values()]):
            return func(*args, **kwargs)
        given: Mapping[str, Any] = {name: _fp32(value) for name, value in kwargs.items()}
        return func(*map(_fp32, args), **given).bfloat16()


def _slow(values: Iterable[Any]) -> bool:
    """Whether the first tensor is in bf16 on a CPU."""
    first = next((value for value in values if isinstance(value, Tensor)), None)
    return first is not None and first.dtype == torch.bfloat16 and first.device.type == "cpu"


def _fp32(value: Any) -> Any:
    return value.float() if isinstance(value, Tensor) and value.dtype == torch.bfloat16 else value
