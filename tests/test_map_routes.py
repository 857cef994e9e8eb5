"""Maps over HTTP: the list, a map with its regions, tiles and the picture."""

import io
from functools import partial

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image
from sqlalchemy import text

from app.atlas import finish, make, tiles
from app.atlas.colours import COLOURS
from app.main import create_app
from app.store.engine import database_url, sync_engine
from tests.conftest import SLUG

IMMUTABLE = "public, max-age=31536000, immutable"


@pytest.fixture(scope="module")
def mapped(harvested, settings):
    """A map of the tests' SAE, in two heaps, cut into small tiles."""
    engine = sync_engine(database_url(settings))
    with pytest.MonkeyPatch.context() as small:
        small.setattr(finish.tiles, "tree", partial(tiles.tree, root=8, tile=5))
        heaps = np.repeat([[0, 0], [9, 1]], 20, axis=0) + np.random.default_rng(0).normal(size=(40, 2)) * 0.1
        small.setattr(make.layout, "tsne", lambda graph, start, seed, step=None: heaps.astype(np.float32))
        made = make.make_map(SLUG, make.Recipe("tsne"), engine, settings.home)
    yield made
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM map"))
    engine.dispose()


@pytest.fixture(scope="module")
def site(mapped, settings):
    with TestClient(create_app(settings)) as client:
        yield client


@pytest.fixture(scope="module")
def data(site, mapped):
    return site.get(f"/saes/{SLUG}/map/{mapped.row.version}.json").json()


def test_the_list_leads_to_the_map(site, mapped, data):
    [item] = site.get(f"/saes/{SLUG}/maps.json").json()["items"]
    assert (item["method"], item["on"], item["version"]) == ("tsne", "decoder", mapped.row.version)
    assert site.get(item["url"]).json() == data
    assert {name: data[name] for name in item} == item
    assert data["quality"]["tsne"]["trustworthiness"] == mapped.row.quality["tsne"]["trustworthiness"]
    assert data["facts"]["recall"] == 1
    assert data["colors"] == list(COLOURS)
    assert (data["placed"], data["sae"], data["revision"]) == (40, SLUG, mapped.revision)


def test_an_sae_with_a_map_is_read_as_before(site):
    assert site.post("/api/inspect", json={"text": "Paris", "sae": SLUG}).status_code == 200


def test_regions_hold_their_clusters(data, mapped, site):
    regions = [one for one in mapped.clusters if one.level == 0]
    assert len(regions) == 2
    assert [region["name"] for region in data["regions"]] == [one.name for one in regions]
    inside = [cluster["id"] for region in data["regions"] for cluster in region["clusters"]]
    assert sorted(inside) == [one.id for one in mapped.clusters if one.level == 1]
    assert [region["size"] for region in data["regions"]] == [one.size for one in regions]
    assert site.get(data["regions"][0]["url"]).status_code == 200


def test_walking_down_the_children_finds_every_latent_once(site, data):
    waiting, seen, depths = [(0, 0, 0)], [], set()
    while waiting:
        z, x, y = waiting.pop()
        answer = site.get(data["tiles"].format(z=z, x=x, y=y))
        assert answer.headers["cache-control"] == IMMUTABLE
        assert "content-encoding" not in answer.headers
        tile = tiles.decoded(answer.content)
        assert tile.z == z
        assert 1 <= len(tile.latent) <= (5 if z else 8)
        assert set((tile.x >> (16 - z)).tolist()) == {x}
        assert set((tile.y >> (16 - z)).tolist()) == {y}
        seen += tile.latent.tolist()
        depths.add(z)
        waiting += [(z + 1, 2 * x + bit % 2, 2 * y + bit // 2) for bit in range(4) if tile.children >> bit & 1]
    assert sorted(seen) == list(range(40))
    assert len(depths) > 1


def test_colours_are_the_latents_own(site, data):
    root = data["tiles"].format(z=0, x=0, y=0)
    by_color = {color: tiles.decoded(site.get(root, params={"color": color}).content) for color in COLOURS}
    assert tiles.decoded(site.get(root).content).colour.tolist() == by_color["density"].colour.tolist()
    for place, latent in enumerate(by_color["density"].latent.tolist()):
        shown = site.get(f"/saes/{SLUG}/features/{latent}/card.json").json()
        tenths = 1 + 254 * (1 + np.log10(shown["density"]) / 7) if shown["density"] else 0
        assert by_color["density"].colour[place] == pytest.approx(tenths, abs=1)
        assert by_color["sign"].colour[place] == (shown["max"] > 0) + 2 * (shown["min"] < 0)
        assert by_color["score"].colour[place] == 0
    answer = site.get(root, params={"color": "taste"})
    assert (answer.status_code, "'density', 'maximum'" in answer.text.replace("&#39;", "'")) == (422, True)


def test_a_tile_without_latents_is_empty_and_one_off_the_map_is_refused(site, data, mapped):
    for z, x in ((16, 65_535), (16, 1)):
        assert tiles.decoded(site.get(data["tiles"].format(z=z, x=x, y=7)).content).latent.tolist() == []
    for z, x, y, says in (
        (3, 8, 0, "There is no tile 3/8/0; at level 3, x and y are 0 to 7."),
        (0, 0, -1, "There is no tile 0/0/-1; at level 0, x and y are 0 to 0."),
        (17, 0, 0, "There is no tile 17/0/0; levels are 0 to 16."),
    ):
        answer = site.get(data["tiles"].format(z=z, x=x, y=y))
        assert (answer.status_code, says in answer.text) == (404, True)
        assert answer.headers["cache-control"] != IMMUTABLE
    assert site.get(f"/saes/{SLUG}/map/{mapped.row.version}/1/a/0.bin").status_code == 422
    assert site.get(data["tiles"].format(z=99**9, x=0, y=0)).status_code == 404


def test_the_picture_shows_every_latent(site, data):
    answer = site.get(data["density"])
    assert (answer.headers["content-type"], answer.headers["cache-control"]) == ("image/png", IMMUTABLE)
    alpha = np.asarray(Image.open(io.BytesIO(answer.content)))[:, :, 3]
    assert alpha.shape == (512, 512)
    assert 1 <= (alpha > 0).sum() <= 40 * 5
    assert alpha.max() == 255
    tile = tiles.decoded(site.get(data["tiles"].format(z=0, x=0, y=0)).content)
    assert (alpha[511 - tile.y // 128, tile.x // 128] > 0).all()


@pytest.mark.parametrize("path", ["{v}.json", "{v}/0/0/0.bin", "{v}/density.png"])
def test_a_version_that_is_not_here_is_named_with_those_that_are(site, mapped, path):
    answer = site.get(f"/saes/{SLUG}/map/{path.format(v='nothing')}")
    assert answer.status_code == 404
    assert f"has no map 'nothing' here; there are: {mapped.row.version}." in answer.text.replace("&#39;", "'")
    answer = site.get(f"/saes/nobody/map/{path.format(v=mapped.row.version)}")
    assert (answer.status_code, "There is no SAE" in answer.text) == (404, True)


def test_a_pinned_address_has_the_same_tiles(site, data, mapped):
    pinned = f"{SLUG}@{mapped.revision}"
    again = site.get(f"/saes/{pinned}/map/{mapped.row.version}.json").json()
    assert again["tiles"].startswith(f"/saes/{pinned}/map/")
    tile = site.get(again["tiles"].format(z=0, x=0, y=0)).content
    assert tile == site.get(data["tiles"].format(z=0, x=0, y=0)).content
