"""The inspector over HTTP: several SAEs, filters, pins, predictions, runs that are kept, and long prompts."""

import asyncio
import math
import re
import time
from html import unescape

import httpx2
import pytest
import torch
from sqlalchemy import delete, text

from app.live.engine import Engine
from app.store import tables as t
from app.store.engine import database_url, sync_engine
from tests.conftest import LAYERS
from tests.counting import counted_queries

A, B = LAYERS
TEXT = "Paris is the capital of France. The cat sat on the mat."


@pytest.fixture
def own(layered):
    return layered


@pytest.fixture
def client(layered_client):
    return layered_client


def asked(client, **query):
    answer = client.post("/api/inspect", json={"text": TEXT, "sae": [A, B], **query})
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_saes_of_two_layers_are_read_in_one_forward_and_equal_each_alone(client):
    engine = client.app.state.saescope.engine
    while not client.app.state.warming.done():  # it takes a forward of its own
        time.sleep(0.05)
    before = engine.forwards
    both = asked(client, text="one forward for both", top=500)
    assert engine.forwards == before + 1
    assert [s["address"] for s in both["saes"]] == [A, B]
    for one in both["saes"]:
        alone = asked(client, text="one forward for both", sae=one["sae"], top=500)["saes"][0]
        assert [(x["index"], x["activations"]) for x in alone["latents"]] == [
            (x["index"], x["activations"]) for x in one["latents"]
        ]
        assert one["error"][0] is None
        assert all(0 < x < 2 for x in one["error"][1:])


def test_prompts_that_come_in_together_share_a_forward_and_one_alone_waits_for_nobody(client, monkeypatch):
    engine = client.app.state.saescope.engine
    asked(client, text="so that the SAEs are known")
    monkeypatch.setattr(engine, "_wait_s", 60.0)

    async def ask(texts):
        transport = httpx2.ASGITransport(client.app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as http:
            bodies = ({"text": one, "sae": [A, B]} for one in texts)
            return await asyncio.gather(*(http.post("/api/inspect", json=body) for body in bodies))

    before, began = engine.forwards, time.monotonic()
    together = client.portal.call(ask, [f"prompt number {n}" for n in range(12)])
    assert {answer.json()["batch"] for answer in together} == {12}
    assert engine.forwards == before + 1
    for lone in ("one alone", "and one more"):
        (alone,) = client.portal.call(ask, [lone])
        assert alone.json()["batch"] == 1
        assert client.get("/inspect", params={"text": f"{lone} on a page", "sae": A}).status_code == 200
    assert time.monotonic() - began < 60  # nobody had the engine wait for more


def test_what_is_ranked_by_is_what_orders(client):
    for sort, key in {
        "strength": lambda x: -x["strength"], "activation": lambda x: -abs(x["activation"]),
        "count": lambda x: -x["count"], "first": lambda x: x["first"],
    }.items():  # fmt: skip
        for one in asked(client, sort=sort, top=500)["saes"]:
            keys = [key(x) for x in one["latents"]]
            assert keys == sorted(keys)
            for x in one["latents"]:
                places = [place for place, _ in x["activations"]]
                assert (x["count"], x["first"]) == (len(places), min(places))
    assert len(asked(client, top=3)["saes"][0]["latents"]) == 3


def test_filters_leave_out_what_they_say_and_nothing_else(client):
    everything = asked(client, top=500)["saes"][0]
    densities = sorted(x["density"] for x in everything["latents"])
    middle = densities[len(densities) // 2]
    kept = asked(client, top=500, densest=middle)["saes"][0]
    assert {x["index"] for x in kept["latents"]} == {
        x["index"] for x in everything["latents"] if x["density"] <= middle * (1 + 1e-6)
    }
    assert kept["active"] == everything["active"] == len(everything["latents"])
    part = everything["latents"][0]["label"][1:4].upper()
    found = asked(client, top=500, label=part)["saes"][0]
    assert {x["index"] for x in found["latents"]} == {
        x["index"] for x in everything["latents"] if part.lower() in x["label"].lower()
    }
    assert asked(client, label="% no label _")["saes"][0]["latents"] == []
    at = asked(client, token=5, top=500)["saes"][0]
    assert {x["index"] for x in at["latents"]} == {
        x["index"] for x in everything["latents"] if 5 in dict(x["activations"])
    }


def test_pins_stay_on_top_in_their_order_also_where_they_are_silent(client):
    everything = {x["index"] for x in asked(client, top=500)["saes"][0]["latents"]}
    silent = min(set(range(40)) - everything)
    fires = sorted(everything)[:2]
    pins = [f"{A}/{fires[1]}", f"{B}/0", f"{A}/{silent}", f"{A}/{fires[0]}"]
    one, other = asked(client, pin=pins, top=1)["saes"]
    assert [x["index"] for x in one["pinned"]] == [fires[1], silent, fires[0]]
    assert [x["index"] for x in other["pinned"]] == [0]
    assert one["pinned"][1]["activations"] == []
    assert one["pinned"][1]["label"]
    for pin, says in {
        "nowhere/3": "not read with",
        f"{A}/40": "0 to 39",
        "x": "no feature",
        f"{A}/-1": "no feature",
    }.items():
        refused = client.post("/api/inspect", json={"text": TEXT, "sae": [A, B], "pin": [pin]})
        assert refused.status_code == 422
        assert says in refused.json()["message"]


def test_what_the_subject_expects_is_the_models_own(client, tiny):
    found = asked(client, predict=True, token=4)
    ids = torch.tensor([[tiny.bos_id, *tiny.encode(TEXT)]])
    with torch.inference_mode():
        told = tiny.model(input_ids=ids).logits[0].log_softmax(1)
    for place, token in enumerate(found["prompt"][1:], 1):
        logprob = float(told[place - 1, ids[0, place]])
        assert token["probability"] == pytest.approx(math.exp(logprob), rel=1e-3)
        assert token["surprisal"] == pytest.approx(-logprob / math.log(2), rel=1e-3)
    best = told[4].topk(5)
    assert [e["token_id"] for e in found["expected"]] == best.indices.tolist()
    assert [e["probability"] for e in found["expected"]] == pytest.approx(best.values.exp().tolist(), rel=1e-3)
    plain = asked(client)
    assert plain["expected"] is None
    assert plain["prompt"][3]["surprisal"] is None


def test_a_chat_is_the_templates_text(client, tiny):
    found = asked(client, chat=True, text="Hello there")
    wanted = tiny.tokenizer.apply_chat_template([{"role": "user", "content": "Hello there"}], tokenize=True)
    wanted = wanted if isinstance(wanted, list) else wanted["input_ids"]
    ids = [t["token_id"] for t in found["prompt"]]
    assert ids == wanted
    assert ids != [t["token_id"] for t in asked(client, text="Hello there")["prompt"]]


def test_a_kept_run_shows_the_same_when_nothing_can_be_read_any_more(client, own, monkeypatch):
    kept = asked(client, predict=True, keep=True, top=500, token=3, sort="count")
    name = kept.pop("run")
    assert re.fullmatch("[a-z2-9]{10}", name)
    monkeypatch.setattr(Engine, "read", None)  # whoever asks the engine fails
    query = {"token": 3, "sort": "count", "top": 500}
    page = client.get(f"/inspect/{name}.json", params=query).json()
    again = page["result"]
    assert again.pop("run") == name
    for result in (kept, again):
        del result["milliseconds"], result["batch"]
        for one in result["saes"]:
            one["address"] = one["sae"]
            for x in [*one["latents"], *one["pinned"]]:
                x["url"], x["pin"] = x["url"].split("/features/")[1], x["pin"].split("/")[1]
    assert again == kept
    html = client.get(f"/inspect/{name}", params=query)
    assert html.status_code == 200
    assert 'name="token" value="3" aria-current="true"' in re.sub(r' class="s\d" title="[^"]*"', "", html.text)
    assert client.get("/inspect/nothere.json").status_code == 404
    assert client.get("/inspect/a%00b").status_code == 404


def test_a_run_outlives_its_saes(client, own):
    name = asked(client, keep=True, text="outlives")["run"]
    engine = sync_engine(database_url(own))
    with engine.begin() as connection:
        connection.execute(text("UPDATE inspection SET revisions[1] = '0000000000' WHERE id = :n"), {"n": name})
    from app.live.packed import pack, unpack

    with engine.begin() as connection:
        data = connection.execute(text("SELECT data FROM inspection WHERE id = :n"), {"n": name}).scalar_one()
        run = unpack(data)
        first = next(iter(run.readings))
        run.readings["0000000000"] = run.readings.pop(first)
        connection.execute(t.inspection.update().where(t.inspection.c.id == name).values(data=pack(run)))
    found = client.get(f"/inspect/{name}.json").json()["result"]["saes"]
    gone = next(s for s in found if not s["kept"])
    assert gone["revision"] == "0000000000"
    assert gone["latents"]
    assert all(x["url"] is None and not x["label"] for x in gone["latents"])
    assert sum(s["kept"] for s in found) == 1
    assert "no longer here" in client.get(f"/inspect/{name}").text
    with engine.begin() as connection:
        connection.execute(delete(t.inspection).where(t.inspection.c.id == name))
    engine.dispose()
    assert client.get(f"/inspect/{name}").status_code == 404


def test_the_form_leads_to_an_address_that_holds_a_short_prompt_and_keeps_a_long_one(client, monkeypatch):
    form = {"text": TEXT, "sae": [A, B], "sort": "count", "label": "", "token": "", "densest": "", "top": "20"}
    there = client.post("/inspect", data=form, follow_redirects=False)
    assert there.status_code == 303
    url = there.headers["location"]
    assert url.startswith(f"/inspect?sort=count&sae={A}&sae={B}&text=Paris")
    assert client.get(url).status_code == 200
    monkeypatch.setattr("app.web.inspection.LONGEST_URL", 40)
    long = client.post("/inspect", data=form | {"pin": f"{A}/3"}, follow_redirects=False).headers["location"]
    assert re.fullmatch(r"/inspect/[a-z2-9]{10}\?sort=count&pin=layer-0%40\w{10}%2F3", long)
    shown = client.get(f"{long.replace('?', '.json?')}").json()["result"]
    assert shown["text"] == TEXT
    assert [x["index"] for x in shown["saes"][0]["pinned"]] == [3]


def test_keeping_from_the_page_leads_to_the_same_view(client):
    page = client.get("/inspect", params={"text": TEXT, "sae": [A, B], "token": 4, "pin": f"{B}/2", "predict": 1}).text
    form = re.search(r'<form action="/inspect/keep".*?</form>', page, re.S)[0]
    fields = [(n, unescape(v)) for n, v in re.findall(r'name="(\w+)" value="([^"]*)"', form)]
    data = {n: [v for m, v in fields if m == n] for n, _ in fields}
    location = client.post("/inspect/keep", data=data, follow_redirects=False).headers["location"]
    kept = client.get(location).text
    assert "Kept 20" in kept
    tokens = [re.search(r'<p class="tokens".*?</p>', html, re.S)[0] for html in (page, kept)]
    assert tokens[0] == tokens[1]
    assert kept.count(">Unpin<") == page.count(">Unpin<") == 1


def test_unpinning_goes_to_an_address_without_the_pin(client):
    query = {"text": TEXT, "sae": A, "pin": [f"{A}/3", f"{A}/4"], "unpin": f"{A}/3"}
    there = client.get("/inspect", params=query, follow_redirects=False)
    assert there.status_code == 303
    assert "pin=layer-0%2F4" in there.headers["location"]
    assert "layer-0%2F3" not in there.headers["location"]


def test_an_inspection_asks_at_most_six_queries(client):
    url = "/inspect.json"
    query = {"text": "few queries", "sae": [A, B], "label": "a", "token": 1, "pin": [f"{A}/3"]}
    client.get(url, params=query)  # scales are read once
    with counted_queries(client) as statements:
        assert client.get(url, params=query).status_code == 200
    assert 2 <= len(statements) <= 6
    name = asked(client, keep=True)["run"]
    client.get(f"/inspect/{name}")
    with counted_queries(client) as statements:
        assert client.get(f"/inspect/{name}", params={"label": "a"}).status_code == 200
    assert 3 <= len(statements) <= 6


def test_labels_are_kept_until_one_is_changed(client, own):
    state = client.app.state.saescope
    fetch, fetched = state.latents._fetch, []

    async def counted(keys):
        fetched.append(list(keys))
        return await fetch(keys)

    state.latents._fetch = counted
    try:
        first = asked(client, sae=A)["saes"][0]["latents"]
        fetched.clear()
        assert asked(client, sae=A)["saes"][0]["latents"] == first
        assert fetched == []
        one = first[0]["index"]
        engine = sync_engine(database_url(own))
        with engine.begin() as db:
            number = db.execute(text("SELECT max(id) FROM sae WHERE slug = :slug"), {"slug": A}).scalar()
            change = text("UPDATE latent SET label = :label WHERE sae_id = :sae AND index = :index")
            db.execute(change, {"label": "another", "sae": number, "index": one})
        try:
            again = asked(client, sae=A)["saes"][0]["latents"]
            assert [x["label"] for x in again] == ["another", *(x["label"] for x in first[1:])]
            assert fetched != []
        finally:
            with engine.begin() as db:
                db.execute(change, {"label": first[0]["label"], "sae": number, "index": one})
            engine.dispose()
        assert asked(client, sae=A)["saes"][0]["latents"] == first
    finally:
        state.latents._fetch = fetch


@pytest.mark.parametrize(
    ("query", "status", "says"),
    [
        ({"sae": ["nowhere"]}, 404, "no SAE"),
        ({"top": "x"}, 422, "top"),
        ({"token": "-1"}, 422, "token"),
        ({"token": "4000"}, 422, "no token 4000"),
        ({"densest": "nan"}, 422, "densest"),
        ({"densest": "2"}, 422, "densest"),
        ({"sort": "size"}, 422, "sort"),
        ({"label": "a" * 101}, 422, "label"),
        ({"pin": ["x"] * 51}, 422, "pin"),
        ({"sae": [A] * 17}, 422, "sae"),
    ],
)
def test_what_does_not_fit_is_one_sentence_by_get_and_by_form(client, query, status, says):
    answer = client.get("/inspect.json", params={"text": TEXT, **query})
    assert answer.status_code == status
    assert says in answer.json()["message"]
    assert client.get("/inspect", params={"text": TEXT, **query}).status_code == status
    form = client.post("/inspect", data={"text": TEXT, **query})
    assert form.status_code == status
    assert "Traceback" not in form.text


def test_a_busy_engine_says_when_to_come_back(client, monkeypatch):
    engine = client.app.state.saescope.engine
    monkeypatch.setattr(engine, "_limit", 0)
    answer = client.post("/api/inspect", json={"text": "no room", "sae": A})
    assert answer.status_code == 503
    assert answer.json()["code"] == "engine_busy"
    assert int(answer.headers["retry-after"]) >= 1
    assert client.get("/inspect", params={"text": "no room", "sae": A}).status_code == 503
