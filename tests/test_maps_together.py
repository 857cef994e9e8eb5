"""Maps of several SAEs in one frame, on an older map, and on explanations; two maps on one page."""

import numpy as np
import pytest
import torch
from fastapi.testclient import TestClient
from sqlalchemy import text

from app.atlas import layout, make
from app.atlas.make import Recipe, make_map, make_maps
from app.atlas.onto import make_onto
from app.atlas.places import frame
from app.atlas.structure import silhouette, structure
from app.errors import BadRequest, MapImpossible, UnknownMap
from app.main import create_app
from app.sae.formats import read
from app.store.llm_bulk import prepare_partitions
from app.store.map_sources import read_vectors
from tests.conftest import LAYERS

LEFT, RIGHT = LAYERS
PCA = Recipe("pca")
MAP = f"/saes/{LEFT}/map"


@pytest.fixture(scope="module")
def own(layered):
    return layered


@pytest.fixture(scope="module", autouse=True)
def tidy(database):
    yield
    with database.begin() as connection:
        connection.execute(text("DELETE FROM map"))
        connection.execute(text("DELETE FROM explanation"))
        connection.execute(text("DELETE FROM embedding"))


def rows(database, query, **values):
    with database.connect() as connection:
        return connection.execute(text(query), values).all()


def maps(database, **which):
    """By slug, of those with others beside."""
    query = "SELECT s.slug, m.* FROM map m JOIN sae s ON s.id = m.sae_id WHERE m.beside <> '{}' AND method = :method"
    return {row.slug: row for row in rows(database, query, **{"method": "pca", **which})}


def places(database, row):
    found = rows(
        database, "SELECT latent, layout_x, layout_y, x, y FROM map_point WHERE map_id = :id ORDER BY latent", id=row.id
    )
    return np.array([tuple(one) for one in found], np.float64)


def decoder(database, own, slug):
    path = rows(database, "SELECT path FROM sae WHERE slug = :slug", slug=slug)[0].path
    return torch.nn.functional.normalize(read(own.home / path).W_dec.float(), dim=1).numpy()


def mutual(database, own):
    """Naively: {left: right} of latents that are each other's nearest."""
    a, b = decoder(database, own, LEFT), decoder(database, own, RIGHT)
    found = {}
    for i in range(40):
        j = max(range(40), key=lambda j: float(a[i] @ b[j]))
        if max(range(40), key=lambda k: float(a[k] @ b[j])) == i:
            found[i] = j
    assert 5 < len(found) < 40
    return found


def test_two_saes_are_laid_out_as_one_and_have_one_frame(database, own, command):
    out, err, status = command("map", RIGHT, "--with", LEFT, "--method", "pca")
    assert status == 0, err
    stored = maps(database)
    assert set(stored) == {LEFT, RIGHT}
    left, right = stored[LEFT], stored[RIGHT]
    assert left.together == right.together
    assert left.frame == right.frame
    assert [one.rpartition("@")[0] for one in left.beside] == [RIGHT]
    assert f"In one frame with {left.beside[0]}." in out
    every = np.concatenate([decoder(database, own, LEFT), decoder(database, own, RIGHT)])
    joint = layout.components(every).places(every)
    assert places(database, left)[:, 1:3] == pytest.approx(joint[:40], abs=1e-5)
    assert places(database, right)[:, 1:3] == pytest.approx(joint[40:], abs=1e-5)
    assert left.frame == pytest.approx(frame(joint), abs=1e-5)
    own_quality = left.quality["pca"]
    assert own_quality["sample"] == 40  # of its own latents among themselves
    again, _, _ = command("map", LEFT, "--with", RIGHT, "--method", "pca")
    assert again.count("It was there already as version") == 2


def test_a_shared_layout_begins_with_both_saes_neighbours(database, own, monkeypatch):
    seen = []

    def line(graph, start, *, seed, step=None):
        seen.append(graph.ids.shape)
        return np.stack([np.arange(len(start)), np.zeros(len(start))], 1).astype(np.float32)

    monkeypatch.setattr(layout, "tsne", line)
    made = make_maps([LEFT, RIGHT], Recipe("tsne", seed=3), database, own.home)
    assert seen == [(80, 15)]
    assert [one.slug for one in made] == [LEFT, RIGHT]
    assert [one.whole.points.layout[0, 0] for one in made] == [0, 40]


def test_a_shared_map_leaves_the_own_one_and_comes_after_it(database, own):
    alone = make_map(LEFT, PCA, database, own.home)
    with TestClient(create_app(own)) as site:
        listed = site.get(f"/saes/{LEFT}/maps.json").json()["items"]
    assert alone.row.version == listed[0]["version"]
    assert [bool(one["beside"]) for one in listed] == sorted(bool(one["beside"]) for one in listed)
    assert len([one for one in listed if one["method"] == "pca"]) == 2


def test_both_maps_are_saved_or_neither(database, own, monkeypatch):
    before = maps(database)
    real, calls = make.save_maps.__globals__["_saved"], []

    def second_fails(connection, whole):
        calls.append(whole)
        if len(calls) == 2:
            raise ValueError("broken")
        return real(connection, whole)

    monkeypatch.setattr("app.store.map_bulk._saved", second_fails)
    with pytest.raises(ValueError, match="broken"):
        make_maps([LEFT, RIGHT], Recipe("pca", "encoder"), database, own.home)
    assert maps(database) == before


@pytest.mark.parametrize(
    ("addresses", "recipe", "told"),
    [
        ([LEFT, LEFT], PCA, "The same SAE is named twice"),
        ([LEFT, RIGHT], Recipe("pca", "coactivation"), "Maps on coactivation share no frame"),
    ],
)
def test_what_cannot_share_a_frame_is_told(database, own, addresses, recipe, told):
    with pytest.raises(BadRequest, match=told):
        make_maps(addresses, recipe, database, own.home)


def test_options_that_do_not_go_together_are_told(command):
    assert "give one of them." in command("map", LEFT, "--with", RIGHT, "--onto", RIGHT)[1]
    assert "--dry-run tells what --names llm would cost" in command("map", LEFT, "--dry-run")[1]
    assert "--names llm asks a language model: give --base-url" in command("map", LEFT, "--names", "llm")[1]


def test_latents_go_onto_an_older_map_that_stays(database, own, monkeypatch):
    monkeypatch.setattr(layout, "tsne", lambda graph, start, seed, step=None: start * 3)
    with pytest.raises(UnknownMap, match=f"has no map by tsne on encoder; 'saescope map {RIGHT} --method tsne"):
        make_onto(LEFT, RIGHT, Recipe("tsne", "encoder"), database, own.home)
    base = make_map(RIGHT, Recipe("tsne", seed=5), database, own.home)
    made = make_onto(LEFT, RIGHT, Recipe("tsne", seed=5), database, own.home)
    a, b = decoder(database, own, LEFT), decoder(database, own, RIGHT)
    for i in range(40):
        near = np.argsort(-(b @ a[i]), kind="stable")[:5]
        away = 1 - b[near] @ a[i]
        weights = np.exp(-(away - away[0]) / (away - away[0]).mean())
        expected = (weights[:, None] * base.whole.points.layout[near]).sum(0) / weights.sum()
        assert made.whole.points.layout[i] == pytest.approx(expected, abs=1e-3)
    assert made.row.frame == base.row.frame
    stored = {(row.slug, row.version): row.together for row in rows(
        database, "SELECT s.slug, m.version, m.together FROM map m JOIN sae s ON s.id = m.sae_id")}  # fmt: skip
    assert stored[RIGHT, base.row.version] == stored[LEFT, made.row.version] == base.row.version
    assert made.row.facts["onto_version"] == base.row.version
    again = make_map(RIGHT, Recipe("tsne", seed=5), database, own.home)  # nothing of it has changed
    assert not again.fresh
    by_axes = make_onto(LEFT, RIGHT, PCA, database, own.home) if make_map(RIGHT, PCA, database, own.home) else None
    assert by_axes.whole.points.layout == pytest.approx(layout.components(b).places(a), abs=1e-5)


def test_how_latents_are_spread_is_what_a_naive_count_says():
    rng = np.random.default_rng(0)
    middles = rng.normal(size=(3, 6))
    cluster = rng.integers(-1, 3, 50)
    points = middles[np.maximum(cluster, 0)] + rng.normal(size=(50, 6)) * 0.6
    points = (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32)
    away = 1 - points @ points.T
    scores = []
    for i in np.flatnonzero(cluster >= 0):
        mean = {c: np.mean([away[i, j] for j in range(50) if cluster[j] == c and j != i]) for c in range(3)}
        own, other = mean.pop(cluster[i]), min(mean[c] for c in range(3) if c != cluster[i])
        scores.append((other - own) / max(own, other))
    assert silhouette(points, cluster) == pytest.approx(np.mean(scores), abs=1e-5)
    assert silhouette(points, np.zeros(50, int)) is None
    places_ = rng.normal(size=(50, 2)).astype(np.float32)
    square = frame(places_)
    found = structure(points, places_, cluster, square, seed=0)
    cosines = points @ points.T - 3 * np.eye(50)
    assert found.nearest_cosine == pytest.approx(np.median(cosines.max(1)), abs=1e-5)
    middle = [np.mean(column) for column in places_.T]
    spread = np.sqrt(np.mean([np.hypot(*(one - middle)) ** 2 for one in places_])) / square.side
    assert found.spread == pytest.approx(spread, abs=1e-5)
    assert found.variance == pytest.approx(1 - np.linalg.norm(points.mean(0)), abs=1e-5)
    heaps = np.repeat(np.eye(4, dtype=np.float32), 5, axis=0)
    assert silhouette(heaps, np.repeat(np.arange(4), 5)) == pytest.approx(1)


def embedded(database, slug, latents, model="a", seed=0):
    """Vectors stored as of explanations of these latents."""
    rng = np.random.default_rng(seed)
    vectors = {latent: rng.normal(size=384).astype(np.float32) for latent in latents}
    number = rows(database, "SELECT id FROM sae WHERE slug = :slug", slug=slug)[0].id
    prepare_partitions(database, number)
    with database.begin() as connection:
        connection.execute(text("DELETE FROM explanation WHERE sae_id = :sae"), {"sae": number})
        named = "INSERT INTO embedding VALUES (:sae, :model) ON CONFLICT (sae_id) DO UPDATE SET model = :model"
        connection.execute(text(named), {"sae": number, "model": model})
        for latent, vector in vectors.items():
            one = (
                "INSERT INTO explanation (sae_id, latent, method, text, label, embedding) "
                "VALUES (:sae, :latent, 'person', 'x', 'x', CAST(:vector AS halfvec))"
            )
            connection.execute(text(one), {"sae": number, "latent": latent, "vector": str(vector.tolist())})
    return vectors


def test_a_map_of_what_is_said_has_those_of_which_something_is(database, own, command):
    embedded(database, LEFT, range(3, 8))
    told = command("map", LEFT, "--method", "pca", "--on", "explanations")[1]
    assert told.endswith(
        f"saescope: Of 40 latents 5 have an explanation that is embedded; a map needs 8. 'saescope explain {LEFT}' and "
        f"'saescope embed {LEFT}' make them.\n"
    )
    vectors = embedded(database, LEFT, range(10, 30))
    made = make_map(LEFT, Recipe("pca", "explanations"), database, own.home)
    assert (made.row.placed, made.row.unplaced) == (20, 20)
    assert made.whole.points.latent.tolist() == list(range(10, 30))
    given = np.array([vector / np.linalg.norm(vector) for vector in vectors.values()], np.float32)
    expected = layout.components(given).places(given)
    assert made.whole.points.layout == pytest.approx(expected, abs=2e-3)  # vectors are kept in half precision
    embedded(database, RIGHT, range(12), model="b")
    with pytest.raises(MapImpossible, match="Explanations embedded by a and b cannot share a frame; embed both anew"):
        make_maps([LEFT, RIGHT], Recipe("pca", "explanations"), database, own.home)


def test_of_several_explanations_the_labels_own_is_taken(database):
    embedded(database, LEFT, range(8))
    number = rows(database, "SELECT id FROM sae WHERE slug = :slug", slug=LEFT)[0].id
    with database.begin() as connection:
        vector = str([1.0] + [0.0] * 383)
        newer = (
            "INSERT INTO explanation (sae_id, latent, method, text, label, embedding) "
            "SELECT :sae, i, 'rules', 'y', 'y', CAST(:vector AS halfvec) FROM generate_series(0, 1) AS i"
        )
        connection.execute(text(newer), {"sae": number, "vector": vector})
        first = "SELECT min(id) FROM explanation WHERE sae_id = :sae AND latent = 0"
        label = f"UPDATE latent SET explanation_id = ({first}) WHERE sae_id = :sae AND index = 0"
        connection.execute(text(label), {"sae": number})
    with database.connect() as connection:
        found = read_vectors(connection, number)
    assert found.latents.tolist() == list(range(8))
    assert found.vectors[1].tolist() == [1.0] + [0.0] * 383  # the newest
    assert found.vectors[0].tolist() != found.vectors[1].tolist()  # the label's
    assert found.model == "a"
    with database.begin() as connection:
        connection.execute(text("UPDATE latent SET explanation_id = NULL WHERE sae_id = :sae"), {"sae": number})


@pytest.fixture(scope="module")
def site(database, own):
    make_maps([LEFT, RIGHT], PCA, database, own.home)
    with TestClient(create_app(own)) as client:
        yield client


@pytest.fixture(scope="module")
def shared(site, database):
    """The versions of the two maps in one frame."""
    stored = maps(database)
    return stored[LEFT].version, stored[RIGHT].version


def asked(site, path=MAP, **query):
    answer = site.get(f"{path}.json", params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


def spots(database, own, version):
    [row] = rows(database, "SELECT id FROM map WHERE version = :v AND beside <> '{}'", v=version)
    return {int(latent): (int(x), int(y)) for latent, _, _, x, y in places(database, row)}


def test_marks_go_over_to_each_others_nearest(site, database, own, shared):
    left, right = shared
    pairs, there = mutual(database, own), spots(database, own, right)
    page = asked(site, map=left, beside=RIGHT, within="0,0 65536,65536")
    assert sorted(page["found"]["marks"]["latents"]) == list(range(40))
    two = page["beside"]
    assert (two["map"]["version"], two["aligned"], two["same"], two["sae"]) == (right, True, False, RIGHT)
    assert dict(zip(two["of"], two["marks"]["latents"], strict=True)) == pairs
    assert two["matched"] == len(pairs)
    for latent, x, y in zip(*(two["marks"][name] for name in ("latents", "x", "y")), strict=True):
        assert there[latent] == (x, y)
    a, b = decoder(database, own, LEFT), decoder(database, own, RIGHT)
    assert {(one["of"], one["index"]) for one in two["items"]} == set(pairs.items())
    assert all(one["cosine"] == pytest.approx(float(a[one["of"]] @ b[one["index"]]), abs=1e-4) for one in two["items"])


def test_what_is_marked_on_the_right_goes_over_to_the_left(site, database, own, shared):
    left, right = shared
    pairs = mutual(database, own)
    one, two = next(iter(pairs.items()))
    page = asked(site, map=left, beside=right, side="right", feature=two)
    assert (page["marked"], page["spot"]["index"]) == (f"{RIGHT}", two)
    assert page["beside"]["spot"]["index"] == one
    assert f"/saes/{LEFT}/" in page["beside"]["spot"]["url"]
    alone = next(i for i in range(40) if i not in pairs)
    page = asked(site, map=left, beside=right, feature=alone)
    assert (page["spot"]["index"], page["beside"]["spot"]) == (alone, None)
    html = site.get(MAP, params={"map": left, "beside": right, "feature": alone}).text
    assert "None: no feature there is its nearest while it is that one" in html


def test_lines_join_what_is_marked_else_the_closest(site, database, own, shared):
    left, right = shared
    pairs, here, there = mutual(database, own), spots(database, own, left), spots(database, own, right)
    assert asked(site, map=left, beside=right)["beside"]["pairs"] == []
    page = asked(site, map=left, beside=right, lines=1)["beside"]["pairs"]
    assert {one["left"]: one["right"] for one in page} == pairs
    assert [one["cosine"] for one in page] == sorted((one["cosine"] for one in page), reverse=True)
    assert all(
        here[one["left"]] == (one["x"], one["y"]) and there[one["right"]] == (one["x2"], one["y2"]) for one in page
    )
    some = next(iter(pairs.items()))
    [line] = asked(site, map=left, beside=right, lines=1, feature=some[0])["beside"]["pairs"]
    assert (line["left"], line["right"]) == some
    [line] = asked(site, map=left, beside=right, lines=1, feature=some[1], side="right")["beside"]["pairs"]
    assert (line["left"], line["right"]) == some


def test_two_maps_of_one_sae_mark_the_same_latents(site, database, own, shared):
    other = make_map(LEFT, Recipe("pca", "encoder"), database, own.home).row.version
    page = asked(site, map=shared[0], beside=other, within="0,0 65536,30000")
    two = page["beside"]
    assert (two["same"], two["aligned"], two["items"]) == (True, False, [])
    assert two["marks"]["latents"] == page["found"]["marks"]["latents"] == two["of"]
    on_right = asked(site, map=shared[0], beside=other, within="0,0 65536,30000", side="right")
    assert set(on_right["found"]["marks"]["latents"]) != set(page["found"]["marks"]["latents"])
    held = asked(site, map=shared[0], beside=other, feature=3)
    assert held["spot"]["index"] == held["beside"]["spot"]["index"] == 3
    assert (held["spot"]["x"], held["spot"]["y"]) != (held["beside"]["spot"]["x"], held["beside"]["spot"]["y"])


def test_a_text_lights_up_both(site, shared):
    text_ = "Paris is the capital"
    page = asked(site, map=shared[0], beside=shared[1], text=text_)
    alone = asked(site, f"/saes/{RIGHT}/map", map=shared[1], text=text_)
    assert page["beside"]["marks"] == alone["found"]["marks"]
    assert page["found"]["marks"] == asked(site, map=shared[0], text=text_)["found"]["marks"]


def test_what_can_stand_beside_is_offered_and_pages_are_new_when_it_changes(site, database, own, shared):
    page = asked(site, map=shared[0])
    assert [one["value"] for one in page["others"] if one["aligned"]] == [RIGHT]
    html = site.get(MAP, params={"map": shared[0], "beside": RIGHT, "within": "0,0 65536,65536"})
    assert html.text.count('class="map-still"') == 2
    assert f"Their counterparts in {RIGHT}" in html.text
    first = site.get(MAP, params={"map": shared[0]})
    same = {"if-none-match": first.headers["etag"]}
    assert site.get(MAP, params={"map": shared[0]}, headers=same).status_code == 304
    make_map(RIGHT, Recipe("pca", "encoder"), database, own.home)  # another SAE's pages show what there is
    assert site.get(MAP, params={"map": shared[0]}, headers=same).status_code == 200


def test_a_form_without_a_second_map_leaves_nothing_of_it(site):
    answer = site.get(f"{MAP}?beside=&side=right&lines=1&color=sign", follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, f"{MAP}?color=sign")


@pytest.mark.parametrize(
    ("query", "status", "told"),
    [
        ("side=right", 422, "side=right is of a second map; name one with beside."),
        ("beside=nothing", 404, "There is no SAE 'nothing' here"),
        ("beside=%00", 422, "beside does not fit"),
        ("beside=layer-1&z2=13", 422, "z2 does not fit"),
        ("beside=layer-1&side=middle", 422, "side does not fit"),
        ("beside=layer-1&lines=maybe", 422, "lines does not fit"),
    ],
)
def test_what_does_not_fit_is_told(site, query, status, told):
    for path in (MAP, f"{MAP}.json"):
        answer = site.get(f"{path}?{query}")
        assert (answer.status_code, told in answer.text.replace("&#39;", "'")) == (status, True), answer.text
