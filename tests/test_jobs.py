"""Jobs other than harvests, from the page of harvests and from a feature's page: real Postgres, real processes, a real
endpoint that speaks as a language model."""

import random
import re
import threading
import time

import pytest
import torch
from fastapi.testclient import TestClient
from playwright.sync_api import sync_playwright
from sqlalchemy import insert, select, text

from app.corpus.sequences import Held, cut
from app.corpus.sources import Document
from app.harvest.job import Job, run_job
from app.harvest.parameters import Parameters
from app.main import create_app
from app.sae.formats import saelens
from app.store import tables as t
from tests.chromium import launched
from tests.conftest import database_beside, public_folder, random_sae
from tests.llm_endpoint import Endpoint, oracle
from tests.serving import serving

SLUG = "told"
WORDS = ["river", "mountain", "city", "people", "water", "house", "light", "music", "garden", "winter", "stone"]
LLM = {"llm_url": "http://127.0.0.1:9/v1", "llm_model": "m"}


def documents():
    rng = random.Random(0)
    for i in range(30):
        yield Document(f"document {i}", " ".join(rng.choice(WORDS) for _ in range(160)) + ".")


@pytest.fixture(scope="module")
def own(settings):
    return database_beside(settings, "jobs").model_copy(update={"home": public_folder()})


@pytest.fixture(scope="module")
def sae(database, own, tiny):
    saelens.write(own.home / "given", random_sae(latents=100), matrices=torch.float32, metadata={})
    parameters = Parameters(top=5, per_interval=2, width=16, neighbours=4, promoted=5, batch_tokens=512)
    corpus = Held(cut(documents(), tiny.encode, bos_id=tiny.bos_id, context=64))
    run_job(Job(SLUG, own.home / "given", "test", 64, parameters), tiny, corpus, database, own.home)
    with database.connect() as connection:
        dense = select(t.latent.c.index).where(t.latent.c.density.between(0.02, 0.3)).order_by(t.latent.c.index)
        return connection.execute(dense.limit(3)).scalars().all()


@pytest.fixture
def clean(database):
    yield
    with database.begin() as connection:
        connection.execute(text("TRUNCATE run, llm_request, explanation, example_set, score, score_example CASCADE"))
        connection.execute(text("SET LOCAL search_path TO procrastinate"))
        connection.execute(text("DELETE FROM procrastinate_jobs"))


@pytest.fixture
def site(own, sae, clean):
    """site(**settings): the site without a worker, which queues only."""
    opened = []

    def open_(**changes):
        opened.append(TestClient(create_app(own.model_copy(update=changes))))
        return opened[-1].__enter__()

    yield open_
    for client in opened:
        client.__exit__(None, None, None)


@pytest.fixture
def endpoint():
    endpoint = Endpoint(oracle("river and the like"))
    with serving(endpoint.app) as url:
        endpoint.url = url + "/v1"
        yield endpoint


def row(database, run):
    with database.connect() as connection:
        return connection.execute(select(t.run).where(t.run.c.id == run)).one()


def until(client, run, *states):
    for _ in range(600):
        told = client.get(f"/harvests/{run}.json").json()
        if told["state"] in states:
            return told
        time.sleep(0.1)
    raise AssertionError(told)


FREE = {"job": "explain", "sae": SLUG}


@pytest.mark.parametrize(
    ("body", "kind", "line", "called"),
    [
        (FREE, "explain", f"saescope explain {SLUG} --method=free", "Explanations by rules and vocabulary"),
        (
            {"job": "map", "sae": SLUG, "layout": "tsne", "on": "coactivation"}, "map",
            f"saescope map {SLUG} --method=tsne --on=coactivation", "Map by t-SNE of the co-activation",
        ),
        ({"job": "embed"}, "embed", "saescope embed", "Search by meaning"),
        (
            {**FREE, "method": "llm", "latents": "0-3, 5", "max_usd": "$1.50", "price_in": 1, "price_out": 2},
            "explain",
            f"saescope explain {SLUG} --method=llm --model=m --latents=0-3,5 --scorers=detection,fuzzing "
            "--max-usd=1.5 --price-in=1.0 --price-out=2.0", "Explanations by m, of features 0-3,5",
        ),
    ],
)  # fmt: skip
def test_a_form_queues_the_command_that_one_would_type(site, database, body, kind, line, called):
    client = site(**LLM)
    answer = client.post("/jobs", data=body, follow_redirects=False)
    assert answer.status_code == 303, answer.text
    where = answer.headers["location"]
    told = client.get(f"{where}.json").json()
    assert (told["kind"], sorted(told["command_line"].split()), told["called"], told["state"]) == (
        kind, sorted(line.split()), called, "queued",
    )  # fmt: skip
    assert row(database, told["id"]).slugs == [SLUG]
    assert called[1:] in client.get("/harvests").text
    again = client.post("/api/jobs", json={k: v for k, v in body.items() if k not in ("max_usd",)} | {"max_usd": 1.5})
    assert (again.status_code, again.json()["code"]) == (409, "harvest_running")
    other = {"job": "map" if kind != "map" else "embed", "sae": SLUG}
    assert client.post("/api/jobs", json=other).json()["state"] == "queued"  # of another kind it may wait as well


FAR = {"llm_url": "http://llm.example/v1", "llm_model": "m"}


@pytest.mark.parametrize(
    ("settings_", "body", "status", "told"),
    [
        ({}, {**FREE, "method": "llm"}, 422, "No language model is set up here"),
        (FAR, {**FREE, "method": "llm"}, 422, "Say what it may cost at most: http://llm.example/v1 is not on"),
        (LLM, {**FREE, "method": "llm", "latents": "7-1000"}, 404, "--latents 7-1000 is not within 0 to 99"),
        (LLM, {**FREE, "method": "llm", "latents": "x"}, 422, "is no list of numbers and ranges"),
        (LLM, {**FREE, "method": "llm", "max_usd": "much"}, 422, "'much', which is no number of USD"),
        (LLM, {**FREE, "method": "llm", "scorers": "guessing"}, 422, "There is no scorer 'guessing'"),
        (LLM | {"llm_usd_per_day": 2.0}, {**FREE, "method": "llm", "max_usd": "2.5"}, 429, "$2.00 are left"),
        ({}, {**FREE, "method": "magic"}, 422, "method is 'magic'; it is one of free, rules"),
        ({}, {"job": "map", "sae": "nowhere"}, 404, "nowhere"),
        ({}, {"job": "map"}, 422, "Choose an SAE."),
        ({}, {"job": "sing", "sae": SLUG}, 422, "There is no job 'sing'"),
        ({}, {"job": "embed", "sae": "a\0b"}, 422, "a character that no name can hold"),
    ],
)
def test_what_does_not_fit_is_one_sentence_and_queues_nothing(site, database, settings_, body, status, told):
    client = site(**settings_)
    answer = client.post("/jobs", data=body)
    assert answer.status_code == status
    alert = re.search(r'role="alert"[^>]*>(.*?)</p>', answer.text, re.DOTALL)
    assert told in (alert[1] if alert else answer.text).replace("&#39;", "'")
    with database.connect() as connection:
        assert connection.execute(select(t.run.c.id)).all() == []


def test_what_waiting_runs_may_cost_counts_towards_the_day(site, sae):
    body = {**FREE, "method": "llm", "max_usd": 1.5}
    assert site(**LLM, llm_usd_per_day=2.0).post("/api/jobs", json=body).status_code == 200
    where = f"/api/saes/{SLUG}/features/{sae[0]}/ask"
    refused = site(**LLM, llm_usd_per_day=1.6).post(where)  # a tenth of it is more than is left
    assert (refused.status_code, refused.json()["code"]) == (429, "explain_limit")
    told = site(**LLM, llm_usd_per_day=2.0).post(where).json()["run"]
    assert told["command"]["max_usd"] == 0.2
    assert site(**LLM, llm_per_hour=0).post(where).status_code == 422


def ask(client, latent):
    return client.post(f"/saes/{SLUG}/features/{latent}/ask", follow_redirects=False)


def test_a_page_asks_a_language_model_and_shows_what_it_said(own, sae, endpoint, site, clean, database, monkeypatch):
    monkeypatch.delenv("SAESCOPE_LLM_KEY", raising=False)
    client = site(llm_url=endpoint.url, llm_model="m", llm_key="secret", worker=True, llm_per_hour=2)
    where = f"/saes/{SLUG}/features/{sae[0]}"
    assert "Explain with m" in client.get(where).text
    answer = ask(client, sae[0])
    assert (answer.status_code, answer.headers["location"]) == (303, f"{where}/ask")
    page = client.get(f"{where}/ask").text
    assert "Look again" in page
    assert ask(client, sae[0]).status_code == 409  # it is under way
    run = client.get(f"{where}/ask.json").json()["run"]
    told = until(client, run["id"], "done", "failed")
    assert told["state"] == "done", told
    assert endpoint.keys
    assert set(endpoint.keys) == {"Bearer secret"}
    found = client.get(f"{where}/ask.json").json()["explanations"]
    assert [one["text"] for one in found] == ["river and the like"]
    assert {one["scorer"] for one in found[0]["scores"]} == {"detection", "fuzzing"}
    page = client.get(f"{where}/ask").text
    assert "river and the like" in page
    assert "Look again" not in page
    assert "1 explained, 1 scored" in page
    assert "river and the like" in client.get(where).text
    # A failure is shown as one, on both pages.
    endpoint.fault = lambda number, body: 401
    assert ask(client, sae[1]).status_code == 303
    there = f"/saes/{SLUG}/features/{sae[1]}/ask"
    told = until(client, client.get(f"{there}.json").json()["run"]["id"], "done", "failed")
    assert told["state"] == "failed"
    assert "does not accept the key" in told["message"]
    assert "role=alert class=error" in client.get(there).text.replace('"', "")
    # The second within the hour is the last; none can be taken off the list to make room.
    forgotten = client.post(f"/api/harvests/{run['id']}/forget")
    assert (forgotten.status_code, forgotten.json()["code"]) == (409, "run_open")
    answer = ask(client, sae[0])
    assert answer.status_code == 429
    assert "2 explanations were asked for within the last hour" in answer.text
    assert client.post(f"/api/saes/{SLUG}/features/{sae[0]}/ask").headers["retry-after"]


def test_a_job_is_stopped_and_carries_on_and_nothing_is_paid_twice(own, sae, endpoint, site, clean, database):
    client = site(llm_url=endpoint.url, llm_model="m", worker=True)
    endpoint.gate = threading.Event()
    body = {**FREE, "method": "llm", "latents": ",".join(map(str, sae)), "scorers": "detection"}
    run = client.post("/api/jobs", json=body).json()["id"]
    for _ in range(300):
        if endpoint.requests:
            break
        time.sleep(0.1)
    endpoint.gate.set()
    for _ in range(300):
        if len(endpoint.paid) >= 3:
            break
        time.sleep(0.05)
    client.post(f"/api/harvests/{run}/stop")
    told = until(client, run, "stopped", "done")
    if told["state"] == "stopped":  # else it was quicker
        assert told["message"].startswith("Stopped; ")
        assert told["resumable"]
        new = client.post(f"/api/harvests/{run}/resume").json()["id"]
        told = until(client, new, "done", "failed")
    assert told["state"] == "done", told
    assert set(endpoint.times.values()) <= {1, 2}  # what was in flight may be paid again
    assert sum(count > 1 for count in endpoint.times.values()) <= 16
    assert told["notes"][0].startswith(f"{SLUG}@")


def test_a_command_in_a_terminal_is_a_run_too(command, own, sae, database, clean):
    out, _, status = command("map", SLUG, "--method", "pca", "--sample", "1000")
    assert status == 0
    with database.connect() as connection:
        (made,) = connection.execute(select(t.run)).all()
    assert (made.kind, made.state, made.slugs) == ("map", "done", [SLUG])
    assert made.command == {"sae": SLUG, "method": "pca", "sample": 1000}
    assert made.facts["notes"] == out.splitlines()
    assert made.metrics is None
    llm = ("--method", "llm", "--base-url", "http://127.0.0.1:9/v1", "--model", "x")
    out, error, status = command("explain", SLUG, *llm, "--latents", "1000", "--no-control")
    assert status == 1
    with database.connect() as connection:
        failed = connection.execute(select(t.run).order_by(t.run.c.id.desc())).first()
    assert (failed.kind, failed.state) == ("explain", "failed")
    assert failed.message in error
    assert failed.command["no_control"] is True
    assert "key" not in " ".join(failed.command)
    command("explain", "nowhere")
    with database.connect() as connection:
        assert len(connection.execute(select(t.run)).all()) == 2  # what never began is no run


@pytest.mark.parametrize("script", [True, False])
def test_the_button_brings_its_answer_with_and_without_javascript(own, sae, clean, database, script):
    app = create_app(own.model_copy(update=LLM))
    latent = sae[0]
    with serving(app) as url, sync_playwright() as playwright:
        browser = launched(playwright)
        page = browser.new_page(java_script_enabled=script, viewport={"width": 380, "height": 800})
        page.goto(f"{url}/saes/{SLUG}/features/{latent}")
        page.get_by_role("button", name="Explain with m").click()
        page.get_by_text("waits for its turn").wait_for()
        assert page.url.endswith(f"/features/{latent}{'' if script else '/ask'}")
        with database.begin() as connection:
            source = connection.execute(select(t.sae.c.id)).scalar_one()
            connection.execute(text("UPDATE run SET state = 'done', started = now(), finished = now()"))
            said = {"sae_id": source, "latent": latent, "method": "llm", "text": "bells that ring", "label": "bells"}
            from app.store.explanation_bulk import make_partitions

            make_partitions(connection, source)
            connection.execute(insert(t.explanation).values(**said, model="m", version=1, parameters={}))
        if not script:
            page.get_by_role("link", name="Look again").click()
        page.get_by_text("bells that ring").first.wait_for()
        assert page.evaluate("document.documentElement.scrollWidth") <= 380
        browser.close()
