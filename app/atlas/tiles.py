"""A quadtree of latents: near the root the ones that matter, further down the rest, each exactly once.

A tile's bytes, little endian: ``SMAP``, format (u8, 1), z (u8), children (u8, bit 2 dy + dx set where tile (z + 1,
2x + dx, 2y + dy) is there), one zero byte, n (u32), four zero bytes; then x (n u16), y (n u16), latent (n u32) and
colour (n u8). x and y are places on the whole map, y upwards; latents come in order of importance.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from app.atlas.arrays import Ints
from app.atlas.places import Grid, interleaved

ROOT, TILE = 8_000, 16_000
DEEPEST = 16
HEADER = np.dtype(
    [("magic", "S4"), ("format", "u1"), ("z", "u1"), ("children", "u1"), ("zero", "u1"), ("n", "<u4"), ("zeros", "<u4")]
)
MAGIC, FORMAT = b"SMAP", 1
DEAD = 0.02  # the weight of a latent that never fired, against 1 of one that did
LABELLED = 3.0  # the factor of one that has been explained, raised up to twofold again by its score

Bytes = npt.NDArray[np.uint8]


class Tile(NamedTuple):
    """members: which points (rows of what the tree was made of), the most important first; children: see above."""

    z: int
    x: int
    y: int
    members: Ints
    children: int


class Decoded(NamedTuple):
    z: int
    children: int
    x: npt.NDArray[np.uint16]
    y: npt.NDArray[np.uint16]
    latent: npt.NDArray[np.uint32]
    colour: Bytes


def ranks(
    alive: npt.NDArray[np.bool_], labelled: npt.NDArray[np.bool_], score: npt.NDArray[np.float64], seed: int
) -> Ints:
    """[n], 0 the most important: a seeded shuffle in which latents that fire, are explained, and well, tend to come
    first (weighted sampling without replacement: Efraimidis & Spirakis 2006). score: nan where there is none."""
    weight = np.where(alive, 1.0, DEAD) * np.where(labelled, LABELLED * (1 + np.nan_to_num(score).clip(0, 1)), 1.0)
    keys = -np.log1p(-np.random.default_rng(seed).random(len(alive))) / weight
    rank = np.empty(len(keys), np.int64)
    rank[np.argsort(keys, kind="stable")] = np.arange(len(keys))
    return rank


def tree(grid: Grid, rank: Ints, *, root: int = ROOT, tile: int = TILE) -> Iterator[Tile]:
    """grid: [n, 2], no two alike; rank: [n], a permutation. Each tile takes the first in rank of what its ancestors
    have left in its square, ``root`` or ``tile`` of them; tiles come level by level."""
    code = interleaved(grid).astype(np.int64)
    left = np.argsort(rank)
    waiting: list[tuple[int, Ints]] = []
    for z in range(DEEPEST + 1):
        quad = code[left] >> (2 * (DEEPEST - z))
        order = np.argsort(quad, kind="stable")  # within a square still by rank
        left, quad = left[order], quad[order]
        squares, begins, sizes = np.unique(quad, return_index=True, return_counts=True)
        yield from _tiles(z - 1, waiting, set(squares.tolist()))
        place = np.arange(len(left)) - np.repeat(begins, sizes)
        taken = place < (root if z == 0 else tile)
        waiting = [
            (square, left[begin : begin + min(size, root if z == 0 else tile)])
            for square, begin, size in zip(squares.tolist(), begins.tolist(), sizes.tolist(), strict=True)
        ]
        left = left[~taken]
        if not len(left):
            break
    yield from _tiles(z, waiting, set())


def _tiles(z: int, waiting: list[tuple[int, Ints]], below: set[int]) -> Iterator[Tile]:
    for square, members in waiting:
        children = sum(1 << quarter for quarter in range(4) if 4 * square + quarter in below)
        x, y = _square(square, z)
        yield Tile(z, x, y, members, children)


def _square(number: int, z: int) -> tuple[int, int]:
    x = y = 0
    for bit in range(z):
        x |= (number >> (2 * bit) & 1) << bit
        y |= (number >> (2 * bit + 1) & 1) << bit
    return x, y


def placed(tile: Tile, grid: Grid, latents: Ints) -> bytes:
    """The tile's bytes without colour. grid: [n, 2]; latents: [n], the points' latents."""
    header = _header(tile.z, tile.children, len(tile.members))
    x, y = grid[tile.members].astype("<u2").T
    return b"".join([header, x.tobytes(), y.tobytes(), latents[tile.members].astype("<u4").tobytes()])


def empty(z: int) -> bytes:
    """A tile where no latent is."""
    return _header(z, 0, 0)


def _header(z: int, children: int, n: int) -> bytes:
    return np.array((MAGIC, FORMAT, z, children, 0, n, 0), HEADER).tobytes()


def decoded(data: bytes) -> Decoded:
    """
    Raises:
        ValueError: these are no tile's bytes.
    """
    if len(data) < HEADER.itemsize or data[:4] != MAGIC or data[4] != FORMAT:
        raise ValueError("no tile")
    header = np.frombuffer(data, HEADER, 1)[0]
    n, at = int(header["n"]), HEADER.itemsize
    if len(data) != at + 9 * n:
        raise ValueError(f"{len(data)} bytes for {n} points")
    x, y = np.frombuffer(data, "<u2", n, at), np.frombuffer(data, "<u2", n, at + 2 * n)
    latent, colour = np.frombuffer(data, "<u4", n, at + 4 * n), np.frombuffer(data, "u1", n, at + 8 * n)
    return Decoded(int(header["z"]), int(header["children"]), x, y, latent, colour)
