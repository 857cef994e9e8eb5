"""Regions and clusters on a layout, and their names."""

import numpy as np
import pytest

from app.atlas import regions
from app.atlas.names import NAMELESS, label_words, named, terms, token_term
from app.atlas.places import apart, counts, frame
from app.atlas.regions import basins, by_density, by_hdbscan, centres, nested, smoothed, widths
from app.errors import MapImpossible


def on_grid(places):
    places = places.astype(np.float32)
    return apart(frame(places).on_grid(places))


def heaps(n=300, spread=0.06, seed=0):
    """Two pairs of heaps: left and right, each of two; and which each point is of."""
    rng = np.random.default_rng(seed)
    middles = np.array([[0, 0], [0, 0.35], [6, 0], [6, 0.35]])
    which = np.repeat(np.arange(4), n)
    return middles[which] + spread * rng.normal(size=(4 * n, 2)), which


def test_heaps_are_clusters_and_pairs_of_them_regions():
    places, which = heaps(2000)
    found = by_density(on_grid(places))
    assert (found.region.max(), found.cluster.max()) == (1, 3)
    for heap in range(4):
        mine = found.cluster[which == heap]
        times = np.unique(mine[mine >= 0], return_counts=True)[1]
        assert times.max() > 0.99 * times.sum()
        assert (mine >= 0).mean() > 0.9
    held = found.cluster >= 0
    assert np.array_equal(found.region[held], found.parent[found.cluster[held]])
    assert len(set(found.region[which < 2]) - {-1}) == 1


@pytest.mark.parametrize("n", [1000, 20_000])
def test_latents_without_structure_are_one_region_at_most(n):
    rng = np.random.default_rng(n)
    for places in (rng.random((n, 2)), rng.normal(size=(n, 2))):
        found = by_density(on_grid(places))
        assert found.region.max() <= 0
        assert found.cluster.max() <= 1


def test_stragglers_between_heaps_are_in_no_cluster():
    places, _ = heaps(1000)
    rng = np.random.default_rng(1)
    lonely = np.stack([rng.uniform(1.5, 4.5, 40), rng.uniform(0, 0.4, 40)], 1)
    found = by_density(on_grid(np.concatenate([places, lonely])))
    assert (found.cluster[-40:] == -1).mean() > 0.9
    assert (found.cluster[:-40] == -1).mean() < 0.1


def test_a_faint_halo_around_a_heap_is_in_no_cluster():
    rng = np.random.default_rng(2)
    angle, radius = rng.uniform(0, 2 * np.pi, 300), rng.uniform(0.4, 0.7, 300)
    halo = radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1)
    found = by_density(on_grid(np.concatenate([0.08 * rng.normal(size=(3000, 2)), halo])))
    assert (found.cluster[-300:] == -1).mean() > 0.9
    assert (found.cluster[:3000] == 0).mean() > 0.85


def test_hdbscan_finds_the_heaps_and_refuses_what_would_take_hours(monkeypatch):
    places, which = heaps(60)
    found = by_hdbscan(on_grid(places))
    kinds = [set(found.cluster[which == heap].tolist()) - {-1} for heap in range(4)]
    assert [len(kind) for kind in kinds] == [1, 1, 1, 1]
    assert len(set.union(*kinds)) == 4
    monkeypatch.setattr(regions, "HDBSCAN_MOST", 100)
    with pytest.raises(MapImpossible, match="HDBSCAN is for 100 latents at most, and there are 240; use --clusters"):
        by_hdbscan(on_grid(places))


def test_two_peaks_are_two_only_if_the_saddle_is_deep():
    def field(valley):
        counted = np.zeros((64, 64), np.int64)
        counted[28:37, 10:54] = valley
        counted[28:37, 10:20] = counted[28:37, 44:54] = 10
        return counted

    deep, shallow = basins(field(1), 2.0), basins(field(9), 2.0)
    assert deep[32, 15] >= 0
    assert deep[32, 49] >= 0
    assert deep[32, 15] != deep[32, 49]
    assert shallow[32, 15] == shallow[32, 49] >= 0
    assert deep[0, 0] == -1


def test_smoothing_keeps_the_sum_and_a_plain_heap_has_its_gaussian():
    field = np.zeros((64, 64), np.int64)
    field[30, 20] = 100
    smooth = smoothed(field, 3.0)
    assert smooth.sum() == pytest.approx(100, rel=1e-3)
    assert smooth[30, 20] == pytest.approx(100 / (2 * np.pi * 9), rel=1e-3)
    assert smooth[33, 20] == pytest.approx(smooth[30, 20] * np.exp(-0.5), rel=1e-3)


def test_widths_shrink_as_latents_grow():
    assert widths(1000) == (16.0, 8.0)
    wide, narrow = widths(16_384)
    assert narrow == pytest.approx(512 / np.sqrt(np.pi * 16_384))
    assert wide == 4 * narrow
    assert widths(10**6) == (8.0, 2.0)


def test_clusters_lie_in_the_region_of_most_of_their_members():
    region = np.array([0] * 20 + [1] * 10 + [-1] * 10)
    cluster = np.array([0] * 15 + [1] * 5 + [1] * 10 + [-1] * 2 + [2] * 8)
    found = nested(region, cluster)
    # 15 in cluster 0 of region 0; 1 is mostly in region 1 and takes its five along; 2 is in none and makes one.
    assert found.cluster.tolist() == [0] * 15 + [1] * 15 + [-1] * 2 + [2] * 8
    assert found.parent.tolist() == [0, 1, 2]
    assert found.region.tolist() == found.cluster.tolist()


def test_groups_of_less_than_eight_are_none():
    found = nested(np.full(20, -1), np.array([5] * 8 + [3] * 7 + [9] * 5))
    assert found.cluster.tolist() == [0] * 8 + [-1] * 12
    nothing = nested(np.full(9, -1), np.full(9, -1))
    assert (nothing.region.tolist(), nothing.cluster.tolist(), nothing.parent.tolist()) == ([-1] * 9, [-1] * 9, [])


def test_the_centre_is_the_member_nearest_to_the_median():
    grid = np.array([[0, 0], [10, 0], [20, 0], [60_000, 0], [60_001, 0]], np.uint16)
    assert centres(grid, np.array([0, 0, 0, 1, -1])).tolist() == [1, 3]
    assert centres(grid, np.full(5, -1)).tolist() == []


def test_counting_and_basins_agree_on_where_latents_are():
    places, _ = heaps(500)
    grid = on_grid(places)
    assert counts(grid).sum() == 2000


@pytest.mark.parametrize(
    ("token", "term"),
    [
        (" Paris", "paris"), ("ing", "-ing"), ("ed", None), (" a", "a"), ("S", None), (" of", "of"), (".", "."),
        ("\\xf0", None), ("7", "7"), ("City", "city"), ("中", "中"), (" (", "("), ("  ", None), ("\n", None),
        ("", None), ("a\x00", None),
    ],
)  # fmt: skip
def test_tokens_as_terms(token, term):
    assert token_term(token) == term


def test_words_of_labels():
    assert label_words("Paris, \\x00, (space), A", "top-tokens") == ["paris", "(space)", "a"]
    assert label_words(",, ;", "top-tokens") == [",", ";"]
    assert label_words("", "top-tokens") == []
    assert label_words("promotes Rome, London", "vocab-projection") == ["rome", "london"]
    assert label_words("start of a text", "position") == ["start of a text"]
    assert label_words("Tokens related to the city of Paris, and don't", "person") == ["city", "paris", "don't"]


def test_names_say_what_a_group_shares_and_others_do_not():
    texts = [" the", " river", " sea", " king", " queen", "rare", "king"]
    of = [[0, 1, 2], [0, 1, 2], [0, 1], [0, 3, 4], [0, 3], [0, 6, 5], [0]]
    labels = [("", "top-tokens")] * 6 + [("waves of the sea", "person")]
    counted = np.array([len(ids) for ids in of])
    found = terms(7, np.concatenate(of), counted, texts, labels)
    assert "rare" not in found.words
    assert "-rare" in found.words
    assert "-king" not in found.words
    named_ = named(found, np.array([0, 0, 0, 1, 1, 1, -1]), 3)
    assert named_[0].terms == ["river", "sea", "the"]
    assert named_[1].terms == ["king", "the"]
    assert [one.name for one in named_[:2]] == ["river · sea · the", "king · the"]
    assert named_[2] == (NAMELESS, [], [])
    # two of three latents have "sea": 2/3 log(1 + A/3), with A the pairs over the groups
    a = len(found.term) / 3
    assert named_[0].scores[1] == pytest.approx(2 / 3 * np.log1p(a / 3))


def test_a_word_of_a_few_in_a_large_group_is_not_its_name():
    of = [[0]] * 2 + [[1]] * 3 + [[]] * 145
    tokens, counted = np.array([token for ids in of for token in ids]), np.array([len(ids) for ids in of])
    found = terms(150, tokens, counted, [" apollo", " city"], [("", "top-tokens")] * 150)
    assert named(found, np.zeros(150, np.int64), 1)[0].terms == ["city"]


def test_without_tokens_and_labels_nothing_has_a_name():
    found = terms(3, np.empty(0, np.int64), np.zeros(3, np.int64), [], [("", "top-tokens")] * 3)
    assert named(found, np.zeros(3, np.int64), 1) == [(NAMELESS, [], [])]
