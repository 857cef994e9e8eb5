"""Accumulators to the columns of the example table, some latents at a time."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from app.harvest.harvester import Harvester
from app.store.copying import Column, Fixed, Ragged, Raw
from app.store.tables import NEAR, RANDOM, TOP

LATENTS = 256  # turned into rows at once

Array = npt.NDArray[Any]


class Rows(NamedTuple):
    """Columns of as many examples; window -1: it does not fire; start -1: centred on its place. All [m]."""

    latent: Array
    sign: Array
    interval: Array
    rank: Array
    sequence: Array
    place: Array
    magnitude: Array
    window: Array
    start: Array


def example_columns(harvester: Harvester, lengths: npt.NDArray[np.int64]) -> Iterator[dict[str, Column]]:
    """Chunks of the example table in order of latent, sign, interval and rank; ``lengths`` of the corpus's
    sequences."""
    parts = [part for sign in harvester.signs for part in _firing(harvester, sign)] + _quiet(harvester)
    for start in range(0, harvester.n_latents, LATENTS):
        chosen = [_between(part, start, start + LATENTS) for part in parts]
        rows = Rows(*(np.concatenate(column) for column in zip(*chosen, strict=True)))
        order = np.lexsort((rows.rank, rows.interval, -rows.sign, rows.latent))
        yield _columns(harvester, Rows(*(column[order] for column in rows)), lengths)


def _columns(harvester: Harvester, rows: Rows, lengths: npt.NDArray[np.int64]) -> dict[str, Column]:
    width = harvester.parameters.width
    centred = np.clip(np.minimum(rows.place - width // 2, lengths[rows.sequence] - width), 0, None)
    kept = torch.from_numpy(rows.window).to(harvester.stats.count.device)
    windows = harvester.pool.rows(kept.clamp_min(0)).cpu().numpy()
    shares = np.where((rows.window >= 0)[:, None], windows, 0)  # a pool that is empty holds anything
    row, offset = shares.nonzero()
    held = np.bincount(row, minlength=len(shares))
    return {
        "latent": Fixed(rows.latent),
        "sign": Fixed(rows.sign),
        "interval": Fixed(rows.interval),
        "rank": Fixed(rows.rank),
        "sequence_id": Fixed(rows.sequence),
        "position": Fixed(rows.place),
        "start": Fixed(np.where(rows.start >= 0, rows.start, centred)),
        "activation": Fixed(rows.magnitude * rows.sign),
        "offsets": Ragged(offset.astype(np.int16), held),
        "shares": Raw(shares[row, offset].astype("<f2").view(np.uint8), 2 * held),
    }


def _between(rows: Rows, start: int, stop: int) -> Rows:
    low, high = np.searchsorted(rows.latent, [start, stop])
    return Rows(*(column[low:high] for column in rows))


def _firing(harvester: Harvester, sign: int) -> list[Rows]:
    """The filled slots of one sign's tables, by latent."""
    top, samples = harvester.top[sign], harvester.samples[sign]
    latent, slot = (top.magnitude > 0).nonzero(as_tuple=True)
    best = _rows(top, latent, slot, sign, torch.full_like(slot, TOP), slot)
    maximum = harvester.stats.maximum if sign > 0 else -harvester.stats.minimum
    drawn = samples.draw(maximum, harvester.parameters.per_interval)
    # Shown from the strongest down.
    magnitude = samples.magnitude[drawn.latent, drawn.slot]
    order = magnitude.argsort(descending=True, stable=True)
    group = drawn.latent * 16 + drawn.interval
    order = order[group[order].argsort(stable=True)]
    latent, interval, slot = drawn.latent[order], drawn.interval[order], drawn.slot[order]
    begins = torch.searchsorted(group, group)
    rank = torch.arange(len(group), device=group.device) - begins
    return [best, _rows(samples, latent, slot, sign, interval, rank)]


def _rows(table: Any, latent: Tensor, slot: Tensor, sign: int, interval: Tensor, rank: Tensor) -> Rows:
    sequence, place, magnitude, window = (
        getattr(table, name)[latent, slot].cpu().numpy() for name in ("sequence", "place", "magnitude", "window")
    )
    signs = np.full(len(latent), sign)
    return Rows(
        latent.cpu().numpy(), signs, interval.cpu().numpy(), rank.cpu().numpy(), sequence, place, magnitude, window,
        np.full(len(latent), -1),
    )  # fmt: skip


def _quiet(harvester: Harvester) -> list[Rows]:
    """Contexts in which a latent does not fire, by latent."""
    token = torch.full((harvester.n_latents,), -1, device=harvester.stats.count.device)
    for sign in reversed(harvester.signs):
        best = harvester.top[sign].token[:, 0].long()
        token = torch.where(best >= 0, best, token)
    k = harvester.parameters.quiet
    out = []
    for code, quiet in ((RANDOM, harvester.quiet.random(k)), (NEAR, harvester.quiet.near(k, token))):
        order = quiet.latent.argsort(stable=True)
        latent, rank, sequence, start, place = (column[order].cpu().numpy() for column in quiet)
        one = np.ones_like(latent)
        zero = np.zeros(len(latent), dtype=np.float32)
        out.append(Rows(latent, one, one * code, rank, sequence, place, zero, -one, start))
    return out
