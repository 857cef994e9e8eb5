"""What a latent's colour on the map tells, one byte each."""

import numpy as np
import numpy.typing as npt

from app.atlas.arrays import Ints

COLOURS = ("density", "maximum", "score", "sign", "region", "cluster")
LOWEST = -7.0  # log10 of the density that is byte 1

Bytes = npt.NDArray[np.uint8]
Doubles = npt.NDArray[np.float64]


def density(values: Doubles) -> Bytes:
    """0 where it never fired, else 1 at 1e-7 or less up to 255 at 1, by log10."""
    logs = np.log10(np.maximum(values, 1e-30))
    return np.where(values > 0, 1 + (254 * (1 - logs / LOWEST)).clip(0, 254), 0).astype(np.uint8)


def maximum(values: Doubles) -> Bytes:
    """0 where it never fired, else 1 to 255 by rank among those that did; equal ones alike. values: max |a|."""
    alive = values > 0
    kinds, which = np.unique(values[alive], return_inverse=True)
    out = np.zeros(len(values), np.uint8)
    out[alive] = 1 + 254 * which / max(len(kinds) - 1, 1)
    return out


def score(values: Doubles) -> Bytes:
    """0 where there is none (nan), else 1 at 0 or less up to 255 at 1."""
    return np.where(np.isnan(values), 0, 1 + 254 * np.nan_to_num(values).clip(0, 1)).astype(np.uint8)


def sign(maximum: Doubles, minimum: Doubles) -> Bytes:
    """0 where it never fired, 1 positive, 2 negative, 3 both."""
    return ((maximum > 0) + 2 * (minimum < 0)).astype(np.uint8)


def group(numbers: Ints) -> Bytes:
    """0 where it is in none (-1), else 1 + its number modulo 255."""
    return np.where(numbers < 0, 0, 1 + numbers % 255).astype(np.uint8)
