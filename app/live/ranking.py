"""Which latents matter on a prompt: share, strength, and the strongest over the prompt or at one token."""

import asyncio
from collections.abc import Collection
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from app.live.prompt import Reading
from app.strength import strength_of

By = Literal["strength", "activation", "count", "first"]
APART = 1 << 16  # entries of a reading; ranking more takes longer than the event loop should stand still


@dataclass(frozen=True)
class Scale:
    """What activations are measured against: max|a| and density over the harvest, [n_latents] fp32 each."""

    peak: npt.NDArray[np.float32]
    density: npt.NDArray[np.float32]


@dataclass(slots=True)  # not frozen: many are made a prompt, which takes a third of the time so
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
    return found[_begins(found)]


def _begins(ordered: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.bool_]:
    """Where each run of equal values begins."""
    out = np.ones(len(ordered), bool)
    np.not_equal(ordered[1:], ordered[:-1], out=out[1:])
    return out


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
    latent, position, value = reading.latent, reading.position, reading.value
    if among is not None:
        mine = np.isin(latent, np.fromiter(among, np.int64, len(among)))
        latent, position, value = latent[mine], position[mine], value[mine]
    if not len(latent):
        return []
    # A latent's entries in a row, from the first position to the last: sorted as one number, which is fast.
    order = np.sort(latent.astype(np.int64) << 32 | np.arange(len(latent))) & 0xFFFFFFFF
    latent, position, value = latent[order], position[order], value[order]
    starts = _begins(latent).nonzero()[0]
    index, ends = latent[starts], np.empty_like(starts)
    ends[:-1], ends[-1] = starts[1:], len(latent)
    counts = ends - starts
    size = np.abs(value)
    if token is not None:
        size[position != token] = -1
    most = np.maximum.reduceat(size, starts)
    kept = most >= 0
    if densest is not None:
        kept &= scale.density[index] <= densest
    of = np.repeat(np.arange(len(starts)), counts)
    strongest = (size == most[of]).nonzero()[0][::-1]
    best = np.empty(len(starts), np.int64)
    best[of[strongest]] = strongest  # of equal ones the earliest, which is written last
    peak = scale.peak[index].astype(np.float64)
    share = np.divide(most, peak, out=np.ones(len(peak)), where=peak > 0)
    strength = strength_of(share, scale.density[index])
    keys = {"strength": -strength, "activation": -most, "count": -counts, "first": position[starts]}
    chosen = np.lexsort((index, -strength, keys[by], ~kept))[: min(top, int(kept.sum()))]
    columns = (index, value[best], share, strength, position[best], counts, position[starts])
    lengths = counts[chosen]
    offsets = np.cumsum(lengths) - lengths
    # Entries of the chosen rows alone, one row after another: a Python object each, which is slow for long prompts.
    taken = np.repeat(starts[chosen] - offsets, lengths) + np.arange(lengths.sum())
    entries = list(zip(position[taken].tolist(), value[taken].tolist(), strict=True))
    made = zip(*(x[chosen].tolist() for x in columns), offsets.tolist(), strict=True)
    return [
        Ranked(i, a, part, strong, at, count, earliest, entries[offset : offset + count])
        for i, a, part, strong, at, count, earliest, offset in made
    ]


async def rank_apart(
    reading: Reading,
    scale: Scale,
    *,
    token: int | None,
    by: By,
    top: int,
    densest: float | None = None,
    among: Collection[int] | None = None,
) -> list[Ranked]:
    """What ``rank`` gives, from another thread where the event loop would wait long for it."""
    work = partial(rank, reading, scale, token=token, by=by, top=top, densest=densest, among=among)
    return await asyncio.to_thread(work) if len(reading.latent) > APART else work()


def rows_of(reading: Reading, wanted: Collection[int]) -> dict[int, list[tuple[int, float]]]:
    """Each wanted latent's activations over the whole prompt, as (position, value)."""
    mine = np.flatnonzero(np.isin(reading.latent, np.fromiter(wanted, np.int64, len(wanted))))
    rows: dict[int, list[tuple[int, float]]] = {int(index): [] for index in wanted}
    for entry in mine:
        rows[int(reading.latent[entry])].append((int(reading.position[entry]), float(reading.value[entry])))
    return rows
