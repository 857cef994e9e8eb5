"""Which latents of two SAEs point the same way: exact decoder cosines, a block at a time."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from app.errors import DecoderUnavailable, TooLarge
from app.store.decoders import Decoder, Floats

MOST = 16_384  # latents on a side
BLOCK = 1024


class Nearest(NamedTuple):
    """For every latent of a, the latent of b of greatest decoder cosine, and that cosine; and the other way round.
    to_b, cosine_b: [n_a]; to_a, cosine_a: [n_b]."""

    to_b: npt.NDArray[np.int64]
    cosine_b: Floats
    to_a: npt.NDArray[np.int64]
    cosine_a: Floats

    def mutual(self) -> npt.NDArray[np.int64]:
        """[pairs, 2]: latents that are each other's nearest, those of greatest cosine first."""
        a = np.flatnonzero(self.to_a[self.to_b] == np.arange(len(self.to_b)))
        a = a[np.argsort(-self.cosine_b[a], kind="stable")]
        return np.stack([a, self.to_b[a]], axis=1)


def cosine(x: Floats, y: Floats) -> float | None:
    """Of two vectors; None where one is zero."""
    x, y = unit(x[None])[0], unit(y[None])[0]
    return float(x @ y) if x.any() and y.any() else None


def check(n_a: int, n_b: int) -> None:
    """
    Raises:
        TooLarge: an exact match would take more than a page's while.
    """
    if max(n_a, n_b) > MOST:
        raise TooLarge(
            f"Latents are matched one by one up to {MOST:,} on a side; these SAEs have {n_a:,} and {n_b:,}.", most=MOST
        )


def nearest(a: Decoder, n_a: int, b: Decoder, n_b: int) -> Nearest:
    """Exact, in fp32; of equal cosines the lower index. A zero row has cosine 0 to all.

    Raises:
        TooLarge: there are too many latents.
        DecoderUnavailable: the decoders are of different widths.
    """
    check(n_a, n_b)
    if a.d != b.d:
        raise DecoderUnavailable(f"Their decoders write {a.d} and {b.d} wide, so no cosine between them is defined.")
    right = unit(b.rows(0, n_b))
    to_b, cosine_b = np.empty(n_a, np.int64), np.empty(n_a, np.float32)
    to_a, cosine_a = np.zeros(n_b, np.int64), np.full(n_b, -np.inf, np.float32)
    for start in range(0, n_a, BLOCK):
        block = unit(a.rows(start, min(start + BLOCK, n_a))) @ right.T
        stop = start + len(block)
        to_b[start:stop] = block.argmax(1)
        cosine_b[start:stop] = block.max(1)
        best = block.argmax(0)
        value = block[best, np.arange(n_b)]
        better = value > cosine_a
        to_a[better], cosine_a[better] = best[better] + start, value[better]
    return Nearest(to_b, cosine_b, to_a, cosine_a)


def unit(rows: Floats) -> Floats:
    """[n, d] -> the same directions at length 1; a zero row stays zero."""
    smallest = np.float32(1e-30)
    rows = rows / np.maximum(np.abs(rows).max(axis=1, keepdims=True, initial=0), smallest)  # no square overflows
    norms = np.linalg.norm(rows, axis=1, keepdims=True).astype(np.float32)
    out: Floats = rows / np.maximum(norms, smallest)
    return out
