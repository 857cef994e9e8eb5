"""The API as its schema tells it: every example is sent, every answer is what the schema says."""

import json
import re

import pytest
import torch
from fastapi.testclient import TestClient
from jsonschema import Draft202012Validator

from app import errors
from app.atlas.make import Recipe, make_map
from app.circuits.record import keep
from app.demo.run import SLUG as DEMO
from app.explain.free import Recipe as Explaining
from app.explain.free import explain_free
from app.harvest.job import Job, run_job
from app.main import create_app
from app.sae.formats import saelens
from app.store.engine import database_url, sync_engine
from app.store.migrate import migrate
from app.web.api_examples import GRAPH
from app.web.reference import example_query
from tests.circuit_runs import a_run
from tests.conftest import SLUG, database_beside, public_folder, random_sae
from tests.training_runs import written


@pytest.fixture(scope="module")
def documented(settings, harvested, tiny, sequences):
    """A server whose one SAE goes by the demo's name, and has as many latents."""
    own = database_beside(settings, "documented")
    engine = sync_engine(database_url(own))
    migrate(engine)
    folder = public_folder() / DEMO
    saelens.write(folder, random_sae(latents=4096, k=64), matrices=torch.float32, metadata={})
    run_job(Job(DEMO, folder, "test text", 64, harvested[1]), tiny, sequences, engine, own.home)
    make_map(DEMO, Recipe("pca"), engine, own.home)
    explain_free(DEMO, Explaining(tokens=10_000), engine, own.home)
    engine.dispose()
    keep(own.home, a_run())
    with TestClient(create_app(own)) as client:
        yield client


@pytest.fixture(scope="module")
def schema(documented):
    return documented.get("/api/openapi.json").json()


def operations(schema):
    return [(path, method, told) for path, ways in schema["paths"].items() for method, told in ways.items()]


def fits(schema, told, answer):
    """That an answer is as documented: its status, and its JSON by the schema."""
    documented = told["responses"][str(answer.status_code)]["content"]
    kind = answer.headers["content-type"].partition(";")[0]
    assert kind in documented
    if kind == "application/json":
        shape = documented[kind]["schema"] | {"components": schema["components"]}
        faults = [fault.message for fault in Draft202012Validator(shape).iter_errors(answer.json())]
        assert faults == []


def test_every_body_has_examples_and_all_are_answered_as_documented(documented, schema):
    sent = set()
    made = documented.post("/api/lists", json={"title": "Sent", "items": [{"kind": "run", "run": "x"}]}).json()
    said = {"text": "what is to be edited", "author": "Ada"}
    first = documented.post(f"/api/saes/{DEMO}/features/3/explanations", json=said).json()["items"][-1]["id"]
    known = {"{slug}": DEMO, "{index}": "3", "{name}": made["name"], "{item}": str(made["items"][0]["id"])}
    known["{number}"] = str(first)
    for path, method, told in operations(schema):
        if "requestBody" not in told or path == "/api/inspect/heads":  # the demo's SAE reads no attention outputs
            continue
        content = told["requestBody"]["content"]["application/json"]
        assert content["examples"], path
        for example in content["examples"].values():
            there = re.sub(r"{\w+}", lambda name: known[name[0]], path)
            answer = documented.request(method, there, json=example["value"])
            assert answer.status_code == 200, (path, example["summary"], answer.text)
            fits(schema, told, answer)
            sent.add((path, answer.headers["content-type"].partition(";")[0]))
            if example["value"].get("stream"):
                assert answer.text.rstrip().endswith("event: done\ndata: {}")
    assert sent == {
        ("/api/inspect", "application/json"), ("/api/generate", "application/json"),
        ("/api/generate", "text/event-stream"), ("/api/effect", "application/json"),
        ("/api/attribute", "application/json"), ("/api/harvests", "application/json"),
        ("/api/inspect/compare", "application/json"), ("/api/inspect/contrast", "application/json"),
        ("/api/inspect/contexts", "application/json"), ("/api/lists", "application/json"),
        ("/api/graphs", "application/json"),
        ("/api/lists/{name}/edit", "application/json"), ("/api/lists/{name}/items", "application/json"),
        ("/api/lists/{name}/items/{item}/edit", "application/json"),
        ("/api/saes/{slug}/features/{index}/note", "application/json"), ("/api/jobs", "application/json"),
        ("/api/saes/{slug}/features/{index}/explanations", "application/json"),
        ("/api/saes/{slug}/features/{index}/explanations/{number}", "application/json"),
        ("/api/saes/{slug}/features/{index}/explanations/{number}/votes", "application/json"),
    }  # fmt: skip


def test_every_twin_is_answered_as_documented(documented, schema):
    documented.post("/api/harvests", json={"sae": DEMO, "corpus": "pkg:brown", "tokens": 1000})
    run = documented.get("/harvests.json").json()["items"][0]["id"]
    kept = documented.post("/api/inspect", json={"text": "Paris", "keep": True}).json()["run"]
    items = [{"kind": "feature", "sae": DEMO, "index": 3}, {"kind": "run", "run": kept}]
    made = documented.post("/api/lists", json={"title": "A list", "items": items}).json()["name"]
    graph = documented.post("/api/graphs", json=GRAPH["small"]["value"]).json()["name"]
    alive = documented.get(f"/saes/{DEMO}/features.json", params={"sort": "density", "order": "desc"}).json()["items"][
        0
    ]
    shown, home = 0, documented.app.state.saescope.settings.home
    for path, method, told in operations(schema):
        if method != "get" or not path.endswith(".json"):
            continue
        version = documented.get(f"/saes/{DEMO}/maps.json").json()["items"][0]["version"]
        there = path.replace("{slug}", DEMO).replace("{version}", version)
        explanations = documented.get(f"/saes/{DEMO}/features/{alive['index']}.json").json()["explanations"]
        there = there.replace("{index}", str(alive["index"]))
        there = there.replace("{score}", str(explanations[0]["scores"][0]["id"]))
        there = there.replace("{kind}", "top").replace("{rank}", "0").replace("{number}", "0")
        there = there.replace("/training/{run}", f"/training/{written(home).name}")
        there = there.replace("{run}", str(run) if path.startswith("/harvests") else kept)
        there = there.replace("{name}", made).replace("{circuit}", a_run().name)
        there = there.replace("{graph}", graph).replace("{scan}", DEMO)
        query = example_query(told.get("parameters", []))
        query += [(one, f"{DEMO}/{alive['index']}") for one in "ab" if path == "/compare.json"]
        answer = documented.get(there, params=query)
        assert answer.status_code == 200, (there, answer.text)
        fits(schema, told, answer)
        if path in ("/inspect.json", "/intervene.json", "/attribute.json"):
            found = answer.json()
            assert found.get("result") or (found["generated"] and found["effect"])
            assert len(query) >= 2
        shown += 1
    assert shown >= 14


def test_every_operation_has_a_summary_a_kind_and_its_refusals(schema):
    codes = {kind.code: kind.status for kind in vars(errors).values() if hasattr(kind, "code")}
    for path, _, told in operations(schema):
        assert re.fullmatch(r"[A-Z][^`]{5,120}", told["summary"]), path
        assert told["tags"][0] in {tag["name"] for tag in schema["tags"]}
        refusals = {status: r for status, r in told["responses"].items() if status != "200"}
        assert "503" in refusals, path
        for status, refusal in refusals.items():
            assert refusal["content"]["application/json"]["schema"]["$ref"].endswith("/Refusal")
            for code in re.findall(r"`(\w+)`", refusal["description"]):
                assert codes[code] == int(status)
    assert "HTTPValidationError" not in schema["components"]["schemas"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/inspect", {"text": "word " * 60}),
        ("/api/inspect", {"text": "Paris", "sae": "nowhere"}),
        ("/api/inspect", {"text": ""}),
        ("/api/effect", {"text": "Paris", "edits": [{"feature": f"{DEMO}/830", "strength": 10_000}]}),
        ("/api/generate", {"text": "Paris", "edits": [], "max_new": 10_000}),
        ("/api/attribute", {"text": "Paris", "token": "no such token"}),
        ("/api/inspect/heads", {"text": "Paris", "feature": f"{DEMO}/3"}),
        ("/api/inspect/compare", {"text": "Paris", "other": ""}),
        ("/api/inspect/contrast", {"here": ["Paris"], "there_run": ["nowhere"]}),
        ("/api/harvests", {"sae": "nowhere", "corpus": "pkg:brown"}),
        ("/api/harvests/999/stop", {}),
        ("/api/jobs", {"job": "map", "sae": "nowhere"}),
        ("/api/jobs", {"job": "explain", "sae": DEMO, "method": "llm"}),
        ("/api/lists", {"title": ""}),
        ("/api/lists", {"title": "x", "items": [{"kind": "feature", "sae": DEMO, "index": 4096}]}),
    ],
)
def test_refusals_are_as_documented(documented, schema, path, body):
    answer = documented.post(path, json=body)
    assert answer.status_code >= 400
    told = schema["paths"][re.sub(r"\d+", "{run}", path)]["post"]
    fits(schema, told, answer)
    assert f"`{answer.json()['code']}`" in told["responses"][str(answer.status_code)]["description"]


def test_the_page_shows_each_example_as_a_command_that_says_the_same(documented, schema):
    page = documented.get("/api/docs").text
    for path, method, told in operations(schema):
        assert f"<code>{method.upper()} {path}</code>" in page
        for example in (
            told.get("requestBody", {"content": {}})["content"].get("application/json", {}).get("examples", {}).values()
        ):
            sent = json.dumps(example["value"]).replace('"', "&#34;")
            assert f"http://testserver{path} -H &#39;content-type: application/json&#39; -d &#39;{sent}&#39;" in page
    assert "engine_busy" in page
    assert "//cdn" not in page
    assert "<script>" not in page


@pytest.mark.parametrize(
    ("path", "given", "status", "says"),
    [
        ("/api/inspect", '{"text": "%s"}' % ("word " * 60), 413, "47"),
        ("/api/inspect", '{"text": "%s"}' % ("w" * 2001), 413, "2,000"),
        ("/api/inspect", '{"text": "Paris \\u0000", "keep": true}', 422, "NUL"),
        ("/api/inspect", '{"text": "Paris", "label": "a\\u0000"}', 422, "label"),
        ("/api/inspect", '{"text": "Paris", "label": "a\\ud800"}', 422, "label"),
        ("/api/inspect", '{"text": "Paris \\ud800", "keep": true}', 422, "surrogate"),
        ("/api/inspect", '{"text": "Paris", "sae": "nowhere"}', 404, "no SAE 'nowhere'"),
        ("/api/inspect", '{"text": "Paris", "sae": "a\\u0000b"}', 404, "no SAE"),
        ("/api/inspect", '{"text": "Paris", "sae": "SLUG@\\ud800"}', 404, "no SAE"),
        ("/api/inspect", '{"text": "Paris", "sae": "SLUG@\\u0000"}', 404, "no SAE"),
        ("/api/inspect", '{"text": "Paris", "pin": ["SLUG/40"]}', 422, "0 to 39"),
        ("/api/inspect", '{"text": "Paris", "pin": ["\\ud800/3"]}', 422, "pin"),
        ("/api/effect", '{"text": "Paris", "edits": [{"feature": "SLUG/40"}]}', 422, "0 to 39"),
        ("/api/effect", '{"text": "Paris", "edits": [{"feature": "SLUG@\\u0000/4"}]}', 404, "no SAE"),
        ("/api/effect", '{"text": "Paris", "edits": [{"feature": "SLUG/3", "strength": NaN}]}', 422, "finite number"),
        ("/api/effect", '{"text": "Paris", "edits": [{"feature": "SLUG/3", "strength": Infinity}]}', 422, "strength"),
        ("/api/effect", '{"text": "Paris", "edits": HUNDRED}', 422, "at most 32"),
        ("/api/generate", '{"text": "Paris", "edits": [{"feature": "SLUG/3"}], "top_p": NaN}', 422, "top_p"),
        ("/api/generate", '{"text": "Paris", "edits": [{"feature": "SLUG/3"}], "max_new": 513}', 422, "at most 512"),
        ("/api/generate", '{"text": "Paris", "edits": [{"feature": "SLUG/3"}], "seed": 1e99}', 422, "seed"),
        ("/api/attribute", '{"text": "Paris", "token": "\\u0000\\u0001\\u0002"}', 422, "not one token"),
        ("/api/attribute", '{"text": "Paris", "token": "\\ud800"}', 422, "surrogate"),
        ("/api/attribute", '{"text": "Paris", "position": 1e400}', 422, "position"),
        ("/api/inspect", "NaN", 422, "does not fit"),
        ("/api/inspect", "[" * 5000, 400, "JSON"),
        ("/api/inspect", '{"text": "Paris"', 422, "JSON"),
    ],
)  # fmt: skip
def test_bad_input_is_one_sentence_and_leaves_nothing_running(client, path, given, status, says):
    body = given.replace("HUNDRED", json.dumps([{"feature": f"{SLUG}/3"}] * 100)).replace("SLUG", SLUG).encode()
    answer = client.post(path, content=body, headers={"content-type": "application/json"})
    assert answer.status_code == status, answer.text
    told = answer.json()
    assert set(told) == {"code", "message", "detail"}
    assert says in told["message"]
    assert "\n" not in told["message"]
    for _ in range(200):  # what warms the engine may still be on its way
        if client.app.state.saescope.engine.pending == 0:
            break
        client.get("/healthz")
    assert client.app.state.saescope.engine.pending == 0


def test_control_characters_are_read_and_kept_as_they_are(client):
    text = "Paris \x07\x1b[31m \u202e\u200b end\r\n"
    kept = client.post("/api/inspect", json={"text": text, "keep": True}).json()
    page = client.get(f"/inspect/{kept['run']}.json").json()["result"]
    assert page["text"] == kept["text"] == text
    assert "".join(page["tokens"][1:]) == text
    html = client.get(f"/inspect/{kept['run']}")
    assert html.status_code == 200
    assert "␛" in html.text.split('class="tokens"')[1].split("</p>")[0]
