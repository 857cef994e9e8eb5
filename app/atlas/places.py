"""A layout on the map's grid of 65,536 x 65,536 places, each taken by one latent at most; and counts of them."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from app.atlas.arrays import Places

SIDE = 65_536
CLIP = 0.1  # percent of latents beyond each edge, which stand on it
RASTER = 512

Grid = npt.NDArray[np.uint16]


class Frame(NamedTuple):
    """The square of the layout's plane that the map shows: its lower left corner and its side."""

    left: float
    bottom: float
    side: float

    def on_grid(self, places: Places) -> Grid:
        """places: [n, 2] -> [n, 2]; what lies outside stands on the edge."""
        shares = (places.astype(np.float64) - (self.left, self.bottom)) / self.side
        return (shares * SIDE).clip(0, SIDE - 1).astype(np.uint16)


def frame(places: Places) -> Frame:
    """The square around all but the outermost 0.1% on each side. Both axes have one scale."""
    low, high = np.percentile(places.astype(np.float64), [CLIP, 100 - CLIP], axis=0)
    side = float((high - low).max()) or 1.0
    left, bottom = (low + high - side) / 2
    return Frame(float(left), float(bottom), side)


def apart(grid: Grid) -> Grid:
    """The same places but no two alike: of latents at one place all but one move on along the Z-curve to the next free
    place, the later ones further. grid: [n, 2]"""
    code = interleaved(grid)
    order = np.argsort(code, kind="stable")
    steps = np.arange(len(code))
    free = np.maximum.accumulate(code[order].astype(np.int64) - steps) + steps
    most = SIDE * SIDE - 1
    if len(free) and free[-1] > most:  # the end of the curve is full: back from there
        free = np.minimum(free, most - steps[::-1])
    moved = np.empty_like(grid)
    moved[order] = separated(free.astype(np.uint32))
    return moved


def interleaved(grid: Grid) -> npt.NDArray[np.uint32]:
    """[n, 2] -> [n], the place's number on the Z-curve (Morton 1966): bits of y and x in turn, y's first."""
    wide = grid.astype(np.uint32)
    for shift, mask in ((8, 0x00FF00FF), (4, 0x0F0F0F0F), (2, 0x33333333), (1, 0x55555555)):
        wide = (wide | (wide << np.uint32(shift))) & np.uint32(mask)
    return wide[:, 0] | (wide[:, 1] << np.uint32(1))


def separated(code: npt.NDArray[np.uint32]) -> Grid:
    """The inverse of ``interleaved``."""
    wide = np.stack([code, code >> np.uint32(1)], axis=1) & np.uint32(0x55555555)
    for shift, mask in ((1, 0x33333333), (2, 0x0F0F0F0F), (4, 0x00FF00FF), (8, 0x0000FFFF)):
        wide = (wide | (wide >> np.uint32(shift))) & np.uint32(mask)
    return wide.astype(np.uint16)


def counts(grid: Grid, side: int = RASTER) -> npt.NDArray[np.int64]:
    """How many latents stand in each cell of a coarser grid: [side, side], rows upwards in y."""
    cell = grid.astype(np.int64) * side // SIDE
    return np.bincount(cell[:, 1] * side + cell[:, 0], minlength=side * side).reshape(side, side)
