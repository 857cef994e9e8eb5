"""Hook points, and a forward pass that stops once the last wanted one has been read."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

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


@torch.inference_mode()
def read_activations(
    model: nn.Module,
    input_ids: Tensor,
    hook_points: Sequence[HookPoint],
    attention_mask: Tensor | None = None,
) -> dict[HookPoint, Tensor]:
    """Activations at ``hook_points`` for one batch; nothing after the last of them runs.

    input_ids: [sequences, length] int64 -> {hook point: [sequences, length, d]} in the subject's dtype.
    """
    found: dict[HookPoint, Tensor] = {}
    wanted = set(hook_points)

    def keep(point: HookPoint, value: object) -> None:
        tensor = value[0] if isinstance(value, tuple) else value
        assert isinstance(tensor, Tensor)
        found[point] = unit(tensor, resolve(model, point)) if point.side == "unit" else tensor
        if len(found) == len(wanted):
            raise _Reached

    handles = []
    for point in wanted:
        module = resolve(model, point)
        if point.side == "out":
            handles.append(module.register_forward_hook(lambda _m, _a, out, point=point: keep(point, out)))
        else:
            handles.append(
                module.register_forward_pre_hook(
                    lambda _m, args, kwargs, point=point: keep(point, args[0] if args else next(iter(kwargs.values()))),
                    with_kwargs=True,
                )
            )
    try:
        model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False)
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
