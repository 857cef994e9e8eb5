"""Two prompts, and the texts of two sides, compared over HTTP."""

import re
from html import unescape

import pytest
from sqlalchemy import text

from app.live.engine import Engine
from app.store.engine import database_url, sync_engine
from tests.conftest import LAYERS
from tests.counting import counted_queries

A, B = LAYERS
FIRST = "Paris is the capital of France."
SECOND = "Paris was the old capital of Italy."


@pytest.fixture
def own(layered):
    return layered


@pytest.fixture
def client(layered_client):
    return layered_client


def compared(client, **query):
    answer = client.post("/api/inspect/compare", json={"text": FIRST, "other": SECOND, "sae": [A, B], **query})
    assert answer.status_code == 200, answer.text
    return answer.json()


def inspected(client, words, sae=A, **query):
    body = {"text": words, "sae": sae, "top": 500, **query}
    return client.post("/api/inspect", json=body).json()["saes"][0]["latents"]


def test_two_prompts_in_one_forward_are_what_each_is_alone(client):
    engine = client.app.state.saescope.engine
    client.post("/api/inspect", json={"text": "something else first", "sae": [A, B]})
    before = engine.forwards
    found = compared(client, top=200)
    assert engine.forwards == before + 1
    assert found["batch"] == 2
    assert [s["address"] for s in found["saes"]] == [A, B]
    for one in found["saes"]:
        alone = [{x["index"]: x for x in inspected(client, words, one["sae"])} for words in (FIRST, SECOND)]
        fires = [set(side) for side in alone]
        assert {x["index"] for x in one["only_first"]} == fires[0] - fires[1] != set()
        assert {x["index"] for x in one["only_second"]} == fires[1] - fires[0] != set()
        assert {x["index"] for x in one["both"]} == fires[0] & fires[1]
        for x in [*one["only_first"], *one["only_second"], *one["both"]]:
            strengths = []
            for side, shown in zip(alone, (x["first"], x["second"]), strict=True):
                known = side.get(x["index"])
                strengths.append(known["strength"] if known else 0)
                assert shown["position"] == (known["position"] if known else None)
                assert dict(map(tuple, shown["activations"])) == (
                    pytest.approx(dict(map(tuple, known["activations"])), rel=1e-4) if known else {}
                )
            assert x["difference"] == pytest.approx(strengths[0] - strengths[1], abs=1e-4)  # no activation is negative
        for part in ("only_first", "only_second", "both"):
            sizes = [abs(x["difference"]) for x in one[part]]
            assert sizes == sorted(sizes, reverse=True)
            assert one[f"{part}_count"] == len(sizes)


def test_tokens_are_lined_up_and_a_place_says_what_differs_there(client):
    whole = compared(client)
    first, second = ([t["text"] for t in whole[side]["tokens"]] for side in ("first", "second"))
    pairs = [
        (c["kind"], *(None if c[n] is None else t[c[n]] for n, t in (("first", first), ("second", second))))
        for c in whole["columns"]
    ]
    assert ("equal", "Paris", "Paris") in pairs
    assert ("replaced", " is", " was") in pairs
    assert ("only_second", None, " old") in pairs
    assert ("replaced", " France", " Italy") in pairs
    place = pairs.index(("replaced", " is", " was"))
    column = whole["columns"][place]
    one = compared(client, at=place, top=200, sae=A)["saes"][0]
    here = {x["index"] for x in inspected(client, FIRST, token=column["first"])}
    there = {x["index"] for x in inspected(client, SECOND, token=column["second"])}
    assert {x["index"] for x in one["only_first"]} == here - there
    assert {x["index"] for x in one["only_second"]} == there - here
    alone = pairs.index(("only_second", None, " old"))
    one = compared(client, at=alone, sae=A)["saes"][0]
    assert (one["only_first_count"], one["both_count"]) == (0, 0)
    assert one["only_second_count"] > 0


def test_filters_pins_and_swapping(client):
    whole = compared(client, top=200, sae=A)["saes"][0]
    everything = [*whole["only_first"], *whole["only_second"], *whole["both"]]
    middle = sorted(x["density"] for x in everything)[len(everything) // 2]
    fewer = compared(client, top=200, sae=A, densest=middle)["saes"][0]
    shown = [x["index"] for part in ("only_first", "only_second", "both") for x in fewer[part]]
    assert sorted(shown) == sorted(x["index"] for x in everything if x["density"] <= middle * (1 + 1e-6))
    assert 0 < len(shown) < len(everything)
    part = everything[0]["label"][1:4].lower()
    found = compared(client, top=200, sae=A, label=part)["saes"][0]
    named = [x for p in ("only_first", "only_second", "both") for x in found[p]]
    assert {x["index"] for x in named} == {x["index"] for x in everything if part in x["label"].lower()}
    silent = min(set(range(40)) - {x["index"] for x in everything})
    pinned = compared(client, sae=A, pin=[f"{A}/{silent}"])["saes"][0]["pinned"]
    assert [(x["index"], x["first"]["position"], x["second"]["position"]) for x in pinned] == [(silent, None, None)]
    page = client.get("/inspect/compare", params={"text": FIRST, "other": SECOND, "sae": A, "at": 3}).text
    link = unescape(re.search(r'href="([^"]*)">Swap the two', page)[1])
    assert link == client.get(link).url.raw_path.decode()
    swapped = client.get(link.replace("/compare?", "/compare.json?")).json()["result"]
    there = compared(client, sae=A, at=3)
    assert swapped["first"]["text"] == SECOND
    assert [x["index"] for x in swapped["saes"][0]["only_second"]] == [
        x["index"] for x in there["saes"][0]["only_first"]
    ]
    assert [(c["second"], c["first"]) for c in swapped["columns"]] == [
        (c["first"], c["second"]) for c in there["columns"]
    ]


def test_the_form_leads_to_an_address_and_long_texts_to_kept_ones(client, monkeypatch):
    form = {"text": FIRST, "other": SECOND, "sae": [A, B], "top": "20", "label": "", "densest": ""}
    short = client.post("/inspect/compare", data=form, follow_redirects=False)
    assert short.status_code == 303
    assert short.headers["location"].startswith("/inspect/compare?top=20&text=Paris+is")
    assert client.get(short.headers["location"]).status_code == 200
    monkeypatch.setattr("app.web.differences.LONGEST_URL", 40)
    long = client.post("/inspect/compare", data=form | {"pin": f"{A}/3"}, follow_redirects=False).headers["location"]
    kept = re.fullmatch(
        r"/inspect/compare\?top=20&run=(\w{10})&other_run=(\w{10})&pin=layer-0%40\w{10}%2F3&sae=.*", long
    )
    assert kept
    assert client.get(f"/inspect/{kept[1]}.json").json()["result"]["text"] == FIRST
    assert client.get(f"/inspect/{kept[2]}.json").json()["result"]["text"] == SECOND
    # Sent again from its own page it is the same pair; one text changed, the other one stays as it was kept.
    page = client.get(long).text
    sent = {"text": FIRST.replace("\n", "\r\n"), "other": SECOND, "run": kept[1], "other_run": kept[2]}
    sent["sae"] = [unescape(v) for v in re.findall(r'name="sae" value="([^"]*@[^"]*)" checked', page)]
    assert len(sent["sae"]) == 2
    again = client.post("/inspect/compare", data=sent, follow_redirects=False).headers["location"]
    assert f"run={kept[1]}&other_run={kept[2]}" in again
    changed = client.post("/inspect/compare", data=sent | {"other": "Rome."}, follow_redirects=False).headers[
        "location"
    ]
    assert f"run={kept[1]}&" in changed
    assert kept[2] not in changed


def test_kept_runs_are_compared_when_the_model_is_away(client, monkeypatch):
    names = [
        client.post("/api/inspect", json={"text": t, "sae": [A, B], "keep": True}).json()["run"]
        for t in (FIRST, SECOND)
    ]
    mixed = client.post("/api/inspect/compare", json={"run": names[0], "other": SECOND}).json()
    assert mixed["first"]["run"] == names[0]
    monkeypatch.setattr(Engine, "read", None)  # whoever asks the engine fails
    query = {"run": names[0], "other_run": names[1]}
    with counted_queries(client) as statements:
        page = client.get("/inspect/compare.json", params=query)
    assert 2 <= len(statements) <= 6
    found = page.json()["result"]
    assert [[x["index"] for x in s["only_first"]] for s in found["saes"]] == [
        [x["index"] for x in s["only_first"]] for s in mixed["saes"]
    ]
    assert "shows what was read then" in client.get("/inspect/compare", params=query).text
    started = client.get("/inspect/compare", params={"run": names[0]}).text
    assert FIRST in started
    assert "What differs" not in started
    assert f'href="/inspect/compare?run={names[0]}"' in client.get(f"/inspect/{names[0]}").text


def test_runs_without_a_common_sae_and_saes_that_are_gone(client, own):
    one, other, third = (
        client.post("/api/inspect", json={"text": FIRST, "sae": sae, "keep": True}).json()["run"] for sae in (A, B, A)
    )
    refused = client.get("/inspect/compare.json", params={"run": one, "other_run": other})
    assert refused.status_code == 422
    assert "no SAE in common" in refused.json()["message"]
    assert (
        "not read with"
        in client.get("/inspect/compare.json", params={"run": one, "other": "x", "sae": B}).json()["message"]
    )
    from app.live.packed import pack, unpack
    from app.store import tables as t

    engine = sync_engine(database_url(own))
    with engine.begin() as connection:
        for name in (one, third):
            data = connection.execute(text("SELECT data FROM inspection WHERE id = :n"), {"n": name}).scalar_one()
            run = unpack(data)
            run.readings["0000000000"] = run.readings.pop(next(iter(run.readings)))
            change = {"revisions": ["0000000000"], "data": pack(run)}
            connection.execute(t.inspection.update().where(t.inspection.c.id == name).values(change))
    engine.dispose()
    gone = client.get("/inspect/compare.json", params={"run": one, "other_run": third}).json()["result"]["saes"][0]
    assert not gone["kept"]
    assert gone["both"]
    assert all(x["url"] is None and x["max"] > 0 for x in gone["both"])
    assert "no longer here" in client.get("/inspect/compare", params={"run": one, "other_run": third}).text
    pinned = {"run": one, "other_run": third, "pin": f"{gone['address']}/999999999"}
    found = client.get("/inspect/compare.json", params=pinned).json()["result"]["saes"][0]["pinned"]
    assert [(x["index"], x["difference"], x["first"]["position"]) for x in found] == [(999999999, 0, None)]
    away = client.get("/inspect/compare.json", params={"run": one, "other": "new"})
    assert away.status_code == 422
    assert "no longer here" in away.json()["message"]


def test_a_text_that_no_database_takes_is_not_kept(client):
    answer = client.post("/inspect/compare/keep", data={"text": "a\0b", "other": "hi", "sae": A})
    assert answer.status_code == 422
    assert "NUL character" in answer.text


def contrasted(client, **query):
    body = {"here": [FIRST, "The capital of France is big."], "there": ["The cat sat on the mat."], "sae": A, **query}
    answer = client.post("/api/inspect/contrast", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_what_fires_on_every_text_of_one_side_and_on_none_of_the_other(client):
    engine = client.app.state.saescope.engine
    client.post("/api/inspect", json={"text": "warm", "sae": A})
    before = engine.forwards
    texts = {"here": ["France is big.", "Paris is big.\nSo is France."], "there": ["A mat.", "A cat."]}
    found = contrasted(client, top=200, **texts)
    assert engine.forwards == before + 1
    assert found["batch"] == 4
    sides = [
        [{x["index"]: x for x in inspected(client, one["text"])} for one in found[side]] for side in ("here", "there")
    ]
    wanted = set.intersection(*map(set, sides[0])) - set.union(*map(set, sides[1]))
    one = found["saes"][0]
    assert {x["index"] for x in one["latents"]} == wanted != set()
    assert one["found"] == len(wanted)
    for x in one["latents"]:
        assert x["strength"] == pytest.approx(min(side[x["index"]]["strength"] for side in sides[0]), rel=1e-3)
        assert all(on["position"] is None for on in x["there"])
    strengths = [x["strength"] for x in one["latents"]]
    assert strengths == sorted(strengths, reverse=True)
    anywhere = contrasted(client, top=200, **texts, on="any")["saes"][0]["latents"]
    fires = [set.union(*map(set, side)) for side in sides]
    assert {x["index"] for x in anywhere} == fires[0] - fires[1]
    over = 0.5
    strict = contrasted(client, top=200, there=[], over=over)["saes"][0]["latents"]
    assert all(abs(on["share"]) > over for x in strict for on in x["here"])


def test_the_page_of_two_sides_takes_a_text_a_line_and_keeps_long_ones(client, monkeypatch):
    query = {"here": f"{FIRST}\r\n\r\nThe capital of France is big.\n", "there": "The cat sat on the mat.", "sae": A}
    twin = client.get("/inspect/contrast.json", params=query).json()
    made = twin["result"]
    assert made["saes"] == contrasted(client)["saes"]
    assert twin["here"] == f"{FIRST}\nThe capital of France is big."
    page = client.get("/inspect/contrast", params=query).text
    assert page.count('<article class="example">') == len(made["saes"][0]["latents"]) > 0
    link = unescape(re.search(r'href="([^"]*)">Swap the sides', page)[1])
    assert client.get(link.replace("contrast?", "contrast.json?")).json()["result"]["there"] == made["here"]
    posted = client.post("/inspect/contrast", data=query | {"on": "any"}, follow_redirects=False).headers["location"]
    assert "on=any" in posted
    assert client.get(posted).status_code == 200
    monkeypatch.setattr("app.web.differences.LONGEST_URL", 40)
    kept = client.post("/inspect/contrast", data=query, follow_redirects=False).headers["location"]
    assert re.fullmatch(r"/inspect/contrast\?here_run=\w{10}&here_run=\w{10}&there_run=\w{10}", kept)
    monkeypatch.setattr(Engine, "read", None)
    with counted_queries(client) as statements:
        again = client.get(kept.replace("contrast?", "contrast.json?")).json()["result"]
    assert len(statements) <= 6
    strip = lambda r: [(x["index"], x["strength"]) for x in r["saes"][0]["latents"]]  # noqa: E731
    assert strip(again) == strip(made)
    assert client.get("/inspect/contrast").status_code == 200


@pytest.mark.parametrize(
    ("path", "query", "status", "says"),
    [
        ("compare", {"other": " "}, 422, "The second text: There is no text"),
        ("compare", {"text": "word " * 60}, 413, "The first text: The text has"),
        ("compare", {"at": 4000}, 422, "no place 4000"),
        ("compare", {"at": -1}, 422, "at"),
        ("compare", {"pin": ["x"]}, 422, "no feature"),
        ("compare", {"sae": ["nowhere"]}, 404, "no SAE"),
        ("compare", {"text": None, "run": "nothere"}, 404, "no inspection"),
        ("compare", {"densest": 7}, 422, "densest"),
        ("contrast", {"here": ["fine", "word " * 60]}, 413, "Text 2 of the first side: The text has"),
        ("contrast", {"here": []}, 422, "first side has no text"),
        ("contrast", {"here": ["x"] * 33}, 422, "here"),
        ("contrast", {"here": ["x"] * 20, "here_run": ["y"] * 20}, 422, "first side has 40 texts"),
        ("contrast", {"over": -1}, 422, "over"),
        ("contrast", {"on": "some"}, 422, "on"),
        ("contrast", {"there": ["\ud800"]}, 422, "surrogate"),
        ("contrast", {"there_run": ["a\0b"]}, 404, "no inspection"),
        ("contrast", {"here": [], "here_run": [""]}, 422, "first side has no text"),
        ("contrast", {"label": "\0"}, 422, "no label holds"),
        ("compare", {"label": "\0"}, 422, "no label holds"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_one_sentence(client, path, query, status, says):
    import json

    base = {"text": FIRST, "other": SECOND} if path == "compare" else {"here": [FIRST], "there": [SECOND]}
    body = {name: value for name, value in {**base, "sae": [A], **query}.items() if value is not None}
    headers = {"content-type": "application/json"}
    answer = client.post(f"/api/inspect/{path}", content=json.dumps(body), headers=headers)
    assert answer.status_code == status, answer.text
    assert says in answer.json()["message"]
    assert client.app.state.saescope.engine.pending == 0
    if "surrogate" in says:
        return
    assert client.get(f"/inspect/{path}.json", params=body).status_code == status


def test_a_half_asked_comparison_and_a_missing_sae_are_told(client):
    assert client.get("/inspect/compare", params={"text": FIRST}).status_code == 200
    answer = client.post("/api/inspect/compare", json={"text": FIRST})
    assert answer.status_code == 422
    assert "both texts" in answer.json()["message"]
    for path, body in (("compare", {"text": "a", "other": "b"}), ("contrast", {"here": ["a"]})):
        assert "Say which SAE" in client.post(f"/api/inspect/{path}", json=body).json()["message"]
    assert "no second text" in client.post("/inspect/compare", data={"text": "a"}).text
    assert "limit is 32" in client.post("/inspect/contrast", data={"here": "x\n" * 40, "sae": A}).text
