"""What machines and their keepers ask: readiness, numbers, ids and log lines."""

import asyncio
import io
import json
import logging
import logging.config
import re

import pytest
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import insert, text

from app.logs import ACCESS, access, identified, log_config, request_id
from app.main import create_app
from app.settings import Settings
from app.store import tables as t
from app.store.engine import async_engine, database_url, sync_engine
from app.store.migrate import migrate, newest
from app.web.traffic import BUCKETS, Traffic
from tests.conftest import SLUG, database_beside
from tests.services import free_port, http, started
from tests.test_infer import infer

HERE = ("127.0.0.1", 50000)
AWAY = ("10.0.0.9", 50000)


@pytest.fixture(scope="module")
def own(settings):
    given = database_beside(settings, "operations").model_copy(update={"metrics_token": "a long secret"})
    engine = sync_engine(database_url(given))
    migrate(engine)
    engine.dispose()
    return given


@pytest.fixture
def site(own):
    with TestClient(create_app(own), client=HERE) as client:
        yield client


def numbers(text):
    """``{(name, labels): value}`` of what Prometheus reads in ``text``."""
    return {
        (one.name, tuple(sorted(one.labels.items()))): one.value
        for family in text_string_to_metric_families(text)
        for one in family.samples
    }


def test_ready_is_with_a_database_of_this_version_and_tells_of_the_engine(site, own):
    told = site.get("/readyz")
    assert told.status_code == 200
    assert told.json() == {
        "status": "ready", "schema_revision": newest(), "engine": {"where": "here", "running": True, "waiting": 0}
    }  # fmt: skip
    engine = sync_engine(database_url(own))
    for revision in ("0003", None):
        with engine.begin() as connection:
            connection.execute(text("DELETE FROM alembic_version"))
            if revision:
                connection.execute(text("INSERT INTO alembic_version VALUES (:r)"), {"r": revision})
        behind = site.get("/readyz")
        assert (behind.status_code, behind.json()["code"]) == (503, "database_unavailable")
        assert newest() in behind.json()["message"]
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO alembic_version VALUES (:r)"), {"r": newest()})
    engine.dispose()
    assert site.get("/readyz").status_code == 200


def test_without_its_engine_it_is_ready_and_without_its_database_it_is_not(site, own):
    state = site.app.state.saescope
    state.engine.stop()
    told = site.get("/readyz")
    assert (told.status_code, told.json()["engine"]["running"]) == (200, False)
    state.database = async_engine(database_url(own).set(host="127.0.0.1", port=9, query={}))
    del state.reads  # which is made of it once
    assert site.get("/readyz").status_code == 503
    assert site.get("/healthz").status_code == 200
    found = numbers(site.get("/metrics").text)
    assert found["saescope_database_up", ()] == 0
    assert not [name for name, _ in found if name == "saescope_runs"]
    asyncio.run(state.database.dispose())


def test_the_numbers_are_for_this_machine_and_for_who_has_the_token(own, settings):
    token = {"authorization": "Bearer a long secret"}
    for client, headers, status in (
        (HERE, {}, 200),
        (("::1", 1), {}, 200),
        (AWAY, {}, 401),
        (AWAY, token, 200),
        (AWAY, {"authorization": "Bearer a long secre\xff".encode("latin-1")}, 401),
        (HERE, {"x-forwarded-for": "10.0.0.9"}, 401),
        (HERE, {"x-forwarded-for": "10.0.0.9"} | token, 200),
    ):
        with TestClient(create_app(own), client=client) as site:
            told = site.get("/metrics", headers=headers)
            assert told.status_code == status, (client, headers)
            assert ("saescope_build_info" in told.text) == (status == 200)
    with TestClient(create_app(settings), client=AWAY) as site:  # no token is set: none fits
        assert site.get("/metrics", headers={"authorization": "Bearer "}).status_code == 401
        assert site.get("/metrics", headers={"authorization": "Bearer None"}).status_code == 401


def test_requests_are_counted_by_template_and_labels_do_not_grow(harvested, settings):
    with TestClient(create_app(settings), client=HERE) as site:
        before = numbers(site.get("/metrics").text)
        for index in range(5):
            site.get(f"/saes/{SLUG}/features/{index}")
            site.get(f"/nowhere/{index}")
            site.request(f"ODD{index}", "/")
        site.head(f"/saes/{SLUG}/features/3")
        site.get("/", headers={"host": "elsewhere"})
        found = numbers(site.get("/metrics").text)

    def count(method, route, status):
        return found["saescope_requests_total", (("method", method), ("route", route), ("status", status))]

    assert count("GET", "/saes/{slug}/features/{index}", "200") == 6
    assert count("GET", "/{path:path}", "404") == 5
    assert count("other", "/", "405") == 5
    assert count("GET", "none", "421") == 1
    timed = ("saescope_request_seconds_count", (("route", "/saes/{slug}/features/{index}"),))
    assert found[timed] == 6
    assert timed not in before
    assert found["saescope_requests_underway", ()] == 1  # this one
    assert found["process_resident_memory_bytes", ()] > 1e7


def test_the_engine_the_pool_and_the_runs_are_told_of(harvested, settings, own):
    engine = sync_engine(database_url(own))
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM run"))
        for state in ("done", "done", "queued"):
            connection.execute(insert(t.run).values(kind="harvest", slugs=["x"], command={}, state=state))
        long_ago = text("INSERT INTO run (kind, slugs, command, state, beat) "
                        "VALUES ('harvest', '{x}', '{}', 'running', now() - interval '1 day')")  # fmt: skip
        connection.execute(long_ago)
    engine.dispose()
    with TestClient(create_app(own), client=HERE) as site:
        found = numbers(site.get("/metrics").text)
    assert {labels[0][1]: value for (name, labels), value in found.items() if name == "saescope_runs"} == {
        "done": 2, "queued": 1, "lost": 1
    }  # fmt: skip
    assert found["saescope_database_up", ()] == 1
    with TestClient(create_app(settings), client=HERE) as site:
        before = numbers(site.get("/metrics").text)
        for _ in range(3):
            assert site.post("/api/inspect", json={"text": "counted once", "sae": SLUG}).status_code == 200
        found = numbers(site.get("/metrics").text)

    def more(name):
        return found[f"saescope_engine_{name}", ()] - before[f"saescope_engine_{name}", ()]

    assert more("cache_hits_total") == 2
    assert more("prompts_total") >= 1
    assert more("forwards_total") >= more("batches_total") >= 1
    assert more("cache_bytes") > 0
    assert found["saescope_engine_running", ()] == 1
    assert ("saescope_database_connections", (("state", "idle"),)) in found


def test_a_duration_falls_into_the_bucket_that_holds_it():
    traffic = Traffic()
    for seconds in (0.005, 0.0051, 99.0):
        traffic.add("GET", "/", 200, seconds)
    buckets, total = traffic.seconds["/"]
    assert buckets == [1, 1, *[0] * (len(BUCKETS) - 2), 1]
    assert total == pytest.approx(99.0101)


def test_an_inference_service_tells_its_numbers_and_takes_over_the_requests_id(
    harvested, settings, tiny_folder, tmp_path
):
    arguments, given = infer(settings, tiny_folder, tmp_path, LOG="json", log_level="info")
    with started(*arguments, **given) as service:
        site = create_app(settings.model_copy(update={"infer_url": service.url}))
        with TestClient(site, client=HERE) as client:
            asked = {"text": "over there", "sae": SLUG}
            told = client.post("/api/inspect", json=asked, headers={"x-request-id": "abc-123"})
            assert (told.status_code, told.headers["x-request-id"]) == (200, "abc-123")
            found = numbers(client.get("/metrics").text)
            assert found["saescope_inference_services", ()] == 1
            assert found["saescope_inference_services_away", ()] == 0
            assert client.get("/readyz").json()["engine"]["where"] == "elsewhere"
        there = numbers(http.get(f"{service.url}/metrics").text)
        assert there["saescope_engine_prompts_total", ()] >= 1
        assert there["saescope_requests_total", (("method", "POST"), ("route", "/read"), ("status", "200"))] >= 1
    lines = [json.loads(line) for line in service.log.read_text().splitlines() if line.startswith("{")]
    assert "abc-123" in {line.get("request") for line in lines if line.get("route") == "/read"}
    assert "over there" not in service.log.read_text()


@pytest.mark.parametrize(
    ("given", "kept"),
    [("abc-1.2_Z", True), ("", False), ("a" * 65, False), ("a b", False), ("x\r\ny", False), ("é", False)],
)
def test_a_requests_id_is_kept_if_it_is_short_and_plain(site, given, kept):
    if kept:
        assert identified(given) == given
        assert site.get("/healthz", headers={"x-request-id": given}).headers["x-request-id"] == given
    else:
        assert re.fullmatch(r"[0-9a-f]{32}", identified(given))
        assert identified(given) != identified(given)


def test_every_answer_has_an_id_and_a_page_of_a_fault_names_it(settings, monkeypatch):
    with TestClient(create_app(settings), raise_server_exceptions=False) as client:
        assert client.get("/nowhere").headers["x-request-id"]
        assert "Request <code>" not in client.get("/nowhere").text
        monkeypatch.setattr(client.app.state.saescope, "database", None)
        page = client.get("/")
        assert page.status_code == 500
        assert f"<code>{page.headers['x-request-id']}</code>" in page.text


def logged(form, log_level, do):
    """The lines that ``do`` logs under these settings."""
    held = io.StringIO()
    config = log_config(Settings(log=form, log_level=log_level))
    config["handlers"]["stderr"]["stream"] = held
    before = logging.root.handlers[:], logging.root.level, {
        name: logging.getLogger(name).level for name in config["loggers"]
    }  # fmt: skip
    try:
        logging.config.dictConfig(config)
        do()
    finally:
        logging.root.handlers, levels = before[0], before[2]
        logging.root.setLevel(before[1])
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
    return held.getvalue()


def test_a_line_is_text_or_json_with_the_requests_id_and_never_more_than_one_line():
    def do():
        token = request_id.set("abc")
        access(logging.INFO, "GET", "/saes/{slug}", 200, 0.01234, "::1")
        request_id.reset(token)
        logging.getLogger("app.x").warning("two\nlines")
        logging.getLogger("httpx2").info("GET http://secret")

    lines = logged("text", "info", do).splitlines()
    assert re.fullmatch(r"\S+Z INFO saescope.access: GET /saes/\{slug\} 200 12.3 ms \[abc\]", lines[0])
    assert lines[1].endswith(r"WARNING app.x: two\nlines")
    assert len(lines) == 2
    first, second = map(json.loads, logged("json", "info", do).splitlines())
    assert first.items() >= {
        "request": "abc", "logger": ACCESS, "level": "info", "method": "GET", "route": "/saes/{slug}", "status": 200,
        "ms": 12.3, "client": "::1",
    }.items()  # fmt: skip
    assert second["message"] == r"two\nlines"
    assert "request" not in second
    assert logged("text", "warning", do).count("\n") == 1


def test_a_fault_is_logged_with_its_traceback_and_without_what_was_sent(own):
    """The database's errors name their statement, not the values in it."""
    sent = f"my {'private'} prompt"

    async def fail():
        database = async_engine(database_url(own))
        try:
            async with database.connect() as connection:
                await connection.execute(text("SELECT 1 / 0 WHERE :prompt <> ''"), {"prompt": sent})
        except Exception:
            logging.getLogger("app.x").exception("It failed")
        finally:
            await database.dispose()

    told = json.loads(logged("json", "warning", lambda: asyncio.run(fail())))
    assert "DivisionByZero" in told["exception"] or "division by zero" in told["exception"]
    assert sent not in told["exception"]


def test_a_served_site_logs_one_line_a_request_without_prompts_or_tokens(harvested, settings, tmp_path):
    secret = "a-very-long-secret"
    given = {"worker": "false", "database_url": settings.database_url, "LOG": "json", "log_level": "info"}
    with started("serve", "--home", settings.home, port=free_port(), log=tmp_path / "log", metrics_token=secret,
                 **given) as site:  # fmt: skip
        for path in (f"/saes/{SLUG}/features/3?text=my+private+prompt", "/inspect?text=my+private+prompt", "/x\u00e9"):
            http.get(site.url + path, headers={"authorization": f"Bearer {secret}"}, timeout=300)
    lines = [json.loads(line) for line in site.log.read_text().splitlines() if line.startswith("{")]
    asked = [line for line in lines if line["logger"] == ACCESS]
    assert [line["route"] for line in asked] == ["/saes/{slug}/features/{index}", "/inspect", "/{path:path}"]
    assert all(re.fullmatch(r"[0-9a-f]{32}", line["request"]) and line["ms"] > 0 for line in asked)
    told = site.log.read_text()
    assert "private" not in told
    assert secret not in told
