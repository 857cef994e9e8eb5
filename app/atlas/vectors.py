"""What a map is laid out on: one direction a latent."""

from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from app.atlas.arrays import Floats, Ints
from app.errors import MapImpossible
from app.sae.base import SAE

On = Literal["decoder", "encoder", "coactivation", "explanations"]

LEAST = 8  # latents with a direction
DIMENSIONS = 128  # of co-activation


class Vectors(NamedTuple):
    """rows: [placed, d], each of length 1; latents: [placed], whose they are, upwards."""

    rows: Floats
    latents: Ints


def of_weights(sae: SAE, on: On) -> Vectors:
    """The rows of W_dec, or the columns of W_enc, as directions.

    Raises:
        MapImpossible: the SAE has no such rows, or too few of them have a direction.
    """
    n = sae.config.n_latents
    if on == "decoder":
        return directions(sae.W_dec, "decoder row")
    W_enc: Tensor | None = getattr(sae, "W_enc", None)
    if W_enc is None or W_enc.ndim != 2 or W_enc.shape[1] != n:
        raise MapImpossible(
            f"This SAE ({sae.config.architecture}) has no encoder with one direction a latent; map it on decoder.",
            on=on,
        )
    return directions(W_enc.T, "encoder column")


def directions(matrix: Tensor, name: str) -> Vectors:
    """matrix: [n, d]. Rows that are zero or not finite have no direction and no place on the map.

    Raises:
        MapImpossible: fewer than eight rows have one, or all have the same.
    """
    rows = matrix.detach().cpu().float().numpy()
    with np.errstate(over="ignore", invalid="ignore"):
        largest = np.abs(rows).max(axis=1, initial=0)
    latents = np.flatnonzero(np.isfinite(largest) & (largest > 0))
    rows = rows[latents] / largest[latents, None]  # no square overflows
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return checked(Vectors(rows, latents), len(matrix), name)


def checked(vectors: Vectors, n: int, name: str) -> Vectors:
    """
    Raises:
        MapImpossible: there is nothing to tell latents apart by.
    """
    rows, latents = vectors
    if len(latents) < LEAST:
        raise MapImpossible(
            f"Of {n:,} latents {len(latents)} have a {name} that is finite and not zero; a map needs {LEAST}.",
            latents=n,
            placed=len(latents),
        )
    if not (np.abs(rows - rows[0]).max(axis=1) > 1e-6).any():
        raise MapImpossible(
            f"Every {name} points the same way, so there is nothing to tell latents apart by.", latents=n
        )
    return vectors


def of_company(ids: npt.NDArray[np.integer], phi: Floats, counts: Ints, *, seed: int) -> Vectors:
    """Latents by the company they keep. ids, phi: [sum of counts], each latent's stored co-active latents and their
    correlations, latent after latent; counts: [n].

    The symmetric matrix of the correlations, 1 on its diagonal, is taken down to its 128 leading dimensions (randomised
    range finder: Halko, Martinsson & Tropp 2011, algorithm 4.4), each latent's row times the singular values, at
    length 1. Latents without company have no place.

    Raises:
        MapImpossible: too few latents fire together.
    """
    n = len(counts)
    first = np.repeat(np.arange(n), counts)
    inside = (ids >= 0) & (ids < n) & (phi > 0) & (ids != first)
    pair = np.stack([first[inside], ids[inside]])
    met = np.zeros(n, dtype=bool)
    met[pair.reshape(-1)] = True
    latents = np.flatnonzero(met)
    if len(latents) < LEAST:
        raise MapImpossible(
            f"Of {n:,} latents {len(latents)} are stored as firing with others; a map needs {LEAST}. Older harvests "
            "have none: harvest again, or map it on decoder.",
            latents=n,
            placed=len(latents),
        )
    number = np.zeros(n, np.int64)
    number[latents] = np.arange(len(latents))
    row, column = number[pair]
    both = _symmetric(row, column, phi[inside], len(latents))
    g = torch.Generator().manual_seed(seed)
    width = min(DIMENSIONS, len(latents))
    basis = torch.linalg.qr(both @ torch.randn(len(latents), min(width + 16, len(latents)), generator=g))[0]
    for _ in range(4):
        basis = torch.linalg.qr(both @ basis)[0]
    u, s, _ = torch.linalg.svd(basis.T @ (both @ basis))
    rows = ((basis @ u)[:, :width] * s[:width]).numpy()
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    rows = rows / np.maximum(length, np.float32(1e-12))
    return checked(Vectors(rows.astype(np.float32), latents), n, "row of co-activations")


def of_texts(latents: Ints, vectors: Floats, n: int, address: str) -> Vectors:
    """Latents by what is said of them. latents: [m], ascending, those of ``n`` with an embedded explanation; vectors:
    [m, d]. The others have no place.

    Raises:
        MapImpossible: too few are embedded.
    """
    if len(latents) < LEAST:
        raise MapImpossible(
            f"Of {n:,} latents {len(latents)} have an explanation that is embedded; a map needs {LEAST}. "
            f"'saescope explain {address}' and 'saescope embed {address}' make them.",
            latents=n,
            placed=len(latents),
        )
    rows, kept = directions(torch.from_numpy(vectors), "explanation's vector")
    return Vectors(rows, latents[kept])


def _symmetric(row: Ints, column: Ints, phi: Floats, n: int) -> Tensor:
    """Sparse [n, n]: the greater of a pair's two stored values on both sides, 1 on the diagonal."""
    low, high = np.minimum(row, column), np.maximum(row, column)
    order = np.lexsort((-phi, high, low))
    low, high, phi = low[order], high[order], phi[order]
    fresh = np.ones(len(low), dtype=bool)
    fresh[1:] = (low[1:] != low[:-1]) | (high[1:] != high[:-1])
    low, high, phi = low[fresh], high[fresh], phi[fresh]
    own = np.arange(n)
    places = torch.from_numpy(np.stack([np.concatenate([low, high, own]), np.concatenate([high, low, own])]))
    values = torch.from_numpy(np.concatenate([phi, phi, np.ones(n, np.float32)]).astype(np.float32))
    return torch.sparse_coo_tensor(places, values, (n, n), check_invariants=False).coalesce()
