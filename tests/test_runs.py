"""Harvests that are started, watched, stopped and resumed: real Postgres, real processes, the real site."""

import json
import re
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import func, insert, inspect, select, text, update

from app import cli, commands, jobs
from app.errors import RunEnded, UnknownRun
from app.harvest import imports
from app.main import create_app
from app.settings import Settings
from app.store import tables as t
from app.store.engine import database_url, sync_engine
from app.store.migrate import migrate
from app.store.runs import RunLog
from app.web.guard import allowed_names
from app.web.metric_names import METRICS
from tests.conftest import database_beside, public_folder, random_sae

CHILD = Path(__file__).with_name("harvest_child.py")
ENDED = ("stopped", "failed", "done", "lost")


@pytest.fixture(scope="module")
def own(settings):
    """A database and a home of this module's own, with two imports."""
    home = public_folder()
    for slug in ("quick", "slow"):
        imports.keep(random_sae(), slug, home, {})
    given = database_beside(settings, "runs").model_copy(update={"home": home, "worker": True})
    engine = sync_engine(database_url(given))
    migrate(engine)
    engine.dispose()
    return given


@pytest.fixture
def engine(own):
    engine = sync_engine(database_url(own))
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM run"))
        connection.execute(text("SET LOCAL search_path TO procrastinate"))
        connection.execute(text("DELETE FROM procrastinate_jobs"))
    yield engine
    engine.dispose()


@pytest.fixture
def child(monkeypatch):
    """Harvests are done by harvest_child.py."""
    monkeypatch.setattr(
        jobs, "argv", lambda command, run, kind="harvest": [sys.executable, str(CHILD), str(run), command["slug"]]
    )  # fmt: skip
    monkeypatch.setenv("PYTHONPATH", str(CHILD.parents[1]))


@pytest.fixture
def site(own, engine):
    with TestClient(create_app(own.model_copy(update={"worker": False}))) as client:
        yield client


@pytest.fixture
def working(own, engine, child):
    with TestClient(create_app(own)) as client:
        yield client


def filled(tiny_folder, tmp_path, **changes):
    corpus = tmp_path / "text.txt"
    corpus.write_text("The cat sat on the mat. " * 40)
    form = {"sae": "quick", "model_path": str(tiny_folder), "corpus": f"text:{corpus}", "tokens": "1,000"}
    return form | changes


def start(client, form):
    answer = client.post("/harvests", data=form, follow_redirects=False)
    assert answer.status_code == 303, answer.text
    return int(answer.headers["location"].rpartition("/")[2])


def until(client, run, *states):
    for _ in range(200):
        told = client.get(f"/harvests/{run}.json").json()
        if told["state"] in states and (told["state"] != "running" or told["tokens"]):
            return told
        time.sleep(0.1)
    raise AssertionError(told)


def add(engine, **values):
    row = {"kind": "harvest", "slugs": ["quick"], "command": {"slug": "quick"}, "state": "running"} | values
    with engine.begin() as connection:
        return connection.execute(insert(t.run).values(**row).returning(t.run.c.id)).scalar_one()


def stored(engine, run):
    with engine.connect() as connection:
        return connection.execute(select(t.run).where(t.run.c.id == run)).one()


def ago(seconds):
    return func.now() - func.make_interval(0, 0, 0, 0, 0, 0, seconds)


def test_the_migration_makes_the_table_that_the_code_knows(engine):
    made = {c["name"]: (c["type"].compile(engine.dialect), c["nullable"]) for c in inspect(engine).get_columns("run")}
    assert made == {c.name: (c.type.compile(engine.dialect), c.nullable) for c in t.run.c}
    with engine.connect() as connection:
        assert connection.execute(text("SELECT to_regclass('procrastinate.procrastinate_jobs')")).scalar()
        assert connection.execute(text("SELECT to_regclass('public.procrastinate_jobs')")).scalar() is None


def test_a_run_tells_its_progress_and_is_told_to_stop(engine, monkeypatch):
    log = RunLog.start(engine, ["a", "b"], {"sae": ["a", "b"]}, None)
    assert log.beat(100, None, 0, 2.0) is False
    assert log.beat(300, 1000, 0, 4.0) is False  # within two seconds of the last: not written
    row = stored(engine, log.id)
    assert (row.state, row.tokens, row.total, row.tokens_per_second) == ("running", 100, None, 50.0)
    with engine.begin() as connection:
        connection.execute(update(t.run).where(t.run.c.id == log.id).values(state="stopping"))
    monkeypatch.setattr("app.store.runs.BEAT_SECONDS", 0.0)
    log._due = 0.0
    assert log.beat(400, 1000, 200, 4.0) is True
    log.finish("stopped", "enough")
    row = stored(engine, log.id)
    assert (row.state, row.tokens, row.resumed, row.tokens_per_second) == ("stopped", 400, 200, 50.0)
    assert row.message == "enough"
    assert row.finished >= row.started


def test_a_run_tells_its_stage_its_checkpoint_and_what_was_skipped_beside_the_facts_of_others(engine):
    log = RunLog.start(engine, ["a"], {}, None)
    log.doing("loading the subject")
    assert stored(engine, log.id).facts == {"stage": "loading the subject"}
    with engine.begin() as connection:
        connection.execute(update(t.run).where(t.run.c.id == log.id).values(facts={"theirs": 1}))
    log.note("One.")
    log.note("Two.")
    log.kept("harvest-a.pt", 0)
    assert not log.resumable
    log.kept("harvest-a.pt", 64)
    assert log.resumable
    log.beat(100, None, 0, 2.0)
    wanted = {"theirs": 1, "stage": None, "notes": ["One.", "Two."], "checkpoint": "harvest-a.pt", "kept": 64}
    assert stored(engine, log.id).facts == wanted
    log.doing("measuring loss recovered")
    log.skipped(1, [("a.txt", "not UTF-8")])
    log.finish("stopped")
    wanted["skipped"] = {"count": 1, "named": [["a.txt", "not UTF-8"]]}
    assert stored(engine, log.id).facts == wanted


def test_runs_from_before_their_facts_were_kept_can_be_carried_on(own):
    from alembic import command
    from alembic.config import Config

    from app.store.migrate import ROOT

    engine = sync_engine(database_url(database_beside(own, "older")))
    config = Config()
    config.set_main_option("script_location", str(ROOT / "migrations"))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0007")
        row = "INSERT INTO run (kind, slugs, command, state, tokens) VALUES ('harvest', '{{a}}', '{{}}', '{}', {})"
        for state, tokens in (("stopped", 50), ("failed", 0), ("done", 100)):
            connection.exec_driver_sql(row.format(state, tokens))
        command.upgrade(config, "head")
        facts = connection.execute(select(t.run.c.facts).order_by(t.run.c.id)).scalars().all()
    engine.dispose()
    assert facts == [{"kept": 50}, {}, {}]


def test_a_run_says_that_it_lives_while_it_has_no_progress_to_tell(engine, monkeypatch):
    monkeypatch.setattr("app.store.runs.ALIVE_SECONDS", 0.05)
    log = RunLog.start(engine, ["a"], {}, None)
    first = stored(engine, log.id).beat
    for _ in range(100):
        if stored(engine, log.id).beat > first:
            break
        time.sleep(0.05)
    assert stored(engine, log.id).beat > first
    log.finish("done", revisions=["0123456789"])
    assert not log._alive.is_alive()  # so no connection is taken after the engine has been disposed of


def test_a_database_that_is_away_stops_no_harvest(engine, own):
    log = RunLog.start(engine, ["a"], {}, None)
    log._engine = sync_engine(database_url(own).set(host="127.0.0.1", port=9, query={}))
    assert log.beat(10, 100, 0, 1.0) is False
    log.finish("done", revisions=["0123456789"])
    assert stored(engine, log.id).state == "running"


def test_a_queued_run_is_taken_over_and_an_ended_one_is_not(engine):
    run = add(engine, state="queued", message="waits")
    log = RunLog.start(engine, ["quick"], {}, run)
    assert log.id == run
    assert (stored(engine, run).state, stored(engine, run).message) == ("running", None)
    log.finish("done")
    with pytest.raises(RunEnded, match="is done"):
        RunLog.start(engine, ["quick"], {}, run)
    with pytest.raises(UnknownRun):
        RunLog.start(engine, ["quick"], {}, run + 1)
    asked = add(engine, state="stopping")
    log = RunLog.start(engine, ["quick"], {}, asked)
    assert log.beat(1, 2, 0, 1.0) is True
    log.finish("stopped")


@pytest.fixture
def saved(engine):
    """Makes a revision's rows, without latents."""

    def make(slug, revision):
        with engine.begin() as connection:
            made = {
                "subject": {"name": revision, "path": "s", "facts": {}},
                "corpus": {
                    "name": "c", "sha256": revision, "context": 8, "sequences": 1, "documents": 1, "tokens": 8
                },
            }  # fmt: skip
            subject, corpus = (
                connection.execute(insert(table).values(**made[table.name]).returning(table.c.id)).scalar_one()
                for table in (t.subject, t.corpus)
            )
            sae = connection.execute(
                insert(t.sae)
                .values(
                    slug=slug, revision=revision, subject_id=subject, reads=[], writes=[], d_in=1, signed=0,
                    architecture="topk", n_latents=1, config={}, path="a", sha256="a",
                )
                .returning(t.sae.c.id)
            ).scalar_one()  # fmt: skip
            connection.execute(
                insert(t.harvest).values(
                    sae_id=sae, corpus_id=corpus, parameters={}, metrics={"fvu": 0.5, "l0": 2.0}, dead=0,
                    density_edges=[], density_counts=[], tokens=8, seconds=1.0,
                )
            )  # fmt: skip

    yield make
    with engine.begin() as connection:
        for table in (t.sae, t.subject, t.corpus):
            connection.execute(table.delete())


def test_a_finished_run_keeps_the_metrics_that_were_saved(engine, saved):
    saved("a", "0123456789")
    log = RunLog.start(engine, ["a"], {}, None)
    log.finish("done", revisions=["0123456789"])
    assert stored(engine, log.id).metrics == {"a": {"fvu": 0.5, "l0": 2.0}}


def test_a_run_without_a_sign_of_life_is_shown_as_lost_and_resumed(site, engine):
    run = add(engine, beat=ago(150), started=ago(300), tokens=10, total=20, facts={"kept": 10})
    alive = add(engine, beat=func.now(), started=ago(10), command={"slug": "slow"})
    assert site.get(f"/harvests/{alive}.json").json()["state"] == "running"
    told = site.get(f"/harvests/{run}.json").json()
    assert (told["state"], told["refresh"], told["resumable"]) == ("lost", False, True)
    page = site.get(f"/harvests/{run}").text
    assert "Nothing was heard of it for 2 minutes: its process has died." in page
    assert "hx-trigger" not in page
    assert stored(engine, run).state == "running"
    answer = site.post(f"/harvests/{run}/resume", follow_redirects=False)
    new = int(answer.headers["location"].rpartition("/")[2])
    assert (stored(engine, new).state, stored(engine, new).command) == ("queued", {"slug": "quick"})
    assert site.get(f"/harvests/{run}.json").json()["message"] == f"Its process died; run {new} carries on."
    lost = add(engine, beat=ago(90), command={"slug": "other"})
    told = site.get(f"/harvests/{lost}.json").json()
    assert (told["resumable"], told["message"]) == (
        False,
        "Nothing was heard of it for 1 minute: its process has died.",
    )
    site.post(f"/api/harvests/{lost}/stop")
    assert stored(engine, lost).state == "stopped"


def test_only_revisions_that_are_here_are_linked_to(site, engine, saved):
    saved("quick", "0123456789")
    common = {"state": "done", "slugs": ["quick", "old", "lost"], "revisions": ["0123456789", "aaaaaaaaaa", "b"]}
    run = add(engine, facts={"gone": {"old@aaaaaaaaaa": "replaced", "quick@0123456789": "removed"}}, **common)
    told = [(sae["url"], sae["gone"]) for sae in site.get(f"/harvests/{run}.json").json()["saes"]]
    assert told == [("/saes/quick@0123456789", None), (None, "replaced"), (None, "removed")]
    for page in ("/harvests", f"/harvests/{run}"):
        text = site.get(page).text
        assert 'href="/saes/quick@0123456789"' in text
        assert 'old@aaaaaaaaaa <span class="muted">(replaced)</span>' in text
        assert "/saes/old" not in text


def test_a_run_that_found_everything_there_says_so(site, engine, saved):
    saved("quick", "0123456789")
    log = RunLog.start(engine, ["quick"], {}, None)
    log.already(["quick@0123456789"])
    log.finish("done", "Already harvested as quick@0123456789; nothing was done.", ["0123456789"])
    assert site.get(f"/harvests/{log.id}.json").json()["already"]
    for page in ("/harvests", f"/harvests/{log.id}"):
        text = site.get(page).text.partition("<footer")[0]  # the list of keys has a 0
        assert "already harvested" in text
        assert "nothing was done" in text
        assert "<progress" not in text
        assert "0 tokens" not in text
        assert ">0<" not in text


def test_a_run_that_has_ended_is_taken_off_the_list_and_one_that_has_not_is_not(site, engine):
    ended = [add(engine, state=state) for state in ("done", "failed", "stopped")]
    lost = add(engine, beat=ago(90))
    open_ = [add(engine, state=state, beat=func.now()) for state in ("queued", "running", "stopping")]
    for run in open_:
        answer = site.post(f"/api/harvests/{run}/forget")
        assert (answer.status_code, answer.json()["code"]) == (409, "run_open")
        assert site.post(f"/harvests/{run}/forget").status_code == 409
        assert f"/harvests/{run}/forget" not in site.get(f"/harvests/{run}").text
    assert site.post(f"/harvests/{lost}/forget", headers={"sec-fetch-site": "cross-site"}).status_code == 403
    assert f'action="/harvests/{lost}/forget"' in site.get(f"/harvests/{lost}").text
    answer = site.post(f"/harvests/{lost}/forget", follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, "/harvests")
    assert site.post(f"/api/harvests/{ended[0]}/forget").json()["id"] == ended[0]
    assert site.post(f"/api/harvests/{ended[0]}/forget").json()["code"] == "run_unknown"
    left = [run["id"] for run in site.get("/harvests.json").json()["items"]]
    assert left == [*open_[::-1], ended[2], ended[1]]
    page = site.get("/harvests").text
    assert all((f"/harvests/{run}/forget" in page) == (run in ended) for run in left)


def test_a_run_is_resumed_only_where_that_would_carry_on(site, engine):
    """Each of the command ``mine`` unless it is said otherwise."""
    mine, kept = {"slug": "quick", "tokens": 5}, {"checkpoint": "mine.pt", "kept": 5}

    def ended(state="stopped", facts=kept, command=mine, **values):
        return add(engine, state=state, facts=facts, command=command, **values)

    def refused(run, says):
        answer = site.post(f"/api/harvests/{run}/resume")
        assert (answer.status_code, answer.json()["code"]) == (409, "run_ended")
        assert says in answer.json()["message"]
        page = site.get(f"/harvests/{run}").text
        assert "Resume" not in page.replace("when resumed", "")

    never_begun = ended("failed", {})
    refused(never_begun, "it had kept nothing to carry on from; start it anew")
    first = ended()
    assert site.get(f"/harvests/{first}.json").json()["resumable"]
    in_vain = ended("failed", {"checkpoint": "mine.pt", "kept": 0})  # the device was taken, say
    refused(in_vain, "kept nothing")
    assert site.get(f"/harvests/{first}.json").json()["resumable"]
    ended("running", {}, beat=ago(90))  # a later one that died before it had kept anything
    assert site.get(f"/harvests/{first}.json").json()["resumable"]
    second = ended(command={"sae": "quick"})  # the same harvest, from a command typed in another way
    refused(first, "a later run of the same harvest carried on from it")
    assert site.get(f"/harvests/{second}.json").json()["resumable"]
    waiting = ended("queued", {}, command={"sae": "quick"})
    refused(second, "a later run of the same harvest")
    refused(waiting, "stop it first")
    site.post(f"/harvests/{waiting}/stop")
    refused(waiting, "kept nothing")
    assert site.get(f"/harvests/{second}.json").json()["resumable"]
    done = ended("done")
    refused(done, "it is done")
    assert [run["id"] for run in site.get("/harvests.json").json()["items"] if run["resumable"]] == []


def test_runs_are_listed_newest_first_page_by_page(site, engine):
    made = [add(engine, state="done", started=func.now(), finished=func.now()) for _ in range(65)]
    cursor, seen = "", []
    while cursor is not None:
        page = site.get("/harvests.json", params={"cursor": cursor}).json()
        seen += [run["id"] for run in page["items"]]
        cursor = page["next"]
    assert seen == made[::-1]
    assert "Next page" in site.get("/harvests").text
    for cursor in ("x", "-1", "9" * 30, "²"):
        assert "does not belong" in site.get("/harvests.json", params={"cursor": cursor}).json()["message"]
    for run in ("x", "0", str(2**62), "9" * 30):
        assert site.get(f"/harvests/{run}.json").json()["code"] == "run_unknown"
        assert site.post(f"/harvests/{run}/stop").status_code == 404


def test_what_runs_refreshes_itself_and_what_has_ended_does_not(site, engine, saved):
    saved("quick", "0123456789")
    assert "hx-trigger" not in site.get("/harvests").text
    run = add(engine, tokens=25, total=100, tokens_per_second=5.0, started=func.now(), beat=func.now())
    page = site.get("/harvests").text
    assert 'hx-trigger="every 2s"' in page
    assert "25 of 100 tokens (25%) · 5 tok/s · 15 s left" in page
    fragment = site.get("/harvests", headers={"hx-request": "true"}).text
    assert fragment.lstrip().startswith('<div id="runs" hx-get')
    with engine.begin() as connection:
        connection.execute(update(t.run).values(tokens=100))
    assert "100 of 100 tokens (100%) · 5 tok/s · measuring and saving" in site.get(f"/harvests/{run}").text
    with engine.begin() as connection:
        connection.execute(update(t.run).values(facts={"stage": "measuring loss recovered", "notes": ["Said so."]}))
    told = site.get(f"/harvests/{run}").text
    assert "100 of 100 tokens (100%) · 5 tok/s · measuring loss recovered<" in told
    assert "Said so." in told
    own = site.get(f"/harvests/{run}", headers={"hx-request": "true"}).text
    assert own.lstrip().startswith('<div id="run" hx-get')
    assert 'max="100" value="100"' in own
    with engine.begin() as connection:
        values = {"state": "done", "revisions": ["0123456789"], "metrics": {"quick": {"fvu": 0.125, "l0": 8.5}}}
        connection.execute(update(t.run).values(finished=func.now(), **values))
    ended = site.get(f"/harvests/{run}", headers={"hx-request": "true"}).text
    assert "hx-trigger" not in ended
    assert 'href="/saes/quick@0123456789"' in ended
    assert "0.125" in ended
    assert "8.5" in site.get("/harvests").text


def test_a_harvest_is_started_from_the_form_watched_stopped_and_resumed(working, engine, saved, tiny_folder, tmp_path):
    saved("quick", "0123456789")
    form = filled(tiny_folder, tmp_path)
    page = working.get("/harvests").text
    assert '<option value="quick" selected>quick</option><option value="slow">' in page
    run = start(working, form)
    done = until(working, run, *ENDED)
    assert (done["state"], done["tokens"], done["total"]) == ("done", 100, 100)
    assert [(m["name"], m["value"]) for m in done["saes"][0].pop("measured")] == [("FVU", 0.25), ("L0", 4.0)]
    assert done["saes"][0] | {"metrics": None} == {
        "sae": "quick", "revision": "0123456789", "url": "/saes/quick@0123456789", "gone": None, "already": False,
        "fvu": 0.25, "l0": 4.0, "metrics": None,
    }  # fmt: skip
    assert done["command"] == {
        "sae": str(working.app.state.saescope.settings.home / "imports" / "quick"), "model": str(tiny_folder),
        "corpus": form["corpus"], "tokens": 1000, "context": 128, "slug": "quick",
    }  # fmt: skip
    slow = start(working, form | {"sae": "slow"})
    assert until(working, slow, "running")["total"] == 100_000
    waiting = start(working, form | {"sae": "quick", "slug": "refused"})
    assert working.get(f"/harvests/{waiting}.json").json()["state"] == "queued"
    again = working.post("/harvests", data=form | {"sae": "quick", "slug": "refused"})
    assert again.status_code == 409
    assert f"waits in the queue already, as run {waiting}" in again.text
    assert 'name="slug" value="refused"' in again.text
    working.post(f"/harvests/{slow}/stop")
    assert until(working, slow, *ENDED)["state"] == "stopped"
    assert working.post(f"/harvests/{slow}/stop").status_code == 409
    refused = until(working, waiting, *ENDED)
    assert (refused["state"], refused["message"]) == ("failed", "its W_enc has 3 rows.")
    resumed = int(working.post(f"/harvests/{slow}/resume", follow_redirects=False).headers["location"][10:])
    assert until(working, resumed, "running")["command"] == stored(engine, slow).command
    assert working.post(f"/harvests/{resumed}/resume").status_code == 409
    told = working.post(f"/api/harvests/{resumed}/stop")
    assert (told.status_code, told.json()["state"]) == (200, "stopping")
    assert until(working, resumed, *ENDED)["state"] == "stopped"


def test_a_process_that_was_killed_is_said_so(working, tiny_folder, tmp_path):
    run = start(working, filled(tiny_folder, tmp_path, slug="killed"))
    told = until(working, run, *ENDED)
    assert (told["state"], told["tokens"]) == ("failed", 5)
    assert told["message"] == "Its process was ended by SIGKILL; memory may have run out."


def test_a_server_that_stops_leaves_its_harvest_to_the_next(own, engine, child, tiny_folder, tmp_path):
    with TestClient(create_app(own)) as client:
        run = start(client, filled(tiny_folder, tmp_path, sae="slow"))
        until(client, run, "running")
    row = stored(engine, run)
    assert (row.state, row.finished) == ("queued", None)
    assert row.message == "The server was stopped; it carries on with the next one."
    with TestClient(create_app(own)) as client:
        assert until(client, run, "running")["message"] is None
        client.post(f"/harvests/{run}/stop")
        assert until(client, run, *ENDED)["state"] == "stopped"


def test_what_a_killed_server_had_taken_is_picked_up(own, engine, child):
    run = add(engine, state="queued", command={"slug": "quick"})
    with engine.begin() as connection:
        taken = "INSERT INTO procrastinate_jobs (queue_name, task_name, lock, status, args) VALUES "
        # A job whose worker is gone: its lock would keep the SAE for ever.
        values = "('jobs', 'run', 'harvest quick', 'doing', jsonb_build_object('run_id', CAST(:run AS bigint)))"
        connection.execute(text("SET LOCAL search_path TO procrastinate"))
        connection.execute(text(taken + values), {"run": run})
    with TestClient(create_app(own)) as client:
        assert until(client, run, *ENDED)["state"] == "done"
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM procrastinate.procrastinate_jobs")).scalar() == 0


def test_a_queued_run_is_stopped_at_once_and_never_begins(own, engine, site, child, tiny_folder, tmp_path):
    run = start(site, filled(tiny_folder, tmp_path))
    assert "This server runs none itself" in site.get("/harvests").text
    site.post(f"/harvests/{run}/stop")
    assert site.get(f"/harvests/{run}.json").json()["message"] == "Stopped before it began."
    with TestClient(create_app(own)) as client:
        for _ in range(100):
            with engine.connect() as connection:
                if not connection.execute(text("SELECT count(*) FROM procrastinate.procrastinate_jobs")).scalar():
                    break
            time.sleep(0.05)
        assert client.get(f"/harvests/{run}.json").json()["state"] == "stopped"


BAD = {
    "no SAE": ({"sae": ""}, "Choose an SAE, or write the folder it is in."),
    "no such SAE": ({"sae_path": "/nowhere", "slug": "x"}, "No SAE folder at /nowhere"),
    "a folder without a name": ({"sae_path": "/tmp"}, "Give the SAE in /tmp a name"),
    "a bad name": ({"slug": "A b"}, "'A b' cannot name an SAE"),
    "no subject": ({"model_path": ""}, "No subject is known for it: choose one, a Hugging Face folder"),
    "no such subject": ({"model_path": "/nowhere"}, "No model at /nowhere: config.json is missing"),
    "a subject of nobody": (
        {"model_path": "~nobody-there/x"},
        "'~nobody-there/x' cannot be looked up: there is no such user.",
    ),
    "a path too long": ({"sae_path": "a" * 5000, "slug": "x"}, "File name too long"),
    "an unknown corpus": ({"corpus": "nonsense"}, "'nonsense' is not known"),
    "no such text": ({"corpus": "text:/nowhere"}, "/nowhere"),
    "no such lines": ({"corpus": "jsonl:/nowhere"}, "/nowhere"),
    "tokens in words": ({"tokens": "many"}, "Tokens is 'many', which is no whole number."),
    "few tokens": ({"tokens": "3"}, "Tokens is 3; it is at least 16."),
    "no context": ({"context": "-5"}, "Context is '-5', which is no whole number."),
    "a NUL": ({"corpus": "text:\0"}, "holds a character"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_form_that_does_not_fit_is_one_sentence_and_stays_filled_in(site, engine, tiny_folder, tmp_path, name):
    changes, says = BAD[name]
    form = filled(tiny_folder, tmp_path) | changes
    answer = site.post("/harvests", data=form)
    assert answer.status_code == 422
    page = answer.text.replace("&#39;", "'")
    assert says in page
    assert "<details open>" in page
    for field in ("corpus", "tokens", "model_path"):
        assert f'name="{field}" value="{form[field]}"' in page
    with engine.connect() as connection:
        assert connection.execute(select(func.count()).select_from(t.run)).scalar() == 0


def test_the_form_lists_what_a_replacement_drops_and_starts_when_that_is_agreed_to(
    site, engine, saved, tiny_folder, tmp_path
):
    form = filled(tiny_folder, tmp_path, replace="on")
    first = start(site, form)  # there is nothing to drop yet
    site.post(f"/harvests/{first}/stop")
    saved("quick", "aaaaaaaaaa")

    def asked(**more):
        answer = site.post("/harvests", data=form | more)
        assert answer.status_code == 200
        assert "Nothing has started yet." in answer.text
        assert 'name="replace" checked' in answer.text
        return re.search(r'name="replacing" value="([^"]*)"', answer.text)[1], answer.text

    agreed, page = asked()
    assert agreed == "quick@aaaaaaaaaa"
    assert ">quick@aaaaaaaaaa</a>, over c, of 20" in page
    saved("quick", "bbbbbbbbbb")  # meanwhile
    agreed, page = asked(replacing=agreed)
    assert agreed == "quick@bbbbbbbbbb quick@aaaaaaaaaa"
    with engine.connect() as connection:
        before = connection.execute(select(func.count()).select_from(t.run)).scalar_one()
    run = start(site, form | {"replacing": agreed})
    assert stored(engine, run).command["replace"] is True
    site.post(f"/harvests/{run}/stop")
    body = {"sae": "quick", "model": str(tiny_folder), "corpus": "pkg:brown", "replace": True}
    assert site.post("/api/harvests", json=body).json()["state"] == "queued"
    with engine.connect() as connection:
        assert connection.execute(select(func.count()).select_from(t.run)).scalar_one() == before + 2


def test_bodies_that_are_no_form_are_refused(site, tiny_folder, tmp_path):
    assert "no filled-in form" in site.post("/harvests", content=b"\xff\xfe=1").text
    assert "no filled-in form" in site.post("/harvests", content=b"a=1&" * 100).text
    assert site.post("/harvests", content=b"a" * 70_000).status_code == 413
    body = {"sae": "quick", "model": str(tiny_folder), "corpus": "pkg:brown", "tokens": 500}
    told = site.post("/api/harvests", json=body)
    assert (told.status_code, told.json()["state"]) == (200, "queued")
    assert told.json()["command_line"].endswith(
        "--slug=quick --model=" + str(tiny_folder) + " --corpus=pkg:brown --tokens=500 --context=128"
    )
    assert site.post("/api/harvests", json=body | {"sae": "none"}).json()["code"] == "sae_invalid"
    assert site.post("/api/harvests", json=body | {"tokens": "x"}).status_code == 422


def test_of_submits_at_once_one_is_queued(site, engine, tiny_folder):
    from concurrent.futures import ThreadPoolExecutor

    with engine.begin() as connection:
        connection.execute(update(t.run).where(t.run.c.state == "queued").values(state="stopped"))
    body = {"sae": "slow", "model": str(tiny_folder), "corpus": "pkg:brown", "tokens": 500}
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: site.post("/api/harvests", json=body).status_code, range(8)))
    assert sorted(answers) == [200, *[409] * 7]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 303),
        ({"sec-fetch-site": "same-origin"}, 303),
        ({"sec-fetch-site": "none"}, 303),
        ({"origin": "http://testserver"}, 303),
        ({"origin": "http://testserver:80"}, 303),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
        ({"sec-fetch-site": "cross-site", "origin": "http://testserver"}, 403),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "http://testserver:9"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "file://testserver"}, 403),
    ],
)
def test_a_post_from_another_site_changes_nothing(site, engine, headers, status):
    run = add(engine, state="queued")
    answer = site.post(f"/harvests/{run}/stop", headers=headers, follow_redirects=False)
    assert answer.status_code == status
    assert stored(engine, run).state == ("stopped" if status == 303 else "queued")
    if status == 403:
        assert "comes from another site" in answer.text
        assert "script-src 'self'" in answer.headers["content-security-policy"]
        told = site.post(f"/api/harvests/{run}/stop", headers=headers).json()
        assert (told["code"], told["detail"]) == ("cross_site", {})


def test_json_needs_no_word_on_its_site_but_a_foreign_origin_is_refused(site, tiny_folder):
    body = {"sae": "quick", "model": str(tiny_folder), "corpus": "pkg:brown"}
    assert site.post("/api/harvests", json=body, headers={"origin": "http://evil.example"}).status_code == 403
    assert site.post("/api/harvests", json=body, headers={"sec-fetch-site": "cross-site"}).status_code == 200


def test_names_this_server_does_not_have_are_refused(site):
    for host in ("evil.example", "evil.example:8000", "localhost.evil.example", "", "[", "a b"):
        answer = site.get("/saes.json", headers={"host": host})
        assert (answer.status_code, answer.json()["code"]) == (421, "host_unknown")
    assert "SAESCOPE_ALLOWED_HOSTS" in site.get("/", headers={"host": "evil.example"}).text
    for host in ("localhost:8000", "127.0.0.1", "[::1]:8000", "LOCALHOST", "testserver"):
        assert site.get("/saes.json", headers={"host": host}).status_code == 200


def test_the_names_a_server_answers_to():
    assert allowed_names(Settings(host="0.0.0.0")) is None
    assert allowed_names(Settings(host="0.0.0.0", allowed_hosts="sae.lab, Other.lab")) >= {"sae.lab", "other.lab"}
    assert allowed_names(Settings()) == {"localhost", "127.0.0.1", "::1"}
    assert "127.0.0.2" in allowed_names(Settings(host="127.0.0.2"))
    assert "localhost" in allowed_names(Settings(host="localhost"))


def test_options_become_a_command_line_again():
    command = {"sae": ["a", "b"], "tokens": 5, "ignore_unknown": True, "pack": False, "k": None, "hook": "-x"}
    assert commands.options(command) == ["--sae=a", "--sae=b", "--tokens=5", "--ignore-unknown", "--hook=-x"]
    assert jobs.argv({}, 7)[1:] == ["-m", "app.cli", "harvest", "--run=7"]


def test_the_harvest_has_the_servers_settings(own):
    given = jobs.environment(own.model_copy(update={"batch_tokens": 123}))
    assert given["SAESCOPE_BATCH_TOKENS"] == "123"
    assert given["SAESCOPE_DATABASE_URL"] == own.database_url
    assert Settings.model_fields.keys() >= {name.removeprefix("SAESCOPE_").lower() for name in given if "_HOME" in name}


def test_the_command_line_lists_and_stops_runs(own, engine, monkeypatch, capsys):
    def command(*arguments):
        monkeypatch.setattr("sys.argv", ["saescope", "harvests", *arguments])
        cli.main()
        return capsys.readouterr().out

    monkeypatch.setenv("SAESCOPE_HOME", str(own.home))
    monkeypatch.setenv("SAESCOPE_DATABASE_URL", own.database_url)
    monkeypatch.setenv("COLUMNS", "80")
    assert command() == "There has been no harvest yet.\n"
    metrics = {"quick": {"fvu": 0.125, "l0": 8.5}}
    started = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
    add(engine, state="done", metrics=metrics, tokens=1000, started=started, command={"corpus": "pkg:brown"})
    run = add(engine, tokens=250, total=1000, tokens_per_second=1234.5, started=started, beat=func.now())
    table = command().splitlines()
    assert table[0].split() == ["run", "SAE", "corpus", "state", "tokens", "tok/s", "FVU", "L0", "started"]
    assert table[1].split() == [str(run), "quick", "running", "25%", "1,234", "2026-01-02", "03:04"]
    assert table[2].split() == f"{run - 1} quick pkg:brown done 1,000 0.125 8.5 2026-01-02 03:04".split()
    only = command("--limit", "1").splitlines()
    assert (len(only), only[1].split()) == (3, table[1].split())
    assert only[2] == "These are the newest 1; --limit N shows more."
    assert [one["id"] for one in json.loads(command("--json"))["items"]] == [run, run - 1]
    gone = [add(engine, state="failed") for _ in range(2)]
    with pytest.raises(SystemExit):
        command("--forget", str(gone[0]), "--forget", str(run))
    assert f"Run {run} is running; stop it first." in capsys.readouterr().err
    assert stored(engine, gone[0])
    asked = command("--forget", str(gone[0]), "--forget", str(gone[1]))
    assert asked == f"Runs {gone[0]}, {gone[1]} taken off the list; what was harvested stays.\n"
    assert [one["id"] for one in json.loads(command("--json"))["items"]] == [run, run - 1]
    assert command("--stop", str(run)) == f"Run {run} stops after the batch at hand.\n"
    assert stored(engine, run).state == "stopping"
    with pytest.raises(SystemExit):
        command("--stop", str(run - 1))
    assert f"Run {run - 1} is done; there is nothing to stop." in capsys.readouterr().err


def test_the_table_of_runs_fits_the_terminal_and_breaks_no_word(own, engine, monkeypatch, capsys):
    slugs = ["smollm2-135m-l9-topk-4096", "smollm2-135m-l12-topk-4096"]
    path = "text:/home/someone/a/very/long/path/to/a/folder/of/texts/that/goes/on/and/on"
    add(
        engine, slugs=slugs, state="done", tokens=123_456_789, tokens_per_second=12_345.6, command={"corpus": path},
        metrics={slug: {"fvu": 0.123 + n, "l0": 32.5} for n, slug in enumerate(slugs)}, revisions=["a" * 10, "b" * 10],
        facts={"skipped": {"count": 2, "named": []}}, message=f"No text at {path}, which is not there any more.",
    )  # fmt: skip
    monkeypatch.setenv("SAESCOPE_HOME", str(own.home))
    monkeypatch.setenv("SAESCOPE_DATABASE_URL", own.database_url)
    monkeypatch.setattr("sys.argv", ["saescope", "harvests"])
    shown = {}
    for width in (70, 80, 200):
        monkeypatch.setenv("COLUMNS", str(width))
        cli.main()
        shown[width] = capsys.readouterr().out.splitlines()
        assert max(map(len, shown[width])) <= width
    head, first, second, *said = shown[80]
    assert head.split() == ["run", "SAE", "corpus", "state", "tokens", "FVU", "started"]
    assert (first.split()[1][:7], first.split()[1][-4:], first.split()[2][:5]) == ("smollm2", "4096", "text:")
    assert (first.split()[4:6], second.split()[1:]) == (["123M", "0.123"], ["1.12"])
    assert " ".join(" ".join(said).split()).endswith(
        f"2 documents were skipped. {slugs[0]}@aaaaaaaaaa was removed. {slugs[1]}@bbbbbbbbbb was removed."
    )
    assert "which is not there any" in " ".join(" ".join(said).split())
    assert "text:/home/someone/a…" in shown[200][1]
    assert shown[200][1].endswith("aaaaaaaaaa (removed)")


def test_a_runs_page_names_metrics_as_the_saes_page_does_and_says_what_was_skipped(site, engine, saved):
    saved("quick", "0123456789")
    metrics = {
        "ce_sae": 3.0, "ce_zero": 9.0, "tokens": 2921, "kl_recovered": 0.93, "norm_ratio": 0.95, "fvu": 0.1784,
        "recovery_tokens": 1512, "cosine": 0.957, "ce_recovered": 0.96, "l0": 32.0, "ce_original": 2.0,
        "explained_variance": 0.8216,
    }  # fmt: skip
    common = {"slugs": ["quick", "other"], "state": "done", "revisions": ["0123456789", "c"]}
    facts = {"skipped": {"count": 21, "named": [["a.txt", "not UTF-8"]]}}
    run = add(engine, metrics={"quick": metrics, "other": {"fvu": 0.5, "l0": None, "tokens": 7}}, facts=facts, **common)
    told = site.get(f"/harvests/{run}.json").json()
    assert [m["name"] for m in told["saes"][0]["measured"]] == list(METRICS.values())
    page = site.get(f"/harvests/{run}").text
    shown = re.findall(r"<dt>([^<]*)</dt><dd>([^<]*)</dd>", page[page.index("Revision") :])
    assert shown == [
        ("FVU", "0.178"), ("Explained variance", "0.822"), ("L0", "32"), ("Cosine", "0.957"), ("Norm ratio", "0.95"),
        ("CE recovered", "0.96"), ("KL recovered", "0.93"), ("FVU", "0.5"),
        ("L0", "not defined"),
    ]  # fmt: skip
    assert (
        "Measured on 2,921 tokens, those of every eighth sequence of the harvest; CE and KL recovered on 1,512" in page
    )
    assert "Measured on 7 tokens, those of every eighth sequence of the harvest." in page
    assert "21 documents skipped" in page
    assert "<li>a.txt (not UTF-8)</li>" in page
    rows = site.get("/harvests").text
    assert '<span class="muted">quick</span> 0.178' in rows
    assert '<span class="muted">other</span> 0.5' in rows
    assert "21 documents skipped" in rows


def test_a_real_harvest_is_done_from_the_form_and_seen_on_its_page(own, engine, tiny_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(CHILD.parents[1]))
    with TestClient(create_app(own)) as client:
        run = start(client, filled(tiny_folder, tmp_path, context="32", pack="on"))
        for _ in range(120):
            told = client.get(f"/harvests/{run}.json").json()
            if told["state"] in ENDED:
                break
            time.sleep(0.5)
        assert (told["state"], told["message"]) == ("done", None)
        assert told["tokens"] == told["total"] > 0
        assert client.get(told["saes"][0]["url"]).status_code == 200
        assert "(packed)" in client.get(told["saes"][0]["url"]).text
        assert told["saes"][0]["fvu"] > 0
        page = client.get("/harvests").text
        assert f'<option value="{tiny_folder.name}" selected>' in page
        assert told["saes"][0]["revision"] in client.get(f"/harvests/{run}").text
    with TestClient(create_app(own.model_copy(update={"worker": False}))) as client:
        form = filled(tiny_folder, tmp_path, sae_path=f"quick@{told['saes'][0]['revision']}", model_path="")
        command = client.get(f"/harvests/{start(client, form)}.json").json()["command"]
        assert (command["slug"], command["model"]) == ("quick", str(tiny_folder))
        assert Path(command["sae"]).parent == own.home / "saes"
