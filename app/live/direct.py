"""The path from the residual stream through the final norm to a metric, and no further block."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from app.subject.hooks import HookPoint
from app.subject.load import final_norm, gain_of
from app.subject.stream import along_stream


class NormPoints(NamedTuple):
    """Before and after the final norm."""

    before: HookPoint
    after: HookPoint


class DirectPath(NamedTuple):
    """gradient [d_model] fp32: how the metric moves with the residual stream before the final norm at ``position``, the
    norm's scale held at what it is there (direct logit attribution; Elhage et al. 2021, "A Mathematical Framework for
    Transformer Circuits")."""

    model: nn.Module
    position: int
    gradient: Tensor

    @staticmethod
    def points(model: nn.Module) -> NormPoints | None:
        norm = final_norm(model)
        name = next((name for name, module in model.named_modules() if module is norm), None)
        return None if name is None else NormPoints(HookPoint(name, "in"), HookPoint(name, "out"))

    @classmethod
    def of(cls, model: nn.Module, position: int, stream: Tensor, after: Tensor) -> "DirectPath":
        """stream: [d_model], what the norm reads there; after: [d_model] fp32, the metric's gradient at its output."""
        norm, x = final_norm(model), stream.float()
        gradient = gain_of(norm) * after
        if isinstance(norm, nn.LayerNorm):
            gradient, x = gradient - gradient.mean(), x - x.mean()
        epsilon = float(getattr(norm, "variance_epsilon", getattr(norm, "eps", 1e-6)))
        return cls(model, position, gradient / (x.pow(2).mean() + epsilon).sqrt())

    def at(self, writes: list[HookPoint]) -> Tensor | None:
        """[d_out] fp32: the gradient at the places an SAE writes, side by side; None if one is no part of the
        stream."""
        parts = [along_stream(self.model, point, self.gradient) for point in writes]
        return None if any(part is None for part in parts) else torch.cat([p for p in parts if p is not None])
