"""Hover cards, pictures for link previews, embeds and oEmbed."""

import io
import re
from html import unescape

import pytest
from PIL import Image

from app.web import picture
from app.web.contexts import Glimpse
from app.web.preview_contexts import FeatureCard
from tests.conftest import SLUG

BASE = f"/saes/{SLUG}/features"
HOST = {"host": "testserver"}


def tags(page):
    found = re.findall(r'<meta (?:property|name)="((?:og|twitter):[a-z:]+)" content="([^"]*)">', page)
    return {name: unescape(value) for name, value in found}


def drawn(png):
    image = Image.open(io.BytesIO(png))
    assert (image.format, image.size) == ("PNG", (1200, 630))
    return {colour: count for count, colour in image.getcolors(1 << 20)}


def card_of(**changes):
    example = Glimpse(tokens=["one", " two", " three"], activations=[0.0, 1.0, 2.0], position=2, maximum=2.0)
    facts = {
        "sae": "s", "revision": "r", "address": "s", "index": 1, "label": "numbers", "label_source": "top-tokens",
        "label_score": None, "density": 0.01, "max": 2.0, "min": 0.0, "promoted": [], "example": example, "url": "/",
    }  # fmt: skip
    return FeatureCard(**{**facts, **changes})


def test_a_card_is_a_fragment_and_a_twin_that_agree_with_the_page(client):
    page = client.get(f"{BASE}/7.json").json()
    card = client.get(f"{BASE}/7/card.json").json()
    assert {name: card[name] for name in ("index", "label", "label_source", "density", "max", "min")} == {
        name: page[name] for name in ("index", "label", "label_source", "density", "max", "min")
    }
    assert card["promoted"] == [token["token"] for token in page["promoted"][:5]]
    top = next(e for e in page["examples"] if e["interval"] == "top")
    middle = card["example"]
    assert middle["activations"][middle["position"]] == pytest.approx(top["activation"], rel=1e-4)
    assert "".join(middle["tokens"]).strip() in "".join(top["tokens"])
    fragment = client.get(f"{BASE}/7/card").text
    assert "<html" not in fragment
    assert f'href="{BASE}/7"' in fragment
    assert 'class="heat"' in fragment
    assert client.get(f"{BASE}/40/card").status_code == 404


def test_feature_and_sae_pages_carry_absolute_preview_tags_whose_pictures_are_there(client):
    for path in (f"{BASE}/7", f"/saes/{SLUG}"):
        found = tags(client.get(path).text)
        assert found["og:url"] == f"http://testserver{path}"
        assert found["twitter:card"] == "summary_large_image"
        assert found["og:description"]
        picture = client.get(found["og:image"])
        assert picture.headers["content-type"] == "image/png"
        drawn(picture.content)
    label = client.get(f"{BASE}/7.json").json()["label"]
    assert tags(client.get(f"{BASE}/7").text)["og:title"].startswith(label)
    assert tags(client.get(f"{BASE}/7", headers={"host": "localhost:8000"}).text)["og:url"].startswith(
        "http://localhost:8000/"
    )
    assert client.get(f"{BASE}/7", headers={"host": "elsewhere.example"}).status_code == 421


def test_the_picture_has_the_colours_of_the_heat_map():
    colours = picture.colours()
    assert colours["--a10"] == (0xF0, 0x8A, 0x24)
    with_heat = drawn(picture.feature_picture(card_of()))
    assert with_heat[colours["--a7"]] > 500  # 1 of 2: level round(10 log10(5.5)) = 7
    without = drawn(picture.feature_picture(card_of(example=None)))
    assert colours["--a7"] not in without
    signed = Glimpse(tokens=["minus"], activations=[-2.0], position=0, maximum=2.0)
    assert drawn(picture.feature_picture(card_of(example=signed, min=-2.0)))[colours["--n10"]] > 500


def test_characters_no_font_has_are_drawn_as_boxes(monkeypatch):
    monkeypatch.setattr(picture, "_FONTS", ())
    for cached in (picture.fonts, picture.font_of):
        cached.cache_clear()
    assert [text for text, font in picture.runs("ab中c", 20) if font is None] == ["中"]
    plain, boxed = (drawn(picture.feature_picture(card_of(label=label, example=None))) for label in ("a", "a中"))
    text = picture.colours()["--text"]
    assert boxed[text] > plain[text] + 100
    for cached in (picture.fonts, picture.font_of):
        cached.cache_clear()


def test_long_labels_stay_inside_the_picture():
    drawn(picture.feature_picture(card_of(label="word " * 200)))
    drawn(picture.feature_picture(card_of(label="x" * 400)))
    right = picture.WIDTH - picture.MARGIN
    image = Image.open(io.BytesIO(picture.feature_picture(card_of(label="word " * 200)))).crop(
        (right + 4, 0, 1200, 600)
    )
    assert image.getcolors() == [((1200 - right - 4) * 600, picture.colours()["--bg"])]


def test_an_embed_may_be_framed_anywhere_and_nothing_else_may(client):
    embed = client.get(f"{BASE}/7/embed")
    assert "frame-ancestors *" in embed.headers["content-security-policy"]
    assert "set-cookie" not in embed.headers
    assert "<script" not in embed.text
    for path in ("/", f"{BASE}/7", f"{BASE}/7/card", f"/saes/{SLUG}", f"{BASE}/40/embed"):
        policy = client.get(path).headers["content-security-policy"]
        assert ("frame-ancestors 'none'" in policy) == (path != f"{BASE}/40/embed")


@pytest.mark.parametrize("panel", ["stats", "histogram", "logits", "tokens", "neighbours", "coactive"])
def test_every_panel_of_an_embed_has_a_switch(client, panel):
    def shown(**query):
        return set(re.findall(r'data-panel="(\w+)"', client.get(f"{BASE}/7/embed", params=query).text))

    assert panel in shown(**{panel: 1})
    assert panel not in shown(**{panel: 0})
    assert shown(stats=0, histogram=0, examples=0) == set()


def test_an_embed_shows_as_many_examples_as_asked_in_the_theme_asked(client):
    for wanted in (1, 4):
        page = client.get(f"{BASE}/7/embed", params={"examples": wanted, "theme": "dark"}).text
        assert page.count('class="heat') == wanted
        assert 'data-theme="dark"' in page
    assert client.get(f"{BASE}/7/embed", params={"examples": 51}).status_code == 422


def test_oembed_leads_to_an_embed_that_works(client):
    page = client.get(f"{BASE}/7").text
    discovered = unescape(re.search(r'<link rel="alternate" type="application/json\+oembed" href="([^"]+)"', page)[1])
    told = client.get(discovered).json()
    assert (told["version"], told["type"]) == ("1.0", "rich")
    source = unescape(re.search(r'src="([^"]+)"', told["html"])[1])
    assert "frame-ancestors *" in client.get(source).headers["content-security-policy"]
    assert client.get(told["thumbnail_url"]).headers["content-type"] == "image/png"
    small = client.get(discovered, params={"maxwidth": 300, "url": f"http://testserver{BASE}/7"}).json()
    assert small["width"] == 300
    assert 'width="300"' in small["html"]


@pytest.mark.parametrize(
    ("url", "status"),
    [
        (f"http://elsewhere.example{BASE}/7", 404),
        ("http://testserver/", 404),
        (f"ftp://testserver{BASE}/7", 404),
        (f"http://testserver{BASE}/40", 404),
        ("http://[", 404),
        (f"http://testserver{BASE}/7", 200),
    ],
)
def test_oembed_knows_feature_pages_of_this_server_alone(client, url, status):
    assert client.get("/oembed", params={"url": url}).status_code == status


def test_oembed_is_json_alone(client):
    told = client.get("/oembed", params={"url": f"http://testserver{BASE}/7", "format": "xml"})
    assert told.status_code == 501


def test_the_share_block_has_links_and_code_that_work(client, harvested):
    page = client.get(f"{BASE}/7").text
    code = unescape(unescape(re.search(r"<textarea[^>]*readonly[^>]*>([^<]*)</textarea>", page)[1]))
    assert client.get(re.search(r'src="([^"]+)"', code)[1]).status_code == 200
    assert f"http://testserver/saes/{SLUG}@{harvested[0]}/features/7" in page
