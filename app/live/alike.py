"""Which contexts of the corpus look most like a prompt: cosines of the strengths of what fires in either.

A text's vector has the strength of each of its strongest latents, by the latent's strongest activation there and with
its sign; everything else is 0.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from app.live.prompt import Reading
from app.live.ranking import Scale
from app.store.contexts import Posting
from app.strength import strength_of


class Vector(NamedTuple):
    """A prompt's, one entry a latent in order of number: latent, position (of its strongest activation, of equal ones
    the first) [k] int64; strength [k] fp64, signed. ``active`` is how many latents there were to choose from."""

    latent: npt.NDArray[np.int64]
    position: npt.NDArray[np.int64]
    strength: npt.NDArray[np.float64]
    active: int


class Shared(NamedTuple):
    """A latent that is in the prompt's vector and in a context's: what it adds to their cosine, its weight in the
    context's vector, and where it is strongest there."""

    latent: int
    part: float
    weight: float
    offset: int


class Alike(NamedTuple):
    """A context, its cosine with the prompt, and what they share, the largest part first."""

    context: int
    similarity: float
    shared: list[Shared]


def vector(reading: Reading, scale: Scale, *, first: int, last: int, most: int) -> Vector:
    """Of the positions ``first`` to ``last`` the ``most`` latents of greatest strength. A latent that never fired in
    the harvest has no scale, so its share is 1; it is in no context, and counts against them all."""
    inside = (reading.position >= first) & (reading.position <= last)
    position, latent, value = (column[inside] for column in (reading.position, reading.latent, reading.value))
    order = np.lexsort((position, -np.abs(value), latent))
    begins = np.ones(len(order), dtype=bool)
    begins[1:] = latent[order][1:] != latent[order][:-1]
    best = order[begins]
    position, latent, value = (column[best] for column in (position, latent, value))
    peak = scale.peak[latent].astype(np.float64)
    share = np.where(peak > 0, np.abs(value) / np.where(peak > 0, peak, 1), 1.0)
    strength = strength_of(share, scale.density[latent])
    chosen = np.lexsort((latent, -strength))[:most]
    chosen = np.sort(chosen[strength[chosen] > 0])
    signed = np.copysign(strength[chosen], value[chosen])
    return Vector(latent[chosen].astype(np.int64), position[chosen].astype(np.int64), signed, len(best))


def most_alike(postings: Sequence[Posting], asked: Vector, *, top: int, after: int = 0) -> tuple[list[Alike], int]:
    """The contexts of greatest cosine, of equal ones the earlier in the corpus, without the first ``after``; and how
    many have a cosine above 0. ``postings`` are those of ``asked``'s latents, in order."""
    if not postings:
        return [], 0
    weights = dict(zip(asked.latent.tolist(), asked.strength / np.linalg.norm(asked.strength), strict=True))
    similarity = np.zeros(1 + max(int(posting.contexts[-1]) for posting in postings))
    for posting in postings:  # no context is twice in one
        similarity[posting.contexts] += weights[posting.latent] * posting.weights.astype(np.float64)
    found = int((similarity > 0).sum())
    end = min(after + top, found)
    if end <= after:
        return [], found
    least = -np.partition(-similarity, end - 1)[end - 1]
    among = np.flatnonzero(similarity >= least)
    chosen = among[np.lexsort((among, -similarity[among]))][after:end]
    shared: dict[int, list[Shared]] = {context: [] for context in chosen.tolist()}
    for posting in postings:
        place = np.searchsorted(posting.contexts, chosen).clip(max=len(posting.contexts) - 1)
        here = posting.contexts[place] == chosen
        for context, entry in zip(chosen[here].tolist(), place[here].tolist(), strict=True):
            weight = float(posting.weights[entry])
            part = weight * float(weights[posting.latent])
            shared[context].append(Shared(posting.latent, part, weight, int(posting.offsets[entry])))
    for some in shared.values():
        some.sort(key=lambda one: (-abs(one.part), one.latent))
    return [Alike(context, float(similarity[context]), some) for context, some in shared.items()], found
