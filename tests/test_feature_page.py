"""The feature page over HTTP: its panels, switches, links and queries."""

import re
from html import unescape

import pytest

from app.web import patterns
from app.web.examples import Look
from app.web.features import panels
from app.web.rendering import ROOT, render_page
from tests.conftest import SLUG
from tests.counting import counted_queries

BASE = f"/saes/{SLUG}"


def live(client):
    """A latent that fired often, with its page's JSON."""
    found = (client.get(f"{BASE}/features/{i}.json").json() for i in range(40))
    return max(found, key=lambda page: page["fired"])


def render(page, look=None):
    return render_page("feature.html", **panels(page, look or Look()), **shared())


def shared():
    """What the route adds for previews is left out here."""
    from starlette.requests import Request

    scope = {"type": "http", "method": "GET", "path": "/", "query_string": b"", "headers": [(b"host", b"testserver")],
             "scheme": "http", "server": ("testserver", 80), "root_path": ""}  # fmt: skip
    return {"request": Request(scope)}


def test_a_feature_page_asks_at_most_six_queries(client):
    index = live(client)["index"]
    for path in (
        f"{BASE}/features/{index}",
        f"{BASE}/features/{index}.json",
        f"{BASE}/features/{index}?text=Paris+is+warm",
    ):
        with counted_queries(client) as statements:
            assert client.get(path).status_code == 200
        assert 4 <= len(statements) <= 6


def test_other_latents_come_with_the_middle_of_their_own_strongest_context(client):
    page = live(client)
    shown = [*page["neighbours"], *page["usage"]["coactive"]]
    assert shown
    for other in shown:
        twin = client.get(f"{BASE}/features/{other['index']}.json").json()
        top = [e for e in twin["examples"] if e["interval"] == "top"]
        if not top:
            assert other["example"] is None
            continue
        best = max(top, key=lambda e: abs(e["activation"]))
        glimpse = other["example"]
        assert glimpse["activations"][glimpse["position"]] == pytest.approx(best["activation"], rel=1e-5)
        assert glimpse["maximum"] == pytest.approx(max(twin["max"], -twin["min"]))
        around = slice(max(0, best["position"] - 10), best["position"] + 11)
        assert glimpse["activations"] == best["activations"][around]
        assert len(glimpse["tokens"]) == len(glimpse["activations"])


def test_switches_are_links_that_keep_the_other_choices_and_the_text(client):
    path = f"{BASE}/features/{live(client)['index']}"
    html = client.get(path, params={"view": "full", "space": "glyphs", "text": "Paris"}).text
    assert '<html lang="en" data-view="full" data-norm="latent" data-space="glyphs">' in html
    links = {
        (name, value): (unescape(href), current)
        for href, name, value, current in re.findall(
            r'<a href="([^"]*)" data-switch="(\w+)" data-value="(\w+)"( aria-current="true")?>', html
        )
    }
    assert len(links) == 7
    assert links["view", "snippet"] == (f"{path}?text=Paris&space=glyphs", "")
    assert links["norm", "row"] == (f"{path}?text=Paris&view=full&norm=row&space=glyphs", "")
    assert links["space", "plain"] == (f"{path}?text=Paris&view=full", "")
    assert {key for key, (_, current) in links.items() if current} == {
        ("view", "full"), ("norm", "latent"), ("space", "glyphs"),
    }  # fmt: skip
    assert "<i class=o>·</i>" in html
    assert "<i class=o>" not in client.get(path).text
    following = re.search(r'data-key="j" rel="next" href="([^"]*)"', html)
    if following:
        assert "view=full" in following[1]
    assert client.get(path, params={"view": "sideways"}).status_code == 422


def test_every_link_into_the_page_has_its_target_once(client):
    html = client.get(f"{BASE}/features/{live(client)['index']}").text
    ids = re.findall(r'\bid="([^"]+)"', html)
    assert len(ids) == len(set(ids))
    targets = re.findall(r'href="#([^"]+)"', html)
    assert "top" in targets
    assert set(targets) <= set(ids)
    labelled = re.findall(r'aria-(?:labelledby|describedby)="([^"]+)"', html)
    assert set(labelled) <= set(ids)


def test_the_bars_count_every_firing_and_lead_to_their_intervals_examples(client):
    page = live(client)
    html = client.get(f"{BASE}/features/{page['index']}").text
    chart = html[html.index('aria-label="Histogram of activations"') :]
    chart = chart[: chart.index("</svg>")]
    counts = [int(n.replace(",", "")) for n in re.findall(r"<title>([\d,]+) from", chart)]
    assert sum(counts) == page["fired"]
    there = {e["interval"] for e in page["examples"]}
    linked = set(re.findall(r'<a href="#interval-(\d)"', chart))
    assert linked
    assert linked <= there


def test_every_panel_says_how_it_is_measured_and_all_numbers_where_they_come_from(client):
    html = client.get(f"{BASE}/features/{live(client)['index']}").text
    panels = re.split(r'<section class="panel" id="', html)[1:]
    told = {panel.partition('"')[0]: "How this is measured" in panel for panel in panels}
    assert {name for name, how in told.items() if how} == {
        "examples", "histogram", "logits", "neighbours", "company", "tokens", "places",
    }  # fmt: skip
    assert {name for name, how in told.items() if not how} == {"explanations", "map", "notes"}
    where = html[html.index("Where these numbers come from") :]
    where = where[: where.index("</details>")]
    for fact in ("Revision", "test text", "Tokens counted", "Harvested", "Density, fired", "Mean, std"):
        assert fact in where


def test_logits_are_only_those_that_are_kept_and_the_page_says_so():
    html = render(patterns.feature())
    assert "Only the 3 most promoted and the 3 most suppressed tokens" in html
    bars = dict.fromkeys(("up", "down"))
    for kind in bars:
        bars[kind] = re.findall(rf'class="share {kind}".*?width="([\d.]+)"', html)
    assert bars == {"up": ["100.0", "83.3", "66.7"], "down": ["75.0", "58.3", "41.7"]}
    unembedded = render(patterns.feature(promoted=[], suppressed=[]))
    assert "no direct effect on the logits" in unembedded


def test_both_signs_stand_side_by_side():
    page = patterns.signed()
    lone = page.examples[1].model_copy(update={"interval": "3"})
    html = render(page.model_copy(update={"examples": [*page.examples, lone]}))
    pairs = re.findall(r'<div class="signs">(.*?)</div>\s*(?=<div class="signs">|<details class="how">)', html, re.S)
    assert [re.findall(r'<section id="([\w-]+)" class="([^"]*)"', pair) for pair in pairs] == [
        [("top", "interval"), ("negative-top", "interval negative")],
        [("interval-9", "interval"), ("negative-interval-9", "interval negative")],
        [("negative-interval-3", "interval negative")],
    ]
    assert 'class="n' in html
    assert "down to" in html  # the legend has both arms
    assert '<div class="signs">' not in render(patterns.feature())
    assert "down to" not in render(patterns.feature())


def test_heads_and_pursuits_are_shown_where_there_are_any():
    plain = render(patterns.feature())
    assert 'id="heads"' not in plain
    assert 'id="pursuit"' not in plain
    html = render(patterns.signed().model_copy(update={"architecture": "matching_pursuit"}))
    assert html.count('<th scope="row">10</th>') == 1
    assert 'href="/inspect?sae=an-sae"' in html[html.index('id="pursuit"') :]


def test_a_dead_latent_and_an_old_harvest_say_what_is_missing():
    html = render(patterns.dead())
    assert "This latent is dead" in html
    assert "<dd>dead</dd>" in html
    assert 'class="switches"' not in html
    assert "older than these statistics" in render(patterns.feature(usage=None))


def test_what_is_not_there_yet_is_named_without_a_dead_link(client):
    html = client.get(f"{BASE}/features/{live(client)['index']}").text
    for panel in ("explanations", "map"):
        section = html[html.index(f'id="{panel}"') :]
        section = section[: section.index("</section>")]
        assert "yet" in section
        assert re.findall(r'<a href="([^"]*)"', section) == ["/harvests"]  # where one that is being made is seen
    assert client.get("/harvests").status_code == 200
    assert "not scored" in html


def test_near_duplicates_are_folded_with_a_count():
    html = render(patterns.feature())
    assert html.count("1 near-duplicate<") == 1
    assert "1 drawn for this interval stands among the top above." in html


def test_patterns_need_no_database_and_hang_from_the_api_page(settings):
    from fastapi.testclient import TestClient

    from app.main import create_app

    bare = TestClient(create_app(settings))  # not entered: no database is opened
    assert bare.get("/patterns").status_code == 200
    assert 'href="/patterns"' in bare.get("/api/docs").text


def test_the_pattern_page_calls_every_component_there_is():
    """Directly, or through another one that it calls."""
    called = (ROOT / "templates" / "patterns.html").read_text()
    for name, prefix in (("_feature.html", "f"), ("_runs.html", "r"), ("_browse.html", "b")):
        source = (ROOT / "templates" / name).read_text()
        bodies = dict(re.findall(r"{% macro (\w+)\(.*?-%}\n(.*?){%- endmacro %}", source, re.S))
        reached = {m for m in bodies if f"{prefix}.{m}(" in called}
        for _ in bodies:
            inside = "".join(bodies[m] for m in reached)
            reached |= {m for m in bodies if re.search(rf"(?<![.\w]){m}\b", inside)}
        assert set(bodies) - reached == set(), name


def test_every_example_has_a_page_with_its_values_and_the_rest_of_its_sequence(client):
    page = live(client)
    html = client.get(f"{BASE}/features/{page['index']}").text
    links = re.findall(r'<a class="values" href="([^"]*)">', html)
    shown = {(e["interval"], e["rank"]): e for e in page["examples"]}
    assert len(links) == len(set(links)) >= 10
    whole = 0
    for link in links:
        twin = client.get(f"{link}.json").json()
        one = twin["example"]
        assert one == shown.pop((one["interval"], one["rank"]))
        assert twin["label"] == page["label"]
        assert twin["max"] == page["max"]
        text = twin["before"] + "".join(one["tokens"]) + twin["after"]
        others = [e for e in page["examples"] if e["sequence"] == one["sequence"]]
        assert all("".join(e["tokens"]) in text for e in others)
        assert bool(one["start"]) == bool(twin["before"])
        whole += bool(twin["before"] and twin["after"])
        own = client.get(link).text
        rows = re.findall(
            r"<tr><td>(\d+)</td><th scope=\"row\"><code>(.*?)</code></th><td class=\"num\">(.*?)</td>", own
        )
        fires = [(one["start"] + i, v) for i, v in enumerate(one["activations"]) if v]
        assert [(int(place), float(value)) for place, _, value in rows] == [
            (p, pytest.approx(v, rel=1e-5)) for p, v in fires
        ]
    assert whole
    folded = {(e["interval"], e["rank"]) for e in page["examples"]} & set(shown)
    top = {(e["sequence"], e["start"]) for e in page["examples"] if e["interval"] == "top"}
    assert all((shown[key]["sequence"], shown[key]["start"]) in top for key in folded)


@pytest.mark.parametrize(
    "place", ["top/99", "top/-1", "top/x", "interval-10/0", "negative-top/0", "9/0", "top/99999999999"]
)
def test_an_example_that_is_not_there_is_named(client, place):
    index = live(client)["index"]
    answer = client.get(f"{BASE}/features/{index}/examples/{place}.json")
    assert answer.status_code == 404
    kind, rank = place.split("/")
    assert answer.json()["message"] == (
        f"Feature {index} of {SLUG} has no example {kind}/{rank[:10]}; its page lists those it has."
    )


def test_an_examples_page_asks_at_most_six_queries(client):
    index = live(client)["index"]
    with counted_queries(client) as statements:
        assert client.get(f"{BASE}/features/{index}/examples/top/0").status_code == 200
    assert 3 <= len(statements) <= 6
