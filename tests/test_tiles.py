"""Places on the map's grid, and the quadtree of tiles."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hn

from app.atlas import colours
from app.atlas.places import SIDE, Frame, apart, counts, frame, interleaved, separated
from app.atlas.tiles import HEADER, Tile, decoded, placed, ranks, tree

# Few different places, so that many latents share one; and some at the map's corners.
spots = st.sampled_from([0, 1, 2, 3, 500, 32_767, 32_768, SIDE - 2, SIDE - 1])
grids = st.integers(1, 120).flatmap(lambda n: hn.arrays(np.uint16, (n, 2), elements=spots))


@given(hn.arrays(np.uint16, (20, 2)))
def test_the_z_curve_goes_there_and_back(grid):
    assert np.array_equal(separated(interleaved(grid)), grid)


def test_the_z_curve_begins_as_drawn():
    square = np.array([[0, 0], [1, 0], [0, 1], [1, 1], [2, 0]], np.uint16)
    assert interleaved(square).tolist() == [0, 1, 2, 3, 4]


@given(grids)
def test_no_two_latents_share_a_place_and_those_alone_stay(grid):
    moved = apart(grid)
    assert len(np.unique(interleaved(moved))) == len(grid)
    alone = apart(moved)
    assert np.array_equal(alone, moved)


def test_latents_at_one_place_spread_around_it_also_at_the_end_of_the_curve():
    corner = np.full((4, 2), SIDE - 1, np.uint16)
    assert sorted(map(tuple, apart(corner).tolist())) == [
        (SIDE - 2, SIDE - 2), (SIDE - 2, SIDE - 1), (SIDE - 1, SIDE - 2), (SIDE - 1, SIDE - 1)
    ]  # fmt: skip
    middle = np.full((100, 2), 30_000, np.uint16)
    assert np.abs(apart(middle).astype(int) - 30_000).max() <= 16


@given(grids, st.integers(1, 9), st.integers(1, 9), st.randoms())
def test_every_latent_is_in_one_tile_within_its_square_and_no_tile_is_over_its_budget(grid, root, most, random):
    grid = apart(grid)
    rank = np.array(random.sample(range(len(grid)), len(grid)))
    tiles = list(tree(grid, rank, root=root, tile=most))
    assert sorted(np.concatenate([tile.members for tile in tiles]).tolist()) == list(range(len(grid)))
    at = {(tile.z, tile.x, tile.y): tile for tile in tiles}
    assert len(at) == len(tiles)
    for tile in tiles:
        assert 1 <= len(tile.members) <= (root if tile.z == 0 else most)
        assert (grid[tile.members] >> (16 - tile.z) == [tile.x, tile.y]).all()
        assert (np.diff(rank[tile.members]) > 0).all()
        below = {(tile.z + 1, 2 * tile.x + dx, 2 * tile.y + dy): 2 * dy + dx for dy in (0, 1) for dx in (0, 1)}
        assert tile.children == sum(1 << bit for key, bit in below.items() if key in at)
        if tile.z:  # its latents matter less than all that its parent took
            parent = at[tile.z - 1, tile.x // 2, tile.y // 2]
            assert rank[parent.members].max() < rank[tile.members].min()


def test_a_tile_reads_back_and_its_header_is_as_documented():
    grid = np.array([[5, 6], [7, 8], [65_535, 0]], np.uint16)
    tile = Tile(3, 0, 0, np.array([1, 0]), 0b1010)
    data = placed(tile, grid, np.array([10, 11, 12])) + bytes([200, 201])
    assert data[:16] == b"SMAP" + bytes([1, 3, 10, 0, 2, 0, 0, 0, 0, 0, 0, 0])
    assert HEADER.itemsize == 16
    back = decoded(data)
    assert (back.z, back.children) == (3, 10)
    assert [list(column) for column in back[2:]] == [[7, 5], [8, 6], [11, 10], [200, 201]]
    for wrong in (data[:-1], b"PNG" + data[3:], b""):
        with pytest.raises(ValueError, match=r"no tile|bytes for"):
            decoded(wrong)


def test_what_is_explained_well_comes_first_and_the_dead_last_but_all_are_mixed():
    n = 4000
    kind = np.arange(n) % 4  # dead, alive, explained, explained well
    rank = ranks(kind > 0, kind > 1, np.where(kind == 3, 1.0, np.where(kind == 2, 0.0, np.nan)), seed=1)
    assert sorted(rank.tolist()) == list(range(n))
    means = [rank[kind == one].mean() for one in range(4)]
    assert means == sorted(means, reverse=True)
    assert means[0] > 0.8 * n
    first = kind[np.argsort(rank)[:400]]
    assert 20 < (first == 1).sum() < 100
    assert np.array_equal(rank, ranks(kind > 0, kind > 1, np.where(kind == 3, 1.0, np.where(kind == 2, 0, np.nan)), 1))


def test_the_frame_is_square_and_outliers_stand_on_its_edge():
    rng = np.random.default_rng(0)
    places = rng.random((5000, 2)).astype(np.float32) * [4, 1]
    places[0] = [1e6, -1e6]
    square = frame(places)
    assert square.side == pytest.approx(4, rel=0.01)
    grid = square.on_grid(places)
    assert grid[0].tolist() == [SIDE - 1, 0]
    held = grid[1:].astype(int)
    assert held[:, 1].min() > SIDE // 3
    assert held[:, 1].max() < 2 * SIDE // 3
    assert frame(np.ones((9, 2), np.float32)) == Frame(0.5, 0.5, 1.0)


def test_counts_are_of_all_latents_by_cell():
    field = counts(np.array([[0, 0], [127, 127], [128, 0], [0, SIDE - 1]], np.uint16))
    assert (field[0, 0], field[0, 1], field[511, 0], field.sum()) == (2, 1, 1, 4)


def test_colours_keep_zero_for_what_is_not_there():
    assert colours.density(np.array([0, 1e-9, 1e-7, 1.0])).tolist() == [0, 1, 1, 255]
    assert colours.maximum(np.array([0.0, 5, 3, 5, 8])).tolist() == [0, 128, 1, 128, 255]
    assert colours.score(np.array([np.nan, -1, 0, 1])).tolist() == [0, 1, 1, 255]
    assert colours.sign(np.array([0.0, 1, 0, 1]), np.array([0.0, 0, -1, -1])).tolist() == [0, 1, 2, 3]
    assert colours.group(np.array([-1, 0, 254, 255])).tolist() == [0, 1, 255, 1]
