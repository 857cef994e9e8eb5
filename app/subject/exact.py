"""A subject whose weights are in half precision, computed in fp32."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

ELEMENTS = 1 << 26  # 256 MiB in fp32

_HALF = (torch.bfloat16, torch.float16)
_MIXED = frozenset(
    [
        functional.linear, functional.layer_norm, functional.rms_norm, functional.group_norm, functional.conv1d,
        functional.scaled_dot_product_attention, torch.matmul, Tensor.matmul, Tensor.__matmul__, Tensor.__rmatmul__,
        torch.mm, Tensor.mm, torch.bmm, Tensor.bmm, torch.addmm, Tensor.addmm, torch.baddbmm, Tensor.baddbmm,
        torch.einsum,
    ]
)  # fmt: skip


@contextmanager
def in_fp32(model: nn.Module) -> Iterator[None]:
    """Inside the block the model's forward, and the backward of what it gave, are computed in fp32, with the weights as
    they are stored; nothing changes where those are fp32 already.

    A bf16 forward rounds each activation to 8 bits, which moves a logit by about 0.1: as much as one latent does.
    Weights are widened where they are used, ``ELEMENTS`` of a matrix at a time.
    """
    embeddings: Any = model.get_input_embeddings()  # type: ignore[operator]
    if embeddings.weight.dtype not in _HALF:
        yield
        return
    handle = embeddings.register_forward_hook(lambda _module, _args, out: out.float())
    try:
        with _Widened():
            yield
    finally:
        handle.remove()


class _Widened(TorchFunctionMode):
    """Products of an fp32 tensor with one in half precision, which torch refuses, are made in fp32."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func not in _MIXED or not _mixed([*args, *kwargs.values()]):
            return func(*args, **kwargs)
        if func is functional.linear:
            return _Linear.apply(*_linear(*args, **kwargs))  # type: ignore[no-untyped-call]
        given: Mapping[str, Any] = {name: _fp32(value) for name, value in kwargs.items()}
        return func(*map(_fp32, args), **given)


class _Linear(torch.autograd.Function):
    """x W^T + b, whose backward widens the weight again in place of keeping it wide; weights get no gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(weight)
        out = torch.cat([functional.linear(x, part.float()) for part in _parts(weight)], dim=-1)
        return out if bias is None else out + bias.float()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (weight,) = ctx.saved_tensors
        parts = _parts(weight)
        of = gradients[0].split([len(part) for part in parts], dim=-1)
        moved = [gradient @ part.float() for gradient, part in zip(of, parts, strict=True)]
        return torch.stack(moved).sum(0) if len(moved) > 1 else moved[0], None, None


def _parts(weight: Tensor) -> tuple[Tensor, ...]:
    """weight: [out, in], in runs of rows."""
    parts: tuple[Tensor, ...] = weight.split(max(1, ELEMENTS // weight.shape[1]))
    return parts


def _linear(
    input: Tensor,  # noqa: A002  (as functional.linear names it)
    weight: Tensor,
    bias: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor | None]:
    return input.float(), weight, bias


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)


def _mixed(values: Iterable[Any]) -> bool:
    found = {tensor.dtype for tensor in _tensors(values)}
    return torch.float32 in found and not found.isdisjoint(_HALF)


def _fp32(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return type(value)(map(_fp32, value))
    return value.float() if isinstance(value, Tensor) and value.dtype in _HALF else value
