"""What a group of measurements comes to, and the charts it may show."""

from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from app.harvest.batches import Batch
from app.sae.metrics import finite

Values = dict[str, float | int | None]


class NotApplicable(Exception):
    """The group has no meaning for this SAE or text; the message says why in a sentence."""


@dataclass(frozen=True)
class Outcome:
    """values: by the names of app.evaluate.definitions; tokens: they were measured on; details: tables and charts, as
    ``table``, ``bars``, ``lines`` and ``points`` make them, in lists under these names."""

    values: Values
    tokens: int | None = None
    details: dict[str, list[dict[str, Any]]] = field(default_factory=dict)


class Streamed(Protocol):
    """Measured in the one pass that such groups share."""

    def update(self, batch: Batch, x: Tensor, y: Tensor) -> None:
        """x: [positions, d_in], what the SAE read; y: [positions, d_out], what it reconstructs."""
        ...

    def result(self) -> Outcome: ...


def table(caption: str, columns: list[str], rows: list[list[Any]]) -> dict[str, Any]:
    return {"caption": caption, "columns": columns, "rows": rows}


def bars(title: str, x: str, edges: Tensor, counts: Tensor) -> dict[str, Any]:
    """edges: [bins + 1]; counts: [bins]."""
    return {"title": title, "x": x, "edges": [round(e, 6) for e in edges.tolist()], "counts": counts.tolist()}


def lines(title: str, x: str, y: str, curves: dict[str, tuple[list[float], list[float]]]) -> dict[str, Any]:
    """curves: by name, their x and y."""
    return {"title": title, "x": x, "y": y,
            "curves": [{"name": name, "x": xs, "y": ys} for name, (xs, ys) in curves.items()]}  # fmt: skip


def points(title: str, x: str, y: str, xs: Tensor, ys: Tensor, bands: list[float]) -> dict[str, Any]:
    """A cloud, with lines y = slope x."""
    return {"title": title, "x": x, "y": y, "xs": [float(f"{v:.4g}") for v in xs.tolist()],
            "ys": [float(f"{v:.4g}") for v in ys.tolist()], "slopes": bands}  # fmt: skip


def quantiles(values: Tensor, at: dict[str, float]) -> Values:
    """values: [n]; by name, None where there is none."""
    if not len(values):
        return dict.fromkeys(at)
    ordered = values.double().sort().values
    place = torch.tensor(list(at.values()), dtype=torch.float64) * (len(ordered) - 1)
    low, high = place.floor().long(), place.ceil().long()
    found = ordered[low] + (ordered[high] - ordered[low]) * (place - low)
    return {name: finite(value) for name, value in zip(at, found.tolist(), strict=True)}


def mean(values: Tensor) -> float | None:
    return finite(float(values.double().mean())) if len(values) else None
