"""Where the residual stream runs, and activations replaced so that all that reads them sees it."""

import re
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from app.errors import SubjectUnavailable
from app.subject.hook_names import hook_point, stack_of
from app.subject.hooks import HookPoint, resolve, tap


def rewrite(model: nn.Module, point: HookPoint, change: Callable[[Tensor], Tensor | None]) -> list[RemovableHandle]:
    """Put ``change(x)`` in the place of the activation x [sequences, length, d] at ``point`` in every forward; None
    leaves it.

    Between attention and MLP the stream is no module's value but the norm's input, which the MLP alone reads; what is
    changed there is added to the block's output too, so that the stream carries it on.

    Raises:
        SubjectUnavailable: side ``unit``, which nothing downstream reads.
    """
    if point.side == "unit":
        raise SubjectUnavailable(
            f"{point} cannot be replaced: it is no module's input or output.", hook_point=str(point)
        )
    end = _end_of_block(model, point)
    if end is None:
        return [tap(model, point, change)]
    moved: list[Tensor] = []

    def here(x: Tensor) -> Tensor | None:
        changed = change(x)
        moved[:] = [] if changed is None else [changed.float() - x.float()]
        return changed

    def after(x: Tensor) -> Tensor | None:
        return (x.float() + moved.pop()).to(x.dtype) if moved else None

    return [tap(model, point, here), tap(model, end, after, first=True)]


def _end_of_block(model: nn.Module, point: HookPoint) -> HookPoint | None:
    """The output of the block between whose attention and MLP ``point`` lies; None if it lies elsewhere."""
    layer = layer_of(model, point)
    if layer is None or point != _middle(layer, model):
        return None
    return HookPoint(f"{stack_of(model)}.{layer}", "out")


def layer_of(model: nn.Module, point: HookPoint) -> int | None:
    """The number of the block ``point`` lies in."""
    found = re.match(rf"{re.escape(stack_of(model) or ' ')}\.(\d+)(?:\.|$)", point.module)
    return int(found[1]) if found else None


def adds_to_stream(model: nn.Module, point: HookPoint) -> bool:
    """Whether what is added at ``point`` is added to the residual stream as it is."""
    layer = layer_of(model, point)
    if layer is None:
        return False
    whole = [_named("resid_pre", layer, model), _middle(layer, model), _named("resid_post", layer, model)]
    parts = [_named("attn_out", layer, model), _named("mlp_out", layer, model)]
    scaled = getattr(model.config, "residual_multiplier", 1.0) != 1.0  # Granite's blocks scale what they add
    return point in whole or (point in parts and not scaled)


def along_stream(model: nn.Module, point: HookPoint, gradient: Tensor) -> Tensor | None:
    """What of ``gradient`` [d_model] fp32, taken with respect to the residual stream, reaches ``point`` by the stream
    alone: [d] fp32. The gradient itself where ``point`` adds to the stream; through the last layer of the attention
    or the MLP where it is that layer's input; None elsewhere."""
    if adds_to_stream(model, point):
        return gradient
    layer, part = layer_of(model, point), HookPoint(point.module.rpartition(".")[0], "out")
    inner = layer is not None and point in (_named("attn.hook_z", layer, model), _named("mlp.hook_post", layer, model))
    if not inner or not adds_to_stream(model, part):
        return None
    module: Any = resolve(model, point)
    weight: Tensor = module.weight.detach().float()
    return gradient @ weight if isinstance(module, nn.Linear) else weight @ gradient  # GPT-2's Conv1D keeps [in, out]


def _middle(layer: int, model: nn.Module) -> HookPoint | None:
    """The norm's input between a block's attention and its MLP, where it is the stream: not where both read the same
    (GPT-NeoX, Falcon), nor where norms come after (OLMo 2)."""
    config, names = model.config, dict(model.get_submodule(f"{stack_of(model)}.{layer}").named_children())
    if getattr(config, "use_parallel_residual", False) or getattr(config, "parallel_attn", False):
        return None
    if "post_feedforward_layernorm" in names and "pre_feedforward_layernorm" not in names:
        return None
    return _named("resid_mid", layer, model)


def _named(site: str, layer: int, model: nn.Module) -> HookPoint | None:
    try:
        return hook_point(f"blocks.{layer}.{site}", model)
    except SubjectUnavailable:
        return None
