"""The subject with some of its activations replaced: what a reconstruction, or nothing at all, does to its output."""

from typing import Any

import torch
from torch import Tensor, nn

from app.errors import SubjectUnavailable
from app.subject.hooks import HookPoint, resolve


@torch.inference_mode()
def logits_with(
    model: nn.Module, token_ids: Tensor, attention: Tensor | None, replaced: dict[HookPoint, Tensor], where: Tensor
) -> Tensor:
    """Logits [sequences, length, vocabulary] fp32 when the activations at each hook point are ``replaced``
    ([sequences, length, d]) at the positions where ``where`` [sequences, length] is true.

    Raises:
        SubjectUnavailable: a hook point of side ``unit``, which nothing downstream reads.
    """
    handles = []
    for point, value in replaced.items():
        module = resolve(model, point)
        if point.side == "unit":
            raise SubjectUnavailable(f"{point} cannot be replaced: it is no module's input or output.")
        if point.side == "out":
            handles.append(module.register_forward_hook(lambda _m, _a, out, v=value: _swap(out, v, where)))
        else:
            handles.append(
                module.register_forward_pre_hook(lambda _m, args, v=value: (_swap(args[0], v, where), *args[1:]))
            )
    try:
        logits: Tensor = model(input_ids=token_ids, attention_mask=attention, use_cache=False).logits
    finally:
        for handle in handles:
            handle.remove()
    return logits.float()


def _swap(out: Any, value: Tensor, where: Tensor) -> Any:
    """``out`` (a tensor, or a tuple that begins with one) with ``value`` at the positions ``where``."""
    first = out[0] if isinstance(out, tuple) else out
    swapped = torch.where(where[..., None], value.to(first.dtype), first)
    return (swapped, *out[1:]) if isinstance(out, tuple) else swapped
