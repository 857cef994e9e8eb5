"""Hook points, and a forward pass that stops once the last wanted one has been read."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from app.errors import SubjectUnavailable


class HookPoint(NamedTuple):
    """A module of the subject and which side of it: written ``model.layers.9:out``. Side ``unit`` is for norms: their
    input over its rms (LayerNorm: standardised), before the gain."""

    module: str
    side: Literal["in", "out", "unit"]

    @classmethod
    def parse(cls, text: str) -> "HookPoint":
        module, _, side = text.rpartition(":")
        if side == "in" and module:
            return cls(module, "in")
        if side == "out" and module:
            return cls(module, "out")
        if side == "unit" and module:
            return cls(module, "unit")
        raise SubjectUnavailable(
            f"Hook point {text!r} is not of the form 'module.path:in' or 'module.path:out'.", hook_point=text
        )

    def __str__(self) -> str:
        return f"{self.module}:{self.side}"


def unit(x: Tensor, norm: nn.Module) -> Tensor:
    """What ``norm`` computes of ``x`` [..., d] before its gain: x / rms(x), or (x - mean) / std for a LayerNorm."""
    y = x.float()
    if isinstance(norm, nn.LayerNorm):
        y = y - y.mean(-1, keepdim=True)
    epsilon = float(getattr(norm, "variance_epsilon", getattr(norm, "eps", 1e-6)))
    return (y * (y.pow(2).mean(-1, keepdim=True) + epsilon).rsqrt()).to(x.dtype)


class _Reached(Exception):
    """Raised by the hook that sees the last wanted activation; stops the forward pass."""


def resolve(model: nn.Module, hook_point: HookPoint) -> nn.Module:
    """The module of ``hook_point``; SubjectUnavailable names the closest siblings if there is none."""
    try:
        return model.get_submodule(hook_point.module)
    except AttributeError:
        parent = hook_point.module
        known: list[str] = []
        while parent and not known:
            parent = parent.rpartition(".")[0]
            known = [f"{parent}.{name}".strip(".") for name, _ in _children(model, parent)]
        raise SubjectUnavailable(
            f"The subject has no module {hook_point.module!r}; near it are: {', '.join(known[:12])}.",
            hook_point=str(hook_point),
            near=known,
        ) from None


def _children(model: nn.Module, path: str) -> list[tuple[str, nn.Module]]:
    try:
        return list(model.get_submodule(path).named_children())
    except AttributeError:
        return []


def tap(
    model: nn.Module, point: HookPoint, see: Callable[[Tensor], Tensor | None], *, first: bool = False
) -> RemovableHandle:
    """Show ``see`` the activation [sequences, length, d] at ``point`` in every forward; what it returns, unless None,
    takes its place. ``first``: before the hooks that are there already.

    At side ``unit`` there is nothing to replace: ``see`` must return None.
    """
    module = resolve(model, point)
    if point.side == "out":

        def after(_module: nn.Module, _args: Any, out: Any) -> Any:
            changed = see(out[0] if isinstance(out, tuple) else out)
            return (changed, *out[1:]) if isinstance(out, tuple) and changed is not None else changed

        return module.register_forward_hook(after, prepend=first)

    def before(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        name = None if args else next(iter(kwargs))
        value = args[0] if name is None else kwargs[name]
        changed = see(unit(value, module) if point.side == "unit" else value)
        if changed is None:
            return None
        return ((changed, *args[1:]), kwargs) if name is None else (args, {**kwargs, name: changed})

    return module.register_forward_pre_hook(before, with_kwargs=True, prepend=first)


@torch.inference_mode()
def read_activations(
    model: nn.Module,
    input_ids: Tensor,
    hook_points: Sequence[HookPoint],
    attention_mask: Tensor | None = None,
    **cached: Any,
) -> dict[HookPoint, Tensor]:
    """Activations at ``hook_points`` for one batch; nothing after the last of them runs.

    input_ids: [sequences, length] int64 -> {hook point: [sequences, length, d]} in the subject's dtype.
    cached: what the model takes beside, to read on from a cache (past_key_values, position_ids).
    """
    found: dict[HookPoint, Tensor] = {}
    wanted = set(hook_points)

    def keep(point: HookPoint, value: Tensor) -> None:
        found[point] = value
        if len(found) == len(wanted):
            raise _Reached

    handles = [tap(model, point, partial(keep, point)) for point in wanted]
    try:
        model(input_ids=input_ids, attention_mask=attention_mask, use_cache=bool(cached), **cached)
    except _Reached:
        pass
    finally:
        for handle in handles:
            handle.remove()
    missing = wanted - set(found)
    if missing:
        names = ", ".join(sorted(map(str, missing)))
        raise SubjectUnavailable(f"The forward pass never reached {names}.", hook_points=names)
    return found
