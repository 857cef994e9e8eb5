"""Which latents tell texts apart: two of them by strength, or one group of them from another."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from app.live.prompt import Reading
from app.live.ranking import Scale
from app.strength import strength_of

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Side:
    """A latent on one text: its activation of greatest magnitude in scope and its share, with its sign; ``position``
    is None where it does not fire."""

    activation: float
    share: float
    position: int | None


@dataclass(frozen=True)
class Difference:
    """A latent on two texts. ``difference``: its strength on the first less that on the second, each with its sign."""

    index: int
    first: Side
    second: Side
    difference: float


@dataclass(frozen=True)
class Differences:
    """Latents of one SAE that fire on one text alone and those that fire on both, the greatest difference first; how
    many there are of each before ``top`` cuts them off; ``chosen`` those that were asked for."""

    only_first: list[Difference]
    only_second: list[Difference]
    both: list[Difference]
    counts: tuple[int, int, int]
    chosen: list[Difference]


@dataclass(frozen=True)
class Contrasted:
    """A latent that fires here and not there: on ``count`` texts of the first side, there with the least ``strength``;
    of every text, first side and second, its strongest place."""

    index: int
    strength: float
    count: int
    here: list[Side]
    there: list[Side]


@dataclass(frozen=True)
class _Peaks:
    """Each active latent's strongest entry in scope, of equal ones the earliest; latent rises."""

    latent: Indices
    value: npt.NDArray[np.float32]
    position: Indices
    at: dict[int, int] = field(default_factory=dict)

    @classmethod
    def of(cls, reading: Reading, positions: range | None) -> "_Peaks":
        scope = np.arange(len(reading.latent))
        if positions is not None:
            scope = np.flatnonzero((reading.position >= positions.start) & (reading.position < positions.stop))
        scope = scope[reading.value[scope] != 0]
        order = scope[np.lexsort((reading.position[scope], -np.abs(reading.value[scope]), reading.latent[scope]))]
        latent, first = np.unique(reading.latent[order], return_index=True)
        best = order[first]
        return cls(
            latent.astype(np.int64), reading.value[best], reading.position[best].astype(np.int64),
            {int(index): place for place, index in enumerate(latent)},
        )  # fmt: skip

    def shares(self, latents: Indices, scale: Scale) -> npt.NDArray[np.float64]:
        """Signed shares of ``latents``, 0 where one is silent. One that never fired in the harvest has share 1."""
        values = np.zeros(len(latents))
        places = np.searchsorted(self.latent, latents)
        known = places < len(self.latent)
        known[known] = self.latent[places[known]] == latents[known]
        values[known] = self.value[places[known]]
        peak = scale.peak[latents].astype(np.float64)
        return np.where(peak > 0, values / np.where(peak > 0, peak, 1), np.sign(values))

    def side(self, index: int, share: float) -> Side:
        place = self.at.get(index)
        if place is None:
            return Side(0.0, 0.0, None)
        return Side(float(self.value[place]), float(share), int(self.position[place]))


def differences(
    first: Reading,
    second: Reading,
    scale: Scale,
    *,
    scope: tuple[range, range] | None,
    top: int,
    densest: float | None = None,
    among: Collection[int] | None = None,
    chosen: Sequence[int] = (),
) -> Differences:
    """``scope``: the positions of either text that count, all of them where it is None. Left out are latents of a
    density above ``densest`` and, unless it is None, those not ``among``; ``chosen`` ones are told in any case.

    Strength is share x min(1, -log10(density) / 4) as in app.live.ranking, here with the activation's sign: a latent
    that turns from its maximum to its minimum changes most.
    """
    one, other = (_Peaks.of(reading, None if scope is None else scope[n]) for n, reading in enumerate((first, second)))
    latents = kept(np.union1d(one.latent, other.latent), scale, densest, among)

    def told(indices: Indices) -> list[Difference]:
        a, b = one.shares(indices, scale), other.shares(indices, scale)
        d = strength_of(a - b, scale.density[indices])
        return [
            Difference(int(index), one.side(int(index), a[n]), other.side(int(index), b[n]), float(d[n]))
            for n, index in enumerate(indices)
        ]

    on_first, on_second = np.isin(latents, one.latent), np.isin(latents, other.latent)
    parts = [latents[on_first & ~on_second], latents[on_second & ~on_first], latents[on_first & on_second]]
    only_first, only_second, both = (
        sorted(told(part), key=lambda d: (-abs(d.difference), d.index))[:top] for part in parts
    )
    counts = (len(parts[0]), len(parts[1]), len(parts[2]))
    known = [index for index in chosen if index < len(scale.peak)]  # of an SAE that is gone no more is known
    shown = {d.index: d for d in told(np.array(known, dtype=np.int64))}
    silent = Side(0.0, 0.0, None)
    pinned = [shown.get(index) or Difference(index, silent, silent, 0.0) for index in chosen]
    return Differences(only_first, only_second, both, counts, pinned)


def contrast(
    here: Sequence[Reading],
    there: Sequence[Reading],
    scale: Scale,
    *,
    every: bool,
    threshold: float,
    top: int,
    densest: float | None = None,
    among: Collection[int] | None = None,
) -> tuple[list[Contrasted], int]:
    """Latents whose share passes ``threshold`` on every text of ``here`` (or, unless ``every``, on one of them) and on
    none of ``there``, and how many there are before ``top`` cuts them off.

    Ranked by the least strength over the texts of ``here`` on which they pass it; unless ``every``, first by how many
    texts these are.
    """
    ours, theirs = ([_Peaks.of(reading, None) for reading in side] for side in (here, there))
    latents = kept(_union(ours), scale, densest, among)
    shares = np.array([peaks.shares(latents, scale) for peaks in ours])
    against = np.array([peaks.shares(latents, scale) for peaks in theirs]).reshape(len(theirs), len(latents))
    fires = np.abs(shares) > threshold
    wanted = (fires.all(0) if every else fires.any(0)) & ~(np.abs(against) > threshold).any(0)
    latents, shares, against, fires = latents[wanted], shares[:, wanted], against[:, wanted], fires[:, wanted]
    count = fires.sum(0)
    least = np.where(fires, np.abs(shares), np.inf).min(0, initial=np.inf)
    strength = strength_of(least, scale.density[latents])
    order = np.lexsort((latents, -strength, -count))[:top]
    return [
        Contrasted(
            int(latents[i]), float(strength[i]), int(count[i]),
            [peaks.side(int(latents[i]), shares[n, i]) for n, peaks in enumerate(ours)],
            [peaks.side(int(latents[i]), against[n, i]) for n, peaks in enumerate(theirs)],
        )
        for i in order
    ], len(latents)  # fmt: skip


def kept(latents: Indices, scale: Scale, densest: float | None, among: Collection[int] | None) -> Indices:
    """Those of ``latents`` that the filters keep."""
    if densest is not None:
        latents = latents[scale.density[latents] <= densest]
    if among is not None:
        latents = latents[np.isin(latents, np.fromiter(among, np.int64, len(among)))]
    return latents


def _union(some: Sequence[_Peaks]) -> Indices:
    return np.unique(np.concatenate([peaks.latent for peaks in some]))
