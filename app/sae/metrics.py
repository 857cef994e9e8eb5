"""How well an SAE reconstructs: accumulated over batches, exact in float64."""

import math
from typing import Any

import torch
from torch import Tensor

from app.sae.acts import Acts

ROUNDING = 2.0**-23  # of a sum of squares that were taken in fp32, relative to it


def finite(value: float) -> float | None:
    """``value``, or None where it overflowed or is not defined."""
    return value if math.isfinite(value) else None


class Reconstruction:
    """FVU, mean cosine, norm ratio and L0 over the positions it has seen.

    FVU = sum |x - x_hat|^2 / sum |x - mean(x)|^2 with the mean a vector over all positions. (SAEBench subtracts
    the squared mean of x^2 instead, which overstates explained variance.)
    """

    def __init__(self, d: int) -> None:
        self.positions = 0
        self.total = torch.zeros(d, dtype=torch.float64)
        self.sums = torch.zeros(5, dtype=torch.float64)  # x^2, error^2, cosine, norm ratio, active entries

    def update(self, x: Tensor, x_hat: Tensor, acts: Acts) -> None:
        """x, x_hat: [positions, d]."""
        x = x.float()
        x_norm, hat_norm = x.norm(dim=1), x_hat.norm(dim=1)
        norms = x_norm * hat_norm
        cosine = (x * x_hat).sum(1) / norms.clamp_min(1e-12)
        cosine[norms.isinf()] = torch.nan  # where it would come out as 0
        ratio = hat_norm / x_norm.clamp_min(1e-12)
        parts = [x.pow(2), (x - x_hat).pow(2), cosine, ratio]
        sums = [part.sum(dtype=torch.float64).cpu() for part in parts]
        self.positions += len(x)
        self.total += x.sum(0, dtype=torch.float64).cpu()
        self.sums += torch.stack([*sums, torch.tensor(float(len(acts.value)), dtype=torch.float64)])

    def merge(self, other: "Reconstruction") -> None:
        self.positions += other.positions
        self.total += other.total
        self.sums += other.sums

    def state_dict(self) -> dict[str, Any]:
        return {"positions": self.positions, "total": self.total, "sums": self.sums}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.positions, self.total, self.sums = state["positions"], state["total"].cpu(), state["sums"].cpu()

    def result(self) -> dict[str, float | int | None]:
        """fvu, explained_variance, cosine, norm_ratio, l0 and the tokens they were measured on.

        None where there were none, where a number overflowed, or where x does not vary and FVU has no meaning.
        """
        n = self.positions
        if not n:
            nothing: dict[str, float | int | None] = dict.fromkeys(
                ("fvu", "explained_variance", "cosine", "norm_ratio", "l0")
            )
            return nothing | {"tokens": 0}
        squares, error, cosine, ratio, active = self.sums.tolist()
        variance = squares - float(self.total.pow(2).sum()) / n
        fvu = finite(error / variance) if variance > ROUNDING * squares else None
        return {
            "fvu": fvu,
            "explained_variance": None if fvu is None else 1 - fvu,
            "cosine": finite(cosine / n),
            "norm_ratio": finite(ratio / n),
            "l0": active / n,
            "tokens": n,
        }
