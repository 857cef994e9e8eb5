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
    found: npt.NDArray[np.int32] = np.sort(reading.latent[scope])
    return found[np.diff(found, prepend=-1) > 0]


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
    if not len(reading.latent):
        return []
    # A latent's entries in a row, from the first position to the last: sorted as one number, which is fast.
    order = np.sort(reading.latent.astype(np.int64) << 32 | np.arange(len(reading.latent))) & 0xFFFFFFFF
    latent, position, value = reading.latent[order], reading.position[order], reading.value[order]
    starts = np.flatnonzero(np.concatenate([[True], latent[1:] != latent[:-1]]))
    index, counts = latent[starts], np.diff(starts, append=len(latent))
    size = np.abs(value)
    if token is not None:
        size[position != token] = -1
    most = np.maximum.reduceat(size, starts)
    kept = most >= 0
    if densest is not None:
        kept &= scale.density[index] <= densest
    if among is not None:
        kept &= np.isin(index, np.fromiter(among, np.int64, len(among)))
    of = np.repeat(np.arange(len(starts)), counts)
    strongest = np.flatnonzero(size == most[of])[::-1]
    best = np.empty(len(starts), np.int64)
    best[of[strongest]] = strongest  # of equal ones the earliest, which is written last
    peak = scale.peak[index].astype(np.float64)
    share = np.divide(most, peak, out=np.ones(len(peak)), where=peak > 0)
    strength = strength_of(share, scale.density[index])
    keys = {"strength": -strength, "activation": -most, "count": -counts, "first": position[starts]}
    chosen = np.lexsort((index, -strength, keys[by], ~kept))[: min(top, int(kept.sum()))]
    columns = (index, value[best], share, strength, position[best], counts, position[starts], starts)
    out = []
    for i, a, part, strong, at, count, earliest, start in zip(*(one[chosen].tolist() for one in columns), strict=True):
        row = slice(start, start + count)
        activations = list(zip(position[row].tolist(), value[row].tolist(), strict=True))
        out.append(Ranked(i, a, part, strong, at, count, earliest, activations))
    return out


def rows_of(reading: Reading, wanted: Collection[int]) -> dict[int, list[tuple[int, float]]]:
    """Each wanted latent's activations over the whole prompt, as (position, value)."""
    mine = np.flatnonzero(np.isin(reading.latent, np.fromiter(wanted, np.int64, len(wanted))))
    rows: dict[int, list[tuple[int, float]]] = {int(index): [] for index in wanted}
    for entry in mine:
        rows[int(reading.latent[entry])].append((int(reading.position[entry]), float(reading.value[entry])))
    return rows
