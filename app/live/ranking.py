"""Which latents matter on a prompt: share, strength, and the strongest over the prompt or at one token."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from app.live.prompt import Reading
from app.strength import strength_of

By = Literal["strength", "activation", "count", "first"]


@dataclass(frozen=True)
class Scale:
    """What activations are measured against: max|a| and density over the harvest, [n_latents] fp32 each."""

    peak: npt.NDArray[np.float32]
    density: npt.NDArray[np.float32]


@dataclass(frozen=True)
class Ranked:
    """A latent on a prompt: its strongest activation in scope, at ``position``; at how many positions of the whole
    prompt it is active, the first of them, and its whole row."""

    index: int
    activation: float
    share: float
    strength: float
    position: int
    count: int
    first: int
    activations: list[tuple[int, float]]


def active(reading: Reading, token: int | None = None) -> npt.NDArray[np.int32]:
    """The latents that are active on the whole prompt, or at position ``token``, in order."""
    scope = slice(None) if token is None else reading.position == token
    found: npt.NDArray[np.int32] = np.unique(reading.latent[scope])
    return found


def rank(
    reading: Reading,
    scale: Scale,
    *,
    token: int | None,
    by: By,
    top: int,
    densest: float | None = None,
    among: Collection[int] | None = None,
) -> list[Ranked]:
    """The ``top`` latents over the whole prompt, or at position ``token``, none of a density above ``densest`` and,
    unless it is None, only those ``among``. By count, the most positions first; by first, the earliest.

    A latent that never fired in the harvest has no scale, so its share is 1.
    """
    inside = np.ones(len(reading.position), dtype=bool) if token is None else reading.position == token
    if densest is not None:
        inside &= scale.density[reading.latent] <= densest
    if among is not None:
        inside &= np.isin(reading.latent, np.fromiter(among, np.int64, len(among)))
    scope = np.flatnonzero(inside)
    if not len(scope):
        return []
    latent, value = reading.latent[scope], reading.value[scope]
    # Per latent the strongest entry, of equal ones the earliest: sort by latent, then |a| falling.
    order = np.lexsort((reading.position[scope], -np.abs(value), latent))
    first = np.ones(len(order), dtype=bool)
    first[1:] = latent[order][1:] != latent[order][:-1]
    best = scope[order[first]]
    index, activation = reading.latent[best], reading.value[best]
    peak = scale.peak[index].astype(np.float64)
    share = np.where(peak > 0, np.abs(activation) / np.where(peak > 0, peak, 1), 1.0)
    strength = strength_of(share, scale.density[index])
    counts = np.bincount(reading.latent, minlength=int(index.max()) + 1)[index]
    earliest = np.full(int(reading.latent.max()) + 1, np.iinfo(np.int64).max)
    np.minimum.at(earliest, reading.latent, reading.position)
    keys = {
        "strength": -strength, "activation": -np.abs(activation).astype(np.float64), "count": -counts,
        "first": earliest[index],
    }  # fmt: skip
    chosen = np.lexsort((index, -strength, keys[by]))[:top]
    rows = rows_of(reading, index[chosen].tolist())
    return [
        Ranked(int(index[i]), float(activation[i]), float(share[i]), float(strength[i]), int(reading.position[best[i]]),
               int(counts[i]), int(earliest[index[i]]), rows[int(index[i])])
        for i in chosen
    ]  # fmt: skip


def rows_of(reading: Reading, wanted: Collection[int]) -> dict[int, list[tuple[int, float]]]:
    """Each wanted latent's activations over the whole prompt, as (position, value)."""
    mine = np.flatnonzero(np.isin(reading.latent, np.fromiter(wanted, np.int64, len(wanted))))
    rows: dict[int, list[tuple[int, float]]] = {int(index): [] for index in wanted}
    for entry in mine:
        rows[int(reading.latent[entry])].append((int(reading.position[entry]), float(reading.value[entry])))
    return rows
