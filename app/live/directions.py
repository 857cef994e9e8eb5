"""Decoder rows that point where a direction does: exact cosines, read a part at a time."""

import threading

import numpy as np
import numpy.typing as npt

from app.store.decoders import Decoder

CHUNK = 8192  # rows
_reading = threading.Lock()  # one at a time: it takes what the disk and the processor give

Floats = npt.NDArray[np.float32]


def nearest(
    decoder: Decoder, n_latents: int, direction: Floats, top: int, among: npt.NDArray[np.int64] | None = None
) -> list[tuple[int, float]]:
    """The ``top`` latents of greatest cosine of the decoder row with ``direction`` ([d], not zero), of all or of those
    ``among``, and the cosines. Rows of zeros have none."""
    mask = np.ones(n_latents, bool)
    if among is not None:
        mask[:] = False
        mask[among] = True
    unit = direction.astype(np.float32) / np.linalg.norm(direction.astype(np.float64))
    cosines = np.full(n_latents, -np.inf, np.float32)
    with _reading:
        for start in range(0, n_latents, CHUNK):
            stop = min(start + CHUNK, n_latents)
            if not mask[start:stop].any():
                continue
            rows = decoder.rows(start, stop)
            norms = np.linalg.norm(rows, axis=1)
            with np.errstate(all="ignore"):
                found = (rows @ unit) / norms
            cosines[start:stop] = np.where(mask[start:stop] & (norms > 0) & np.isfinite(found), found, -np.inf)
    order = np.lexsort((np.arange(n_latents), -cosines))[:top]
    return [(int(i), float(cosines[i])) for i in order if np.isfinite(cosines[i])]
