"""The subject with some of its activations replaced: what a reconstruction, or nothing at all, does to its output."""

from functools import partial

import torch
from torch import Tensor, nn

from app.subject.hooks import HookPoint
from app.subject.stream import rewrite


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
    try:
        for point, value in replaced.items():
            handles += rewrite(model, point, partial(_swap, value, where))
        logits: Tensor = model(input_ids=token_ids, attention_mask=attention, use_cache=False).logits
    finally:
        for handle in handles:
            handle.remove()
    return logits.float()


def _swap(value: Tensor, where: Tensor, x: Tensor) -> Tensor:
    """``x`` with ``value`` at the positions ``where``."""
    return torch.where(where[..., None], value.to(x.dtype), x)
