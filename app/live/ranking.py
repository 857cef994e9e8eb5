"""Which latents matter on a prompt: share, strength, and the strongest over the prompt or at one token."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from app.live.prompt import Reading


@dataclass(frozen=True)
class Scale:
    """What activations are measured against: max|a| and density over the harvest, [n_latents] fp32 each."""

    peak: npt.NDArray[np.float32]
    density: npt.NDArray[np.float32]


@dataclass(frozen=True)
class Ranked:
    """A latent on a prompt: its strongest activation in scope, at ``position``, and its whole row."""

    index: int
    activation: float
    share: float
    strength: float
    position: int
    activations: list[tuple[int, float]]


def strength_of(share: npt.NDArray[np.float64], density: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """share x min(1, -log10(density) / 4): a latent that fires everywhere says little about any prompt."""
    rarity = -np.log10(np.maximum(density.astype(np.float64), 1e-12)) / 4
    weighted: npt.NDArray[np.float64] = share * np.clip(rarity, 0, 1)
    return weighted


def rank(
    run: Reading, scale: Scale, *, token: int | None, by: Literal["strength", "activation"], top: int
) -> tuple[list[Ranked], int]:
    """The ``top`` latents over the whole prompt, or at position ``token``; and how many are active there.

    A latent that never fired in the harvest has no scale, so its share is 1.
    """
    scope = np.arange(len(run.position)) if token is None else np.flatnonzero(run.position == token)
    if not len(scope):
        return [], 0
    latent, value = run.latent[scope], run.value[scope]
    # Per latent the strongest entry, of equal ones the earliest: sort by latent, then |a| falling.
    order = np.lexsort((run.position[scope], -np.abs(value), latent))
    first = np.ones(len(order), dtype=bool)
    first[1:] = latent[order][1:] != latent[order][:-1]
    best = scope[order[first]]
    index, activation = run.latent[best], run.value[best]
    peak = scale.peak[index].astype(np.float64)
    share = np.where(peak > 0, np.abs(activation) / np.where(peak > 0, peak, 1), 1.0)
    strength = strength_of(share, scale.density[index])
    chosen = np.lexsort((index, -(strength if by == "strength" else np.abs(activation))))[:top]
    rows = _rows(run, index[chosen])
    ranked = [
        Ranked(int(index[i]), float(activation[i]), float(share[i]), float(strength[i]), int(run.position[best[i]]),
               rows[int(index[i])])
        for i in chosen
    ]  # fmt: skip
    return ranked, len(index)


def _rows(run: Reading, wanted: npt.NDArray[np.int32]) -> dict[int, list[tuple[int, float]]]:
    """Each wanted latent's activations over the whole prompt, as (position, value)."""
    mine = np.flatnonzero(np.isin(run.latent, wanted))
    rows: dict[int, list[tuple[int, float]]] = {int(index): [] for index in wanted}
    for entry in mine:
        rows[int(run.latent[entry])].append((int(run.position[entry]), float(run.value[entry])))
    return rows
