"""What is kept of each context to the columns of the context and posting tables."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from app.harvest.contexts import Contexts
from app.harvest.stats import LatentStats
from app.store.copying import Column, Fixed, Raw
from app.strength import strength_of

CHUNK = 1 << 13  # contexts sorted at once
LATENTS = 256  # turned into rows at once

Array = npt.NDArray[Any]


class Vectors(NamedTuple):
    """The contexts' vectors. sequence, start: [contexts], in the order of the corpus; norm [contexts] fp32 is that of
    a context's strengths. One entry each of a context's strongest latents, by context, then latent: context, latent and
    offset [m], weight [m] fp16, the signed strength over the norm."""

    sequence: Array
    start: Array
    norm: Array
    context: Array
    latent: Array
    offset: Array
    weight: Array


def vectors(contexts: Contexts, stats: LatentStats, most: int) -> Vectors:
    """Of each context the ``most`` latents of greatest strength, of equal ones those of lower number."""
    contexts.settle()
    held = contexts.held.take(contexts.held.context.argsort())
    place, size, code, value = (column.cpu().numpy() for column in (held.context, held.size, held.code, held.value))
    peak = np.maximum(stats.maximum.cpu().numpy(), -stats.minimum.cpu().numpy()).astype(np.float64)
    # As fp32, which is what the latent table keeps and prompts are measured by.
    density = (stats.count.double() / max(stats.positions, 1)).float().cpu().numpy()
    ends = size.cumsum()
    norm = np.zeros(len(size), np.float32)
    parts = []
    for first in range(0, len(size), CHUNK):
        some = slice(first, first + CHUNK)
        entries = slice(int(ends[first] - size[first]), int(ends[some][-1]))
        latent = code[entries] // contexts.width
        strength = strength_of(np.abs(value[entries]) / peak[latent], density[latent])
        row = np.repeat(np.arange(len(size[some])), size[some])
        order = np.argsort(row - strength / 2, kind="stable")  # no strength is above 1, entries come by latent
        rank = np.arange(len(order)) - (np.cumsum(size[some]) - size[some])[row]
        best = np.sort(order[(rank < most) & (strength[order] > 0)])
        row, strength = row[best], strength[best]
        length = np.sqrt(np.bincount(row, strength * strength, len(size[some])))
        norm[some] = length
        weight = np.copysign(strength / length[row], value[entries][best]).astype(np.float16)
        parts.append((row + first, latent[best], code[entries][best] % contexts.width, weight))
    joined = [np.concatenate(column) for column in zip(*parts, strict=True)] if parts else [np.zeros(0, np.int64)] * 4
    sequence, number = np.divmod(place, contexts.per_sequence)
    return Vectors(sequence, number * contexts.width, norm, *joined)


def context_columns(found: Vectors) -> dict[str, Column]:
    """Rows of the context table."""
    return {
        "id": Fixed(np.arange(len(found.sequence))),
        "sequence_id": Fixed(found.sequence),
        "start": Fixed(found.start),
        "norm": Fixed(found.norm),
    }


def posting_columns(found: Vectors) -> Iterator[dict[str, Column]]:
    """Rows of the posting table, some latents at a time: each latent that is among the strongest of any context, and
    the contexts it is in."""
    order = found.latent.argsort(kind="stable")
    latents, counts = np.unique(found.latent, return_counts=True)
    ends = counts.cumsum()
    for first in range(0, len(latents), LATENTS):
        some = slice(first, first + LATENTS)
        chosen = order[ends[first] - counts[first] : ends[some][-1]]
        yield {
            "latent": Fixed(latents[some]),
            "contexts": _raw(found.context[chosen], "<i4", counts[some]),
            "weights": _raw(found.weight[chosen], "<f2", counts[some]),
            "offsets": _raw(found.offset[chosen], "u1", counts[some]),
        }


def _raw(values: Array, dtype: str, counts: Array) -> Raw:
    cast = np.ascontiguousarray(values.astype(dtype))
    return Raw(cast.view(np.uint8), counts * cast.dtype.itemsize)
