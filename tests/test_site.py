"""The site over HTTP on a real database and a real (tiny, random) transformer."""

import base64
import json
import re

import pytest
import torch
from fastapi.testclient import TestClient

from app.harvest.batches import counted, pad
from app.main import create_app
from app.subject.hooks import HookPoint, read_activations
from app.web.metric_names import METRICS
from tests.conftest import SLUG, random_sae

BASE = f"/saes/{SLUG}"
JSON = {"content-type": "application/json"}
FAR = base64.urlsafe_b64encode(json.dumps(["index", False, 10**40, 5]).encode()).decode().rstrip("=")


def dense_activations(tiny, sequences):
    """[positions, latents] over all counted positions, one sequence at a time."""
    sae, hook = random_sae(), HookPoint.parse("model.layers.0:out")
    rows = []
    for sequence in sequences:
        padded = pad([sequence], torch.device("cpu"))
        acts = read_activations(tiny.model, padded.token_ids, [hook], padded.attention)[hook]
        rows.append(sae.encode(acts[counted(padded, torch.tensor(tiny.special_ids))]).dense(40))
    return rows


def test_feature_json_agrees_with_a_pass_over_the_text(client, tiny, sequences):
    rows = dense_activations(tiny, sequences)
    everything = torch.cat(rows)
    for index in (0, 7, 39):
        page = client.get(f"{BASE}/features/{index}.json").json()
        column = everything[:, index]
        assert page["fired"] == int((column != 0).sum())
        assert page["density"] == pytest.approx(float((column != 0).float().mean()), rel=1e-5)
        assert page["max"] == pytest.approx(float(column.max()), rel=1e-4)
        assert sum(page["histogram"]["counts"]) == page["fired"]
        top = [e for e in page["examples"] if e["interval"] == "top"]
        assert [e["rank"] for e in top] == list(range(len(top)))
        if top:
            assert top[0]["activation"] == pytest.approx(float(column.max()), rel=1e-4)
        for e in page["examples"]:
            assert e["activations"][e["position"]] == pytest.approx(e["activation"], rel=1e-5)
            assert len(e["tokens"]) == len(e["token_ids"]) == len(e["activations"])
            if e["interval"] in ("random", "near"):
                window = slice(max(e["start"] - 1, 0), e["start"] - 1 + len(e["tokens"]))
                assert not rows[e["sequence"]][window, index].any()
                assert not any(e["activations"])
                if e["interval"] == "near":
                    assert e["token_ids"][e["position"]] == top[0]["token_ids"][top[0]["position"]]
                continue
            place = e["start"] + e["position"] - 1  # BOS is not among the counted rows
            assert float(rows[e["sequence"]][place, index]) == pytest.approx(e["activation"], rel=1e-3)
            if e["interval"] != "top":
                low = int(e["interval"]) / 10 * page["max"]
                assert low * 0.999 <= e["activation"] <= (low + page["max"] / 10) * 1.001


def test_pages_answer_and_name_their_feature(client):
    assert SLUG in client.get("/").text
    assert "Explained variance" in client.get(BASE).text
    page = client.get(f"{BASE}/features/3")
    assert page.status_code == 200
    assert "Feature 3" in page.text
    assert "script-src 'self'" in page.headers["content-security-policy"]


def test_the_saes_page_names_its_metrics_in_the_order_of_all_pages(client):
    page = client.get(BASE).text
    names = re.findall(r'<tr><th scope="row">([^<]*)</th>', page[page.index('id="quality"') :])
    assert [name for name in names if name in METRICS.values()] == list(METRICS.values())


def test_sae_json_and_list(client):
    page = client.get(f"{BASE}.json").json()
    assert page["metrics"]["l0"] <= 4
    assert page["metrics"]["fvu"] > 0
    assert [item["slug"] for item in client.get("/saes.json").json()["items"]] == [SLUG]


@pytest.mark.parametrize("order", ["asc", "desc"])
@pytest.mark.parametrize("sort", ["index", "density", "max"])
def test_keyset_pages_cover_every_latent_once_in_order(client, sort, order):
    cursor, seen = "", []
    while cursor is not None:
        page = client.get(f"{BASE}/features.json", params={"sort": sort, "order": order, "limit": 7, "cursor": cursor})
        seen += page.json()["items"]
        cursor = page.json()["next"]
    assert sorted(item["index"] for item in seen) == list(range(40))
    keys = [(item[sort], item["index"]) for item in seen]
    assert keys == sorted(keys, reverse=order == "desc")


def test_labels_are_searched_whatever_their_case_and_page_by_page(client):
    everything = client.get(f"{BASE}/features.json", params={"limit": 500}).json()["items"]
    word = everything[0]["label"].split(",")[0]
    wanted = [item["index"] for item in everything if word.casefold() in item["label"].casefold()]
    cursor, seen = "", []
    while cursor is not None:
        query = {"q": word.upper(), "limit": 3, "cursor": cursor}
        page = client.get(f"{BASE}/features.json", params=query).json()
        seen += [item["index"] for item in page["items"]]
        cursor = page["next"]
    assert seen == wanted
    assert f'value="{word}"' in client.get(BASE, params={"q": word}).text.replace("&#39;", "'")
    assert "No feature" in client.get(BASE, params={"q": "no such label"}).text
    assert client.get(f"{BASE}/features.json", params={"q": "%"}).json()["items"] == [
        item for item in everything if "%" in item["label"]
    ]
    assert client.get(BASE, params={"q": "a" * 101}).status_code == 422
    assert client.get(f"{BASE}?q=%00").status_code == 422


def test_inspect_agrees_with_encoding_the_prompt(client, tiny):
    text = "Paris 🎉 cat"
    result = client.post("/api/inspect", json={"text": text, "sae": SLUG, "top": 40}).json()
    ids = [tiny.bos_id, *tiny.encode(text)]
    hook = HookPoint.parse("model.layers.0:out")
    acts = read_activations(tiny.model, torch.tensor([ids]), [hook])[hook][0, 1:]
    dense = random_sae().encode(acts).dense(40)
    assert "".join(result["tokens"][1:]) == text
    shown = result["saes"][0]["latents"]
    assert {latent["index"] for latent in shown} == set(dense.nonzero()[:, 1].tolist())
    for latent in shown:
        for place, value in latent["activations"]:
            assert value == pytest.approx(float(dense[place - 1, latent["index"]]), rel=1e-4)
        assert latent["activation"] == max(value for _, value in latent["activations"])
    strengths = [latent["strength"] for latent in shown]
    assert strengths == sorted(strengths, reverse=True)


@pytest.mark.parametrize(
    ("path", "status", "code", "says"),
    [
        (f"{BASE}/features/40", 404, "latent_out_of_range", "0 to 39"),
        (f"{BASE}/features/-1", 404, "latent_out_of_range", "0 to 39"),
        (f"/saes/{SLUG}@0123456789", 404, "sae_unknown", "no revision"),
        (f"{BASE}/features/x", 404, "latent_out_of_range", "no feature number"),
        ("/saes/unknown", 404, "sae_unknown", SLUG),
        ("/nowhere", 404, "not_found", "/nowhere"),
        ("/inspect?text=%20", 422, "text_empty", "no text"),
        ("/inspect?text=" + "word " * 60, 413, "text_too_long", "limit is 47"),
        ("/inspect?text=" + "a" * 2001, 413, "text_too_long", "limit is 2,000"),
        ("/inspect?text=hi&token=99", 422, "bad_request", "no token 99"),
        (f"{BASE}?cursor=junk", 422, "bad_request", "junk"),
        (f"{BASE}?sort=nonsense", 422, "bad_request", "sort"),
        (f"{BASE}/jump?index=abc", 404, "latent_out_of_range", "abc"),
        (f"{BASE}/jump?index=", 404, "latent_out_of_range", "no feature number in that"),
        (f"{BASE}/features/1_0", 404, "latent_out_of_range", "no feature number"),
        ("/saes/%00", 404, "sae_unknown", "no SAE"),
        ("/inspect?text=hi&sae=a%00b", 404, "sae_unknown", "no SAE"),
        ("/inspect?text=", 422, "text_empty", "no text"),
        (f"{BASE}?cursor=" + "W" * 5000, 422, "bad_request", "does not belong"),
        (f"{BASE}?cursor={FAR}", 422, "bad_request", "does not belong"),
    ],
)
def test_refusals_are_one_sentence_as_page_fragment_and_json(client, path, status, code, says):
    page = client.get(path)
    assert page.status_code == status
    assert says in page.text.replace("&#39;", "'")
    assert "Traceback" not in page.text
    assert "<html" in page.text
    fragment = client.get(path, headers={"hx-request": "true"})
    assert fragment.status_code == status
    assert "<html" not in fragment.text
    first, _, query = path.partition("?")
    if not first.endswith(("jump", "%00")):
        told = client.get(f"{first}.json?{query}" if first != BASE else f"{BASE}/features.json?{query}")
        assert told.status_code == status
        assert told.json()["code"] == code


@pytest.mark.parametrize("text", ["a", "🎉", "שלום עולם", "مرحبا", "\n\t", "<script>alert(1)</script>"])
def test_odd_texts_are_read_whole(client, text):
    result = client.post("/api/inspect", json={"text": text or "a", "sae": SLUG})
    if not text.strip():
        assert result.json()["code"] == "text_empty"
        return
    assert "".join(result.json()["tokens"][1:]) == text
    page = client.get("/inspect", params={"text": text})
    assert page.status_code == 200
    assert "<script>alert" not in page.text


def test_a_feature_is_tried_on_a_text_of_ones_own(client):
    text = "Paris is a warm cat"
    everything = client.post("/api/inspect", json={"text": text, "sae": SLUG, "top": 500}).json()
    for latent in everything["saes"][0]["latents"][:3]:
        page = client.get(f"{BASE}/features/{latent['index']}.json", params={"text": text}).json()["test"]
        assert [[i, a] for i, a in enumerate(page["activations"]) if a] == latent["activations"]
        assert page["position"] == latent["position"]
        assert page["share"] == pytest.approx(latent["share"], rel=1e-5)
        html = client.get(f"{BASE}/features/{latent['index']}", params={"text": text}).text
        assert "Strongest" in html
    silent = next(i for i in range(40) if i not in {one["index"] for one in everything["saes"][0]["latents"]})
    assert "It does not fire on this text" in client.get(f"{BASE}/features/{silent}", params={"text": text}).text
    assert client.get(f"{BASE}/features/3", params={"text": " "}).status_code == 422
    assert client.get(f"{BASE}/features/3.json").json()["test"] is None


def test_the_jump_box_goes_where_it_says(client):
    for typed, index in (("0000000005", 5), (" 7 ", 7)):
        answer = client.get(f"{BASE}/jump", params={"index": typed}, follow_redirects=False)
        assert answer.headers["location"] == f"{BASE}/features/{index}"
    assert "has no feature 4095000000" in client.get(f"{BASE}/jump", params={"index": "4095000000"}).text


def test_bodies_and_methods_that_do_not_fit_are_one_sentence(client):
    def told(answer):
        assert set(answer.json()) == {"code", "message", "detail"}
        return answer.status_code, answer.json()["message"]

    surrogate = client.post("/api/inspect", content=b'{"text": "\\ud800"}', headers=JSON)
    assert told(surrogate) == (422, "The text is not valid Unicode: it holds half of a surrogate pair.")
    assert told(client.post("/api/inspect", content=b"{", headers=JSON)) == (
        422, "The body is not JSON.",
    )  # fmt: skip
    assert "Content-Type: application/json" in told(client.post("/api/inspect", content=b"{}"))[1]
    assert told(client.post("/api/inspect", content=b'{"text": "\xff"}', headers=JSON)) == (
        400,
        "The body is not JSON.",
    )
    assert client.get("/api/inspect").status_code == 404
    wrong = client.post("/saes.json")
    assert (told(wrong)[0], wrong.headers["allow"]) == (405, "GET")
    missing = client.get("/static/missing.js?v=1")
    assert missing.status_code == 404
    assert "immutable" not in missing.headers.get("cache-control", "")
    assert client.head(BASE).status_code == 200


def test_a_client_that_leaves_before_its_body_is_whole_is_no_error(harvested, settings, caplog):
    import asyncio

    sent = []
    parts = iter([{"type": "http.request", "body": b'{"te', "more_body": True}, {"type": "http.disconnect"}])

    async def receive():
        return next(parts)

    async def send(message):
        sent.append(message)

    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "scheme": "http",
        "path": "/api/inspect", "raw_path": b"/api/inspect", "query_string": b"", "root_path": "",
        "headers": [(b"host", b"127.0.0.1"), (b"content-type", b"application/json")],
        "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80),
    }  # fmt: skip
    asyncio.run(create_app(settings)(scope, receive, send))
    assert sent == []  # nobody would read it
    assert not caplog.records


def test_many_prompts_at_once_are_all_answered_and_keep_no_page_waiting(client):
    from concurrent.futures import ThreadPoolExecutor

    def ask(number):
        if number % 4 == 3:
            return client.get(f"{BASE}/features/{number % 40}").status_code
        return client.post("/api/inspect", json={"text": f"{number} Paris is a cat", "sae": SLUG}).status_code

    with ThreadPoolExecutor(60) as pool:
        assert set(pool.map(ask, range(120))) == {200}


def test_a_long_prompts_page_grows_with_the_prompt_not_with_its_square(client):
    sizes = [len(client.get("/inspect", params={"text": "Paris " * n, "top": 1}).content) for n in (10, 40)]
    assert sizes[1] - sizes[0] < 30 * 400


def test_a_prompt_asked_twice_runs_once(client):
    engine = client.app.state.saescope.engine
    client.post("/api/inspect", json={"text": "only once", "sae": SLUG})
    forwards = engine.forwards
    client.post("/api/inspect", json={"text": "only once", "sae": SLUG})
    assert engine.forwards == forwards


def test_a_pinned_address_shows_its_revision_and_links_within_it(client, harvested):
    pinned = f"{BASE}@{harvested[0]}"
    assert client.get(f"{pinned}.json").json()["revision"] == harvested[0]
    page = client.get(f"{pinned}/features/3.json").json()
    assert page["sae"] == SLUG
    assert all(n["url"].startswith(pinned) for n in page["neighbours"])
    text = client.get(f"{pinned}/features/3").text
    assert f'href="{pinned}/features/4"' in text
    assert "Pinned to revision" in text
    assert client.get("/inspect.json", params={"sae": pinned[6:], "text": "Paris"}).json()["result"]["saes"][0][
        "latents"
    ]


def test_the_api_page_names_every_json_route(client):
    text = client.get("/api/docs").text
    for path in client.get("/api/openapi.json").json()["paths"]:
        assert path in text
    assert "/api/inspect" in text
    assert "promoted" in text


def test_a_database_that_stopped_answering_is_one_sentence_everywhere(harvested, settings, monkeypatch):
    from app.store.engine import async_engine, database_url

    with TestClient(create_app(settings)) as client:
        state = client.app.state.saescope
        dead = async_engine(database_url(settings).set(host="127.0.0.1", port=9, query={}))
        with monkeypatch.context() as stopped:
            stopped.setattr(state, "database", dead)
            for path in ("/", BASE, f"{BASE}/features/3", "/inspect"):
                page = client.get(path)
                assert page.status_code == 503
                assert "The database does not answer" in page.text
                assert "<html" in page.text
            told = client.post("/api/inspect", json={"text": "hi", "sae": SLUG})
            assert (told.status_code, told.json()["code"]) == (503, "database_unavailable")


def test_what_nobody_foresaw_is_one_sentence_too(harvested, settings, monkeypatch):
    with TestClient(create_app(settings), raise_server_exceptions=False) as client, monkeypatch.context() as broken:
        broken.setattr(client.app.state.saescope, "database", None)
        told = client.get("/saes.json")
        assert told.status_code == 500
        assert told.json() == {"code": "error", "message": told.json()["message"], "detail": {}}
        page = client.get("/")
        assert page.status_code == 500
        assert "Something went wrong" in page.text


def test_settings_are_all_in_the_docs():
    from app.settings import Settings
    from app.web.rendering import ROOT

    told = (ROOT / "docs" / "settings.md").read_text()
    assert [name for name in Settings.model_fields if f"`SAESCOPE_{name.upper()}`" not in told] == []
    code = "".join(file.read_text() for file in (ROOT / "app").rglob("*.py"))
    assert {name for name in re.findall(r"SAESCOPE_[A-Z_]*[A-Z]", code) if f"`{name}`" not in told} == set()


def test_a_database_that_does_not_answer_is_one_sentence_in_the_cli(monkeypatch, capsys):
    from app import cli

    monkeypatch.setenv("SAESCOPE_DATABASE_URL", "postgresql://nobody@127.0.0.1:9/none")
    monkeypatch.setattr("sys.argv", ["saescope", "demo", "--no-serve"])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 1
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("saescope: The database does not answer")


def test_no_space_for_the_embedded_server_is_named(monkeypatch, tmp_path):
    from app.errors import DiskFull
    from app.store import embedded

    monkeypatch.setattr(embedded, "NEEDED_BYTES", 2**62)
    with pytest.raises(DiskFull, match="MiB are free"):
        embedded.start_embedded(tmp_path)
    assert not (tmp_path / "postgres").exists()
