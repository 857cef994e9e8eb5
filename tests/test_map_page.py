"""The map's page over HTTP: what it marks and holds, its groups' pages, and links from elsewhere."""

import csv
import io

import numpy as np
import pytest
from sqlalchemy import text

from app.atlas import make, tiles
from app.store.engine import database_url, sync_engine
from tests.conftest import LAYERS, SLUG
from tests.counting import counted_queries
from tests.test_map_routes import data, mapped, site  # noqa: F401

MAP = f"/saes/{SLUG}/map"
TRIANGLE = ((0, 0), (65536, 0), (0, 65536))


@pytest.fixture(scope="module")
def points(site, data):  # noqa: F811
    """[n, 3]: latent, x and y of every point, by latent."""
    waiting, found = [(0, 0, 0)], []
    while waiting:
        z, x, y = waiting.pop()
        tile = tiles.decoded(site.get(data["tiles"].format(z=z, x=x, y=y)).content)
        found.append(np.stack([tile.latent, tile.x, tile.y], axis=1).astype(int))
        waiting += [(z + 1, 2 * x + bit % 2, 2 * y + bit // 2) for bit in range(4) if tile.children >> bit & 1]
    every = np.concatenate(found)
    return every[np.argsort(every[:, 0])]


def asked(site, **query):  # noqa: F811
    answer = site.get(f"{MAP}.json", params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


def marked(page):
    return sorted(page["found"]["marks"]["latents"])


def test_an_sae_without_a_map_says_how_to_make_one(layered_client):
    page = layered_client.get(f"/saes/{LAYERS[0]}/map")
    assert page.status_code == 200
    assert f"saescope map {LAYERS[0]}" in page.text
    assert layered_client.get(f"/saes/{LAYERS[0]}/map.json").json()["map"] is None
    assert f"saescope map {LAYERS[0]}" in layered_client.get(f"/saes/{LAYERS[0]}").text
    assert f"saescope map {LAYERS[0]}" in layered_client.get(f"/saes/{LAYERS[0]}/features/3").text
    answer = layered_client.get(f"/saes/{LAYERS[0]}/map.json?map=abc")
    assert (answer.status_code, answer.json()["code"]) == (404, "map_unknown")


def test_without_a_script_there_are_the_picture_and_the_lists(site, data):  # noqa: F811
    html = site.get(MAP, params={"map": data["version"]}).text
    assert f'src="{data["density"]}"' in html
    for region in data["regions"]:
        assert f'href="{region["page"]}"' in html
        for cluster in region["clusters"]:
            assert f'href="{cluster["page"]}"' in html


def test_the_page_opens_with_the_map_that_keeps_most_neighbours(site, mapped, settings):  # noqa: F811
    first = site.get(f"/saes/{SLUG}", headers={})
    engine = sync_engine(database_url(settings))
    pca = make.make_map(SLUG, make.Recipe("pca", "encoder"), engine, settings.home).row
    try:
        again = site.get(f"/saes/{SLUG}")
        assert again.headers["etag"] != first.headers["etag"]  # the page shows maps
        with engine.connect() as connection:
            share = "SELECT version, quality->method->>'knn_preservation' FROM map"
            mine = text(f"{share} WHERE sae_id = (SELECT sae_id FROM map WHERE version = :v)")
            rows = connection.execute(mine, {"v": pca.version}).all()
        kept = {version: float(share) for version, share in rows}
        versions, best = list(kept), max(kept, key=lambda version: kept[version])
        assert {mapped.row.version, pca.version} <= set(versions)
        page = asked(site)
        assert page["map"]["version"] == best
        assert page["maps"][0]["version"] == best
        assert sorted(one["version"] for one in page["maps"]) == sorted(versions)
        other = next(version for version in versions if version != best)
        assert asked(site, map=other)["map"]["version"] == other
        assert site.get(f"/saes/{SLUG}/features/3.json").json()["map"]["version"] == best
    finally:
        with engine.begin() as connection:
            connection.execute(text("DELETE FROM map WHERE version = :v"), {"v": pca.version})
        engine.dispose()


def test_a_label_marks_those_that_hold_it(site):  # noqa: F811
    every = site.get(f"/saes/{SLUG}/features.json?limit=100").json()["items"]
    word = next(item["label"] for item in every if item["label"][:3].isalpha())[:3]
    wanted = [item["index"] for item in every if word.lower() in item["label"].lower()]
    page = asked(site, q=word)
    assert marked(page) == wanted
    assert [item["index"] for item in page["found"]["items"]] == wanted
    assert page["found"]["found"] == len(wanted)
    nothing = asked(site, q="no label is called this")
    assert (marked(nothing), nothing["found"]["found"]) == ([], 0)


def test_a_number_is_a_feature(site):  # noqa: F811
    answer = site.get(f"{MAP}?q=7&color=sign", follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, f"{MAP}?color=sign&feature=7")
    tidied = site.get(f"{MAP}?map=&q=&color=sign", follow_redirects=False)
    assert tidied.headers["location"] == f"{MAP}?color=sign"


@pytest.mark.parametrize("corners", [((0, 0), (30000, 65536)), TRIANGLE, ((0, 0), (65536, 65536))])
def test_an_outline_marks_what_lies_in_it(site, points, corners):  # noqa: F811
    _, x, y = points.T
    if len(corners) == 2:
        (left, bottom), (right, top) = corners
        inside = (x >= left) & (x <= right) & (y >= bottom) & (y <= top)
    else:
        inside = x + y <= 65536
    wanted = points[inside, 0].tolist()
    assert wanted  # of every outline
    within = " ".join(f"{x},{y}" for x, y in corners)
    page = asked(site, within=within)
    assert marked(page) == wanted
    assert page["found"]["found"] == len(wanted)
    places = dict(zip(page["found"]["marks"]["latents"], page["found"]["marks"]["x"], strict=True))
    assert all(places[latent] == x for latent, x in zip(wanted, x[inside].tolist(), strict=True))
    rows = list(csv.DictReader(io.StringIO(site.get(page["found"]["csv"]).text)))
    assert [int(row["index"]) for row in rows] == wanted
    listed = site.get(f"/saes/{SLUG}/features.json", params={"within": within, "limit": 100}).json()
    assert [item["index"] for item in listed["items"]] == wanted
    assert listed["found"] == len(wanted)


def test_filters_hold_together(site, points, data):  # noqa: F811
    cluster = data["regions"][0]["clusters"][0]
    both = asked(site, cluster=cluster["id"], within="0,0 65536,32768")
    alone = asked(site, cluster=cluster["id"])
    low = points[points[:, 2] <= 32768, 0].tolist()
    assert marked(both) == sorted(set(marked(alone)) & set(low))
    assert alone["found"]["found"] == cluster["size"]
    assert f"“{cluster['name']}”" in alone["found"]["title"]
    assert alone["found"]["page"] == cluster["page"]
    label = alone["found"]["items"][0]["label"]
    named = asked(site, cluster=cluster["id"], q=label)
    assert alone["found"]["items"][0]["index"] in marked(named)
    assert set(marked(named)) <= set(marked(alone))


def test_a_groups_page_lists_its_features(site, data):  # noqa: F811
    seen = []
    for region in data["regions"]:
        page = site.get(f"{region['page']}.json").json()
        assert (page["kind"], page["name"], page["size"]) == ("region", region["name"], region["size"])
        assert [one["id"] for one in page["clusters"]] == [one["id"] for one in region["clusters"]]
        for cluster in region["clusters"]:
            page = site.get(f"{cluster['page']}.json").json()
            members = [item["index"] for item in page["features"]["items"]]
            assert len(members) == cluster["size"] == page["features"]["found"]
            assert page["centre"] in members
            assert page["parent"]["id"] == region["id"]
            assert sum(page["density_histogram"]["counts"]) == page["alive"]
            densities = [item["density"] for item in page["features"]["items"]]
            assert densities == sorted(densities, reverse=True)
            assert [term["term"] for term in page["terms"]] == cluster["terms"]
            assert site.get(page["on_map"]).status_code == 200
            html = site.get(cluster["page"]).text
            assert all(f"/features/{member}" in html for member in members)
            seen += members
    alone = site.get(f"/saes/{SLUG}/features.json?cluster=none&limit=100").json()["items"]
    assert sorted(seen + [item["index"] for item in alone]) == list(range(40))
    answer = site.get(f"{data['regions'][0]['page'].rpartition('/')[0]}/77.json")
    assert (answer.status_code, "has no region 77; it has 2 of them" in answer.json()["message"]) == (404, True)


def test_a_held_feature_has_its_place_and_its_company(site, points):  # noqa: F811
    spot = asked(site, feature=3)["spot"]
    feature = site.get(f"/saes/{SLUG}/features/3.json").json()
    assert [spot["index"], spot["x"], spot["y"]] == points[3].tolist()
    assert spot["label"] == feature["label"]
    assert [one["index"] for one in spot["company"]] == [one["index"] for one in feature["neighbours"]]
    scores = [one["score"] for one in spot["company"]]
    assert scores == pytest.approx([one["cosine"] for one in feature["neighbours"]])
    assert [[one["index"], one["x"], one["y"]] for one in spot["company"]] == [
        points[one["index"]].tolist() for one in spot["company"]
    ]
    assert (feature["map"]["x"], feature["map"]["y"]) == (spot["x"], spot["y"])
    html = site.get(f"/saes/{SLUG}/features/3").text
    assert f'href="{MAP}?feature=3"' in html
    missing = asked(site, feature=4000)
    assert (missing["spot"], "0 to 39" in missing["told"]) == (None, True)


def test_a_text_lights_up_what_fires_on_it(site):  # noqa: F811
    text_ = "Paris is the capital of France"
    found = asked(site, text=text_)["found"]
    read = site.post("/api/inspect", json={"text": text_, "sae": SLUG, "top": 40}).json()["saes"][0]["latents"]
    assert len(read) == found["found"] > 3
    assert [item["index"] for item in found["items"]] == [one["index"] for one in read]
    assert [item["share"] for item in found["items"]] == pytest.approx([one["share"] for one in read])
    assert found["marks"]["values"] == pytest.approx([one["share"] for one in read], abs=1e-4)
    assert site.get(MAP, params={"text": text_}).headers["cache-control"] == "private, no-store"
    long = asked(site, text="word " * 100)
    assert (long["found"], "limit is 47" in long["told"]) == (None, True)


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ("within=3", "within holds '3'; corners are x,y with numbers from 0 to 65536."),
        ("within=1,2", "within has 1 corner; give 2, which span a rectangle, to 500."),
        ("within=" + "+".join(["1,2"] * 501), "within has 501 corners"),
        ("cluster=two", "cluster is 'two'; give its number, or none."),
        ("text=Paris&q=a", "A text lights up the whole map; leave out q, region, cluster and within."),
        ("x=-1", "x does not fit"),
        ("z=13", "z does not fit"),
        ("color=taste", "color does not fit"),
        ("q=%00", "q does not fit"),
    ],
)
def test_what_does_not_fit_is_named(site, query, told):  # noqa: F811
    for path in (f"{MAP}.json", MAP):
        answer = site.get(f"{path}?{query}")
        assert answer.status_code == 422
        assert told in answer.text.replace("&#39;", "'")


@pytest.mark.parametrize("query", ["", "q=a&feature=3", "within=0,0+65536,65536&feature=3", "cluster=0"])
def test_a_map_page_asks_at_most_six_queries(site, query, data):  # noqa: F811
    for path in (f"{MAP}?{query}", data["regions"][0]["page"], f"/saes/{SLUG}", f"/saes/{SLUG}/features/3"):
        with counted_queries(site) as statements:
            assert site.get(path).status_code == 200
        told = [one for one in statements if not one.startswith(("BEGIN", "ROLLBACK"))]
        assert len(told) <= 6, told


def test_the_navigation_leads_to_a_map(site):  # noqa: F811
    answer = site.get("/map", follow_redirects=False)
    assert answer.status_code == 303
    assert answer.headers["location"].endswith("/map")
