"""Directions, their nearest neighbours, layouts of them and what those keep."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from app.atlas import knn, layout, vectors
from app.atlas.extras import extra
from app.atlas.quality import quality
from app.errors import MapImpossible, PackageUnavailable
from tests.conftest import random_sae


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def heaps(each=25, kinds=4, d=8, seed=0):
    """Directions around a few others; which each is of."""
    rng = np.random.default_rng(seed)
    which = np.repeat(np.arange(kinds), each)
    return unit(3 * np.eye(d)[which] + 0.4 * rng.normal(size=(kinds * each, d))), which


def test_decoder_rows_are_directions_and_those_without_one_have_no_place():
    matrix = torch.randn(12, 6, generator=torch.Generator().manual_seed(0))
    matrix[2], matrix[5, 1], matrix[7, 0], matrix[9] = 0, torch.nan, torch.inf, matrix[9] * 1e30
    found = vectors.directions(matrix, "decoder row")
    assert found.latents.tolist() == [0, 1, 3, 4, 6, 8, 9, 10, 11]
    assert np.linalg.norm(found.rows, axis=1) == pytest.approx(np.ones(9), abs=1e-6)
    assert found.rows[1] == pytest.approx(matrix[1].numpy() / matrix[1].norm().item(), abs=1e-6)


@pytest.mark.parametrize(
    ("matrix", "says"),
    [
        (torch.randn(3, 4), "Of 3 latents 3 have a decoder row that is finite and not zero; a map needs 8."),
        (torch.full((20, 4), torch.nan), "Of 20 latents 0 have a decoder row that is finite and not zero"),
        (torch.ones(20, 4), "Every decoder row points the same way"),
    ],
)
def test_what_cannot_be_mapped_is_refused_in_a_sentence(matrix, says):
    with pytest.raises(MapImpossible) as caught:
        vectors.directions(matrix, "decoder row")
    assert caught.value.message.startswith(says)


def test_encoder_columns_are_directions_where_there_are_some():
    sae = random_sae()
    found = vectors.of_weights(sae, "encoder")
    assert found.rows == pytest.approx(torch.nn.functional.normalize(sae.W_enc.T, dim=1).numpy(), abs=1e-6)
    without = replace(sae, W_enc=sae.W_enc[None])
    with pytest.raises(
        MapImpossible, match=r"^This SAE \(topk\) has no encoder with one direction a latent; map it on"
    ):
        vectors.of_weights(without, "encoder")


def test_latents_of_one_company_are_near_each_other():
    ids, phi = [], []
    for i in range(20):  # two circles of ten, each firing with the next two of its own
        ids += [10 * (i // 10) + (i + step) % 10 for step in (1, 2)]
        phi += [0.6, 0.4]
    counts = np.array([2] * 20 + [0])
    found = vectors.of_company(np.array(ids), np.array(phi, np.float32), counts, seed=0)
    assert found.latents.tolist() == list(range(20))
    cosines = found.rows @ found.rows.T
    assert np.abs(cosines[:10, 10:]).max() < 1e-4
    assert cosines[0, 1] > cosines[0, 2] > cosines[0, 5]
    # With all dimensions kept it is the cosine of the rows of correlations, with 1 for a latent itself.
    phi_of = np.eye(20)
    for i in range(20):
        for step, value in ((1, 0.6), (2, 0.4)):
            j = 10 * (i // 10) + (i + step) % 10
            phi_of[i, j] = phi_of[j, i] = value
    assert cosines == pytest.approx(unit(phi_of) @ unit(phi_of).T, abs=1e-3)


def test_latents_that_fire_alone_are_no_map():
    with pytest.raises(MapImpossible, match=r"^Of 30 latents 2 are stored as firing with others; a map needs 8"):
        vectors.of_company(np.array([1]), np.array([0.5], np.float32), np.array([1] + [0] * 29), seed=0)


@settings(deadline=None)
@given(st.integers(2, 40), st.integers(1, 9), st.integers(0, 5))
def test_the_graph_is_exact(n, k, seed):
    rows = unit(np.random.default_rng(seed).normal(size=(n, 5)))
    found = knn.graph(rows, k, seed=0)
    cosines = rows @ rows.T
    np.fill_diagonal(cosines, -np.inf)
    k = min(k, n - 1)
    assert (found.ids != np.arange(n)[:, None]).all()
    assert found.cosines == pytest.approx(-np.sort(-cosines, axis=1)[:, :k], abs=1e-5)
    assert np.take_along_axis(cosines, found.ids, 1) == pytest.approx(found.cosines, abs=1e-5)
    assert (found.exact, found.recall) == (True, 1.0)


def test_blocks_make_no_difference_and_are_told(monkeypatch):
    rows, _ = heaps()
    whole = knn.graph(rows, seed=0)
    monkeypatch.setattr(knn, "BLOCK_ELEMENTS", 1700)
    told = []
    parts = knn.graph(rows, seed=0, step=lambda done, total: told.append((done, total)))
    assert np.array_equal(whole.ids, parts.ids)
    assert told == [(17, 100), (34, 100), (51, 100), (68, 100), (85, 100), (100, 100)]


def test_recall_counts_neighbours_found_in_any_order():
    true = np.array([[1, 2, 3], [4, 5, 6]], np.int32)
    assert knn.recall(np.array([[3, 1, 9], [4, 5, 6]], np.int32), true) == pytest.approx(5 / 6)


def test_beyond_the_limit_the_graph_is_approximate_and_its_recall_is_measured(monkeypatch):
    rows, _ = heaps()
    monkeypatch.setattr(knn, "EXACT", 50)
    found, again = (knn.graph(rows, 5, seed=3) for _ in range(2))
    assert (found.exact, found.sample) == (False, 100)
    assert np.array_equal(found.ids, again.ids)
    assert (found.ids != np.arange(100)[:, None]).all()
    assert np.einsum("nkd,nd->nk", rows[found.ids], rows) == pytest.approx(found.cosines, abs=1e-5)
    assert (np.diff(found.cosines, axis=1) <= 1e-6).all()
    true, _ = knn.nearest(rows, rows, 5, itself=np.arange(100))
    assert found.recall == knn.recall(found.ids, true)
    assert found.recall > 0.8


def test_principal_components_are_the_directions_of_greatest_variance():
    rng = np.random.default_rng(0)
    rows = (rng.normal(size=(500, 4)) * [1, 5, 2, 0.1] + 3).astype(np.float32)
    found = layout.components(rows)
    assert np.abs(found.axes[:, [1, 2]]) == pytest.approx(np.eye(2), abs=0.05)
    assert (found.axes[[0, 1], [1, 2]] > 0).all()
    for seed in range(8):
        axes = layout.components(np.random.default_rng(seed).normal(size=(30, 5)).astype(np.float32)).axes
        assert (axes.max(axis=1) == np.abs(axes).max(axis=1)).all()
    places = found.places(rows)
    assert places.mean(axis=0) == pytest.approx([0, 0], abs=1e-4)
    assert places.std(axis=0) == pytest.approx([5, 2], rel=0.1)
    assert np.array_equal(found.places(rows[7:9]), places[7:9])  # new latents go where old ones went


@pytest.fixture(scope="module")
def laid():
    rows, which = heaps()
    graph = knn.graph(rows, 10, seed=0)
    start = layout.components(rows).places(rows)
    return rows, which, graph, start


@pytest.mark.parametrize("method", [layout.umap, layout.tsne])
def test_layouts_keep_heaps_apart_and_repeat_bit_for_bit(laid, method):
    rows, which, graph, start = laid
    places = method(graph, start, seed=1)
    assert np.array_equal(places, method(graph, start, seed=1))
    assert np.isfinite(places).all()
    near = knn_on_map(places, 10)
    assert (which[near] == which[:, None]).mean() > 0.95
    kept, before = (quality(rows, one, k=10, seed=0) for one in (places, start))
    assert kept.knn_preservation > before.knn_preservation
    assert kept.trustworthiness > 0.85


def knn_on_map(places, k):
    away = ((places[:, None] - places[None]) ** 2).sum(2)
    np.fill_diagonal(away, np.inf)
    return np.argsort(away, axis=1)[:, :k]


def test_new_latents_go_to_their_nearest():
    rows = unit(np.eye(5))
    places = np.array([[0, 0], [10, 0], [0, 10], [10, 10], [5, 5]], np.float32)
    new = unit(np.array([[0, 1, 0, 0, 0], [1, 1, 0, 0, 0]]))
    found = layout.into(new, rows).places(places)
    # The nearest has weight 1; the four others, all as far, exp(-d / mean d) with the mean over five: exp(-5 / 4).
    four = np.exp(-5 / 4)
    rest = places[[0, 2, 3, 4]].sum(0)
    assert found[0] == pytest.approx((places[1] + four * rest) / (1 + 4 * four), abs=1e-3)
    two = np.exp(-5 / 3)
    assert found[1] == pytest.approx((places[0] + places[1] + two * places[2:5].sum(0)) / (2 + 3 * two), abs=1e-3)


def test_a_layout_of_directions_in_the_plane_keeps_everything_and_a_shuffled_one_nothing():
    angle = np.linspace(0, 3, 200)
    rows = np.stack([np.cos(angle), np.sin(angle)], 1).astype(np.float32)
    whole = quality(rows, rows, k=4, seed=0)
    assert (whole.trustworthiness, whole.k, whole.sample) == (1.0, 4, 200)
    assert whole.knn_preservation == 1.0
    mixed = quality(rows, rows[np.random.default_rng(0).permutation(200)], k=4, seed=0)
    assert mixed.trustworthiness == pytest.approx(0.5, abs=0.05)
    assert mixed.knn_preservation == pytest.approx(4 / 199, abs=0.03)


def test_trustworthiness_by_hand():
    # On a line of seven directions the map swaps the outermost two: one neighbour each, ranks counted by hand.
    angle = np.array([0, 1, 2.1, 3.3, 4.6, 6.0, 7.5]) / 10
    rows = np.stack([np.cos(angle), np.sin(angle)], 1).astype(np.float32)
    places = np.stack([np.array([6.0, 1, 2.1, 3.3, 4.6, 0, 7.5]), np.zeros(7)], 1).astype(np.float32)
    # Nearest on the map -> its rank by angle: 0 -> 4 (4), 1 -> 5 (5: 0, 2, 3, 4 are nearer), 2 -> 1 (1), 3 -> 2 (1),
    # 4 -> 3 (1), 5 -> 1 (5: 4, 6, 3, 2 are nearer), 6 -> 0 (6).
    told = quality(rows, places, k=1, seed=0)
    assert told.trustworthiness == pytest.approx(1 - 2 / (7 * 1 * (14 - 3 - 1)) * (3 + 4 + 4 + 5))
    assert told.knn_preservation == pytest.approx(3 / 7)


def test_a_sample_measures_what_all_measure():
    rows, _ = heaps(each=100)
    places = layout.components(rows).places(rows)
    whole, part = (quality(rows, places, seed=0, sample=many) for many in (400, 150))
    assert (whole.sample, part.sample) == (400, 150)
    assert part.trustworthiness == pytest.approx(whole.trustworthiness, abs=0.05)


def test_a_package_that_is_missing_is_named_with_the_remedy():
    with pytest.raises(PackageUnavailable, match=r"^This needs no_such_layout, which is not installed; pip install"):
        extra("no_such_layout.part")
