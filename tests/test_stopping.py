"""A server that is told to stop: what is under way ends in good order, and a harvest carries on with the next one."""

import json
import time

import httpx2
import pytest
from sqlalchemy import select, update

from app.harvest import imports
from app.store import tables as t
from app.store.engine import database_url, sync_engine
from app.store.migrate import migrate
from tests.conftest import SLUG, database_beside, public_folder, random_sae
from tests.services import free_port, http, started
from tests.test_infer import infer

EDITS = [{"feature": f"{SLUG}/3", "kind": "add", "strength": 5}]


def serve(settings, tmp_path, **given):
    given = {"database_url": settings.database_url, "worker": "false", "max_prompt_tokens": 2048} | given
    return started("serve", "--home", settings.home, port=free_port(), log=tmp_path / "serve.log", **given)


def streamed_until_stopped(site, new):
    """The events of a text that goes on for ``new`` tokens; the server is told to stop after the first."""
    body = {"text": "Paris", "edits": EDITS, "max_new": new, "temperature": 0, "stream": True}
    events = []
    with (
        httpx2.Client(trust_env=False, timeout=300) as client,
        client.stream("POST", site.url + "/api/generate", json=body) as answer,
    ):
        for line in answer.iter_lines():
            if line.startswith("event: "):
                events.append([line.removeprefix("event: "), None])
                if len(events) == 1:
                    site.process.terminate()
            elif line.startswith("data: "):
                events[-1][1] = json.loads(line.removeprefix("data: "))
    return events


def test_what_is_under_way_goes_on_to_its_end(harvested, settings, tmp_path):
    with serve(settings, tmp_path, drain_seconds=300) as site:
        events = streamed_until_stopped(site, 60)
        assert [name for name, _ in events] == ["step"] * 60 + ["done"]
        assert site.process.wait(timeout=300) == 143
        with pytest.raises(httpx2.ConnectError):
            http.get(site.url + "/healthz")
    assert "Traceback" not in site.log.read_text()


@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_stream_that_takes_longer_than_that_ends_with_an_event_that_says_why(
    harvested, settings, tiny_folder, tmp_path, elsewhere
):
    arguments, given = infer(settings, tiny_folder, tmp_path, max_prompt_tokens=2048)
    with started(*arguments, **given) as service:
        asked = {"infer_url": service.url} if elsewhere else {}
        with serve(settings, tmp_path, drain_seconds=0, max_new_tokens=2000, **asked) as site:
            events = streamed_until_stopped(site, 2000)
            assert len(events) < 2000
            assert events[-1][0] == "error"
            assert events[-1][1]["code"] == "engine_stopped"
            assert events[-1][1]["message"].startswith("The server is being stopped")
            assert site.process.wait(timeout=300) == 143
        assert "Traceback" not in site.log.read_text()
        assert service.idle()


def test_a_harvest_keeps_what_it_has_done_and_the_next_server_carries_on(settings, tiny_folder, tmp_path):
    home = public_folder()
    imports.keep(random_sae(), "mine", home, {})
    own = database_beside(settings, "stopping").model_copy(update={"home": home})
    engine = sync_engine(database_url(own))
    migrate(engine)
    corpus = tmp_path / "text.txt"
    corpus.write_text("The cat sat on the mat. " * 20_000)
    form = {"sae": "mine", "model_path": str(tiny_folder), "corpus": f"text:{corpus}", "tokens": "130,000"}

    def run():
        with engine.connect() as connection:
            return connection.execute(select(t.run)).one()

    def until(what):
        for _ in range(1200):
            row = run()
            if what(row):
                return row
            assert row.state in ("queued", "running"), row
            time.sleep(0.1)
        raise AssertionError(row)

    given = {"worker": "true", "batch_tokens": 64}
    with serve(own, tmp_path, **given) as site:
        assert http.post(site.url + "/harvests", data=form, timeout=300).status_code == 303
        until(lambda row: row.tokens > 0)
        site.process.terminate()
        assert site.process.wait(timeout=300) == 143
    row = run()
    assert (row.state, row.finished) == ("queued", None)
    assert row.facts["kept"] > 0
    assert list((home / "work").glob("harvest-mine-*.pt"))
    with serve(own, tmp_path, **given):
        assert until(lambda row: row.resumed > 0).resumed >= row.facts["kept"]
        with engine.begin() as connection:
            connection.execute(update(t.run).values(state="stopping"))
    engine.dispose()
