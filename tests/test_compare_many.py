"""Two to eight SAEs side by side, against the decoders and numbers they were made from."""

import re
from itertools import combinations

import numpy as np
import pytest
import torch
from fastapi.testclient import TestClient
from playwright.sync_api import expect
from sqlalchemy import text

from app.circuits.record import keep
from app.harvest.job import Job, run_job
from app.main import create_app
from app.sae.formats import saelens
from app.store.engine import database_url, sync_engine
from app.store.migrate import migrate
from app.web import many_charts, many_match
from app.web.contexts import Histogram
from app.web.many_build import trade_off
from app.web.many_contexts import TradeOff, TradeOffPoint
from app.web.metric_names import is_better
from tests.circuit_runs import a_run
from tests.conftest import database_beside, public_folder, random_sae
from tests.counting import counted_queries
from tests.serving import serving
from tests.test_browser import browser  # noqa: F401

SLUGS = "many-a", "many-b", "many-c"
MADE = {"many-a": {}, "many-b": {"latents": 30, "k": 3, "seed": 1}, "many-c": {"latents": 24, "k": 2, "seed": 2}}


@pytest.fixture(scope="module")
def own(settings):
    return database_beside(settings, "comparing_many")


@pytest.fixture(scope="module")
def client(own, harvested, tiny, sequences):
    _, parameters, _ = harvested
    engine = sync_engine(database_url(own))
    migrate(engine)
    for slug in SLUGS:
        folder = public_folder() / slug
        saelens.write(folder, random_sae(**MADE[slug]), matrices=torch.float32, metadata={})
        run_job(Job(slug, folder, "test text", 64, parameters), tiny, sequences, engine, own.home)
    engine.dispose()
    with TestClient(create_app(own)) as client:
        yield client


def decoders():
    return [random_sae(**MADE[slug]).W_dec.double().numpy() for slug in SLUGS]


def mutual(W, V):
    table = W @ V.T
    return {i: int(row.argmax()) for i, row in enumerate(table) if table[:, row.argmax()].argmax() == i}


def compared(client, saes, **query):
    answer = client.get("/compare.json", params={"sae": saes, **query})
    assert answer.status_code == 200, answer.text
    return answer.json()["many"]


def test_three_saes_are_matched_like_loops_over_all_pairs(client):
    W = decoders()
    found = compared(client, SLUGS, top=500)
    assert [s["number"] for s in found["saes"]] == [1, 2, 3]
    pairs = {(a, b): mutual(W[a], W[b]) for a, b in combinations(range(3), 2)}
    assert [(p["a"] - 1, p["b"] - 1) for p in found["pairs"]] == list(pairs)
    for told in found["pairs"]:
        a, b = told["a"] - 1, told["b"] - 1
        cosines = [float(W[a][i] @ W[b][j]) for i, j in pairs[a, b].items()]
        assert told["mutual"] == len(cosines)
        assert told["close"] == sum(c >= 0.7 for c in cosines)
        assert told["mean"] == pytest.approx(np.mean(cosines), abs=1e-5)
    everywhere = sorted(set(pairs[0, 1]) & set(pairs[0, 2]))
    told = {tuple(row["index"] for row in x["features"]): x["cosine"] for x in found["shared"]}
    assert sorted(told) == [(i, pairs[0, 1][i], pairs[0, 2][i]) for i in everywhere]
    assert found["shared_count"] == len(everywhere)
    for (i, j, k), cosine in told.items():
        assert cosine == pytest.approx(min(W[0][i] @ W[1][j], W[0][i] @ W[2][k]), abs=1e-5)
    assert list(told.values()) == sorted(told.values(), reverse=True)


def test_what_is_in_no_pair_fires_and_is_nearest_to_what_is_told(client):
    W = decoders()
    found = compared(client, SLUGS, top=500)
    taken = [set(), set(), set()]
    for a, b in combinations(range(3), 2):
        taken[a] |= set(mutual(W[a], W[b]))
        taken[b] |= set(mutual(W[a], W[b]).values())
    for place, sae in enumerate(found["saes"]):
        rows = client.get(f"/saes/{sae['sae']}/features.json?state=alive&limit=500").json()["items"]
        told = {x["feature"]["index"]: x for x in sae["unmatched"]}
        assert set(told) == {row["index"] for row in rows} - taken[place]
        assert sae["unmatched_count"] == len(told)
        for i, x in told.items():
            best = {(o, j): W[place][i] @ W[o][j] for o in range(3) if o != place for j in range(len(W[o]))}
            assert x["cosine"] == pytest.approx(max(best.values()), abs=1e-5)
            assert best[x["number"] - 1, x["nearest"]["index"]] == pytest.approx(max(best.values()), abs=1e-6)
        assert [x["cosine"] for x in sae["unmatched"]] == sorted(x["cosine"] for x in sae["unmatched"])


def test_deltas_are_against_the_first_and_say_which_way_is_better(client):
    found = compared(client, SLUGS)
    lines = {line["name"]: line for line in found["metrics"]}
    singles = [client.get(f"/saes/{slug}.json").json() for slug in SLUGS]
    for name, key, sign in (("FVU", "fvu", -1), ("L0", "l0", 0), ("Cosine", "cosine", 1)):
        values = [one["metrics"][key] for one in singles]
        cells = lines[name]["cells"]
        assert [cell["value"] for cell in cells] == values
        assert (cells[0]["delta"], cells[0]["better"]) == (None, None)
        for cell, value in zip(cells[1:], values[1:], strict=True):
            assert cell["delta"] == pytest.approx(value - values[0])
            assert cell["better"] is (None if not sign else sign * (value - values[0]) > 0)
    assert lines["L0"]["best"] is None
    assert [cell["value"] for cell in lines["Dead"]["cells"]] == [s["dead"] / s["n_latents"] for s in singles]
    assert is_better("nearest 1", 1.2, 0.7)
    assert is_better("nearest 1", 0.6, 1.3) is False
    assert is_better("lower", 1.0, 1.0) is None


def test_other_text_gets_no_verdict(client, own):
    engine = sync_engine(database_url(own))
    change = text(
        "UPDATE harvest SET metrics = jsonb_set(metrics, '{tokens}', :n) FROM sae WHERE sae.id = sae_id AND slug = :s"
    )
    tokens = client.get(f"/saes/{SLUGS[2]}.json").json()["metrics"]["tokens"]
    with engine.begin() as connection:
        connection.execute(change, {"n": "7", "s": SLUGS[2]})
    try:
        found = compared(client, SLUGS)
        assert [s["differs"] for s in found["saes"]] == [[], [], ["text"]]
        for line in found["metrics"]:
            assert line["cells"][2]["better"] is None
        assert not any(p["front"] for plot in found["trade_offs"] for p in plot["points"] if p["number"] == 3)
        assert any(p["front"] for p in found["trade_offs"][0]["points"])
    finally:
        with engine.begin() as connection:
            connection.execute(change, {"n": str(tokens), "s": SLUGS[2]})
        engine.dispose()


def test_a_page_asks_at_most_six_queries_and_computes_a_pair_once(client, monkeypatch):
    app = client.app.state.saescope
    app._scales.clear()
    revision = client.get(f"/saes/{SLUGS[1]}.json").json()["revision"]
    query = {"sae": [SLUGS[0], f"{SLUGS[1]}@{revision}", SLUGS[2]]}
    with counted_queries(client) as statements:
        page = client.get("/compare", params=query)
    assert page.status_code == 200
    assert len(statements) <= 6
    monkeypatch.setattr("app.web.matches.nearest", None)
    assert client.get("/compare", params=query).status_code == 200
    turned = compared(client, [SLUGS[1], SLUGS[0]])
    assert turned["pairs"][0]["mutual"] == len(mutual(*decoders()[:2]))
    assert {x["features"][1]["index"] for x in turned["shared"]} <= set(mutual(*decoders()[:2]))


def test_the_page_holds_the_form_the_charts_and_every_sae(client):
    page = client.get("/compare", params={"sae": SLUGS}).text
    for number, slug in enumerate(SLUGS, 1):
        assert re.search(rf'<input type="checkbox" name="sae" value="{slug}" checked>', page)
        assert f'class="line s{number}"' in page
        assert f"<code>saescope map {slug}</code>" in page
    assert page.count("<circle") >= 3
    home = client.get("/").text
    assert home.count('form="compare-saes"') == len(SLUGS)
    half = client.get("/compare", params={"a": SLUGS[1]}).text
    assert f'value="{SLUGS[1]}" checked' in half


@pytest.mark.parametrize(
    ("saes", "status", "says"),
    [
        ([f"{SLUGS[0]}@{n}" for n in range(9)], 422, "Two to 8 SAEs are compared at once; this names 9."),
        ([SLUGS[0], f"{SLUGS[1]}/3"], 422, "is a feature; several SAEs are compared by their names"),
        ([SLUGS[0], "nothing"], 404, "There is no SAE 'nothing' here"),
        ([SLUGS[0], f"{SLUGS[1]}@0000000000"], 404, "has no revision"),
        ([SLUGS[0], SLUGS[0]], 422, "Two to 8 SAEs are compared at once; this names 1."),
        ([SLUGS[0], "a\0b"], 404, "no SAE"),
    ],
)
def test_what_cannot_be_compared_is_one_sentence(client, saes, status, says):
    page = client.get("/compare", params={"sae": saes})
    assert page.status_code == status
    assert says in page.text.replace("&#39;", "'")
    told = client.get("/compare.json", params={"sae": saes})
    assert told.status_code == status
    assert set(told.json()) == {"code", "message", "detail"}


def test_one_revision_under_two_names_is_refused(client):
    revision = client.get(f"/saes/{SLUGS[0]}.json").json()["revision"]
    told = client.get("/compare", params={"sae": [SLUGS[0], f"{SLUGS[0]}@{revision}"]})
    assert told.status_code == 422
    assert "are one and the same; choose another SAE" in told.text


def test_pairs_beyond_what_a_page_may_compute_are_left_to_their_own(client, monkeypatch):
    monkeypatch.setattr(many_match, "MOST", 1)
    pairs = compared(client, SLUGS)["pairs"]
    assert [p["mutual"] is None for p in pairs] == [False, False, True]
    assert "too many latents" in pairs[2]["note"]


def test_a_missing_file_leaves_the_rest_of_the_comparison(client, own):
    engine = sync_engine(database_url(own))
    with engine.begin() as connection:
        kept = connection.execute(text("SELECT path FROM sae WHERE slug = :s"), {"s": SLUGS[0]}).scalar_one()
        connection.execute(text("UPDATE sae SET path = 'gone' WHERE slug = :s"), {"s": SLUGS[0]})
    client.app.state.saescope.matches._known.clear()
    try:
        found = compared(client, SLUGS)
        assert found["shared"] is None
        assert found["saes"][0]["unmatched"] is None
        assert found["saes"][1]["matched_with"] == [3]
        assert "files are gone" in found["pairs"][0]["note"]
        assert "not matched with every other" in client.get("/compare", params={"sae": SLUGS}).text
    finally:
        with engine.begin() as connection:
            connection.execute(text("UPDATE sae SET path = :p WHERE slug = :s"), {"p": kept, "s": SLUGS[0]})
        engine.dispose()


class Row:
    """What a trade-off reads of an SAE."""

    subject = subject_sha256 = corpus_sha256 = "x"
    parameters, reads, writes = {}, ["r"], ["w"]

    def __init__(self, l0, fvu, tokens=5):
        self.metrics = {"l0": l0, "fvu": fvu, "tokens": tokens}


def test_the_front_by_hand():
    rows = [Row(10, 0.5), Row(20, 0.3), Row(20, 0.4), Row(30, 0.3), Row(5, 0.9), Row(1, 0.1, tokens=6), Row(8, None)]
    plot = trade_off("fvu", rows)
    assert [(p.number, p.front) for p in plot.points] == [
        (1, True), (2, True), (3, False), (4, False), (5, True), (6, False),
    ]  # fmt: skip
    assert (plot.name, plot.best) == ("FVU", "lower")


def test_charts_keep_values_inside_and_in_order():
    plot = TradeOff(
        name="FVU", best="lower",
        points=[TradeOffPoint(number=n, l0=32.0 * n, value=0.3 - 0.1 * n, front=True) for n in (1, 2)],
    )  # fmt: skip
    drawn = many_charts.scatter(plot)
    (one, other) = drawn.points
    assert 44 < one.x < other.x < 394
    assert 8 < one.y < other.y < 154
    assert drawn.front == f"{one.x},{one.y} {other.x},{other.y}"
    for values in ([3.0], [0.0], [], [1.0, 1.0], [-2.0, 5.0], [1e-4, 2e-4]):
        low, high, ticks = many_charts.axis(values)
        assert all(low < v < high for v in values)
        assert 2 <= len(ticks) <= 9
        assert all(low <= t <= high for t in ticks)


class Dense:
    def __init__(self, number, edges, counts):
        self.number, self.n_latents = number, 100
        self.densities = Histogram(edges=edges, counts=counts)


def test_densities_of_unlike_spans_share_an_axis():
    saes = [Dense(1, [-2.0, -1.75, -1.5], [10, 20]), Dense(2, [-4.0, -3.75], [50]), Dense(3, [-1.0, 0.0], [0])]
    drawn = many_charts.densities(saes)
    assert [line.number for line in drawn.lines] == [1, 2]
    tops = [min(float(pair.split(",")[1]) for pair in line.points.split()) for line in drawn.lines]
    assert tops[1] < tops[0]  # 50% stands higher than 20%
    at = [float(line.points.split(",")[0]) for line in drawn.lines]
    assert at[0] - at[1] == pytest.approx(350 / 2, abs=0.2)  # from 10^-4 to 10^-2 is half of four decades
    assert many_charts.density_rows(saes) == [
        ("0.01% to 0.0178%", ["0%", "50%", "0%"]),
        ("1% to 1.78%", ["10%", "0%", "0%"]),
        ("1.78% to 3.16%", ["20%", "0%", "0%"]),
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_both_pages_fit_a_phone_and_axe_finds_nothing_serious(browser, own, client, scheme):  # noqa: F811
    from axe_playwright_python.sync_playwright import Axe

    keep(own.home, a_run())
    paths = ["/compare?" + "&".join(f"sae={slug}" for slug in SLUGS), "/", "/circuits", f"/circuits/{a_run().name}"]
    with serving(create_app(own)) as base:
        context = browser.new_context(base_url=base, color_scheme=scheme, viewport={"width": 380, "height": 800})
        page, troubles = context.new_page(), []
        page.on("console", lambda message: troubles.append(message.text) if message.type == "error" else None)
        for path in paths:
            assert page.goto(path).status == 200
            for details in page.locator("main details").all():
                details.evaluate("(one) => { one.open = true; }")
            assert page.evaluate("document.documentElement.scrollWidth") <= 380, path
            found = Axe().run(page).response["violations"]
            assert [v["id"] for v in found if v["impact"] in ("serious", "critical")] == [], path
        context.close()
    assert troubles == []


def test_saes_are_ticked_at_home_and_compared_without_javascript(browser, own, client):  # noqa: F811
    with serving(create_app(own)) as base:
        context = browser.new_context(base_url=base, java_script_enabled=False)
        page = context.new_page()
        page.goto("/")
        for slug in SLUGS[:2]:
            page.locator(f'input[form="compare-saes"][value="{slug}"]').check()
        page.get_by_role("button", name="Compare the ticked SAEs").click()
        page.wait_for_url(f"{base}/compare?sae={SLUGS[0]}&sae={SLUGS[1]}")
        page.locator(f'.several input[value="{SLUGS[2]}"]').check()
        page.get_by_role("button", name="Compare the chosen").click()
        expect(page.locator(".who li")).to_have_count(3)
        context.close()
