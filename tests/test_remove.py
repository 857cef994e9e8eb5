"""SAEs and revisions are removed whole: rows, corpora that nobody needs, files in the home."""

import threading
from dataclasses import replace

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import func, insert, select, text

from app.harvest.job import Job, run_job
from app.main import create_app
from app.store import tables as t
from app.store.engine import database_url, sync_engine
from app.store.migrate import migrate
from app.store.replace import remove
from tests.conftest import database_beside, public_folder
from tests.test_replace import partitions


@pytest.fixture(scope="module")
def own(settings):
    return database_beside(settings, "removing").model_copy(update={"home": public_folder()})


@pytest.fixture
def database(own):
    engine = sync_engine(database_url(own))
    migrate(engine)
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM run"))
        connection.execute(text("DELETE FROM sae"))
    yield engine
    engine.dispose()


@pytest.fixture
def make(harvested, database, own, tiny, sequences):
    """Harvests the SAE's weights under a name, over all of the text or its first sequences; returns the revision."""
    _, parameters, folder = harvested

    def harvest(slug, seed=0, first=None):
        job = Job(slug, folder, "test text", 64, replace(parameters, seed=seed))
        corpus = type(sequences)(sequences[:first])
        return run_job(job, tiny, corpus, database, own.home)

    return harvest


def count(database, table):
    with database.connect() as connection:
        return connection.execute(select(func.count()).select_from(table)).scalar_one()


def folders(own, slug):
    return len(list((own.home / "saes").glob(f"{slug}-*")))


def test_a_revision_goes_and_the_last_one_takes_the_files_and_the_corpus(database, make, own, command):
    old, new = make("mine"), make("mine", seed=1)
    other = make("other", first=2)
    with database.begin() as connection:
        values = {"kind": "harvest", "slugs": ["mine"], "command": {}, "state": "done", "revisions": [old]}
        run = connection.execute(insert(t.run).values(**values).returning(t.run.c.id)).scalar_one()
    before = len(partitions(database))
    out, err, status = command("remove", f"mine@{old}", "--yes")
    assert (out, status) == (f"Removed mine@{old}.\n", 0)
    assert f"This removes, for good: mine@{old} (test text, " in err
    assert len(partitions(database)) == before - 4
    assert (count(database, t.corpus), folders(own, "mine")) == (2, 1)
    with TestClient(create_app(own)) as client:
        assert client.get(f"/saes/mine@{old}.json").status_code == 404
        assert client.get("/saes/mine/features/3.json").json()["revision"] == new
        told = client.get(f"/harvests/{run}.json").json()["saes"][0]
        assert (told["url"], told["gone"]) == (None, "removed")
    assert command("remove", "mine", "--yes")[0] == f"Removed mine@{new}.\n"
    assert len(partitions(database)) == before - 8
    assert (count(database, t.corpus), folders(own, "mine"), folders(own, "other")) == (1, 0, 1)
    assert count(database, t.sequence) == 2
    with database.connect() as connection:
        assert connection.execute(select(t.sae.c.revision)).scalars().all() == [other]


def test_readers_see_all_of_it_or_none_of_it(database, make, own):
    make("seen")
    faults, statuses, done = [], set(), threading.Event()
    with TestClient(create_app(own)) as client:

        def read():
            while not done.is_set() or 404 not in statuses:
                for path in ("/saes/seen/features/7.json", "/saes/seen.json", "/saes/seen/features.json"):
                    answer = client.get(path)
                    statuses.add(answer.status_code)
                    if answer.status_code not in (200, 404):
                        faults.append((path, answer.text))
                    elif answer.status_code == 200 and not answer.json().get("examples", [1]):
                        faults.append((path, "no examples"))

        reader = threading.Thread(target=read)
        reader.start()
        while 200 not in statuses:
            done.wait(0.01)
        remove(database, own.home, "seen")
        done.set()
        reader.join(300)
    assert faults == []
    assert statuses == {200, 404}


@pytest.mark.parametrize("state", ["running", "queued", "stopping"])
def test_it_is_refused_while_a_run_of_it_or_one_that_reads_its_files_is_under_way(database, make, command, state, own):
    revision = make("busy")
    with database.connect() as connection:
        path = own.home / connection.execute(select(t.sae.c.path)).scalar_one()
    for slugs, folder in ((["a", "busy"], "elsewhere"), (["copy"], str(path))):
        for sae in (folder, [folder]):
            with database.begin() as connection:
                values = {"kind": "harvest", "slugs": slugs, "command": {"sae": sae}, "state": state}
                values["beat"] = None if state == "queued" else func.now()
                run = connection.execute(insert(t.run).values(**values).returning(t.run.c.id)).scalar_one()
            _, err, status = command("remove", "busy", "--yes")
            assert status == 1
            assert err.splitlines()[-1] == (
                f"saescope: Run {run} works on busy; wait for it, or stop it with 'saescope harvests --stop {run}'."
            )
            with database.begin() as connection:
                connection.execute(text("DELETE FROM run"))
    with database.begin() as connection:  # a process that died long ago
        since = func.now() - func.make_interval(0, 0, 0, 0, 0, 5)
        values = {"kind": "harvest", "slugs": ["busy"], "command": {}, "state": "running", "beat": since}
        connection.execute(insert(t.run).values(**values))
    assert command("remove", "busy", "--yes")[0] == f"Removed busy@{revision}.\n"


def test_it_asks_first_and_refuses_where_it_cannot_ask(database, make, command, monkeypatch):
    revision = make("kept")
    _, err, status = command("remove", "kept")
    assert status == 1
    assert err.splitlines()[-1] == "saescope: Removing asks first, and there is no terminal to ask on; say --yes."
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    asked = []
    monkeypatch.setattr("typer.confirm", lambda question, err: asked.append(question))
    assert command("remove", "kept")[1].endswith("Nothing was removed.\n")
    assert asked == ["Remove it?"]
    assert count(database, t.sae) == 1
    monkeypatch.setattr("typer.confirm", lambda question, err: True)
    assert command("remove", "kept")[0] == f"Removed kept@{revision}.\n"
    for name, says in (("kept", "no harvested SAE 'kept' here; there are: none yet"),):
        assert says in command("remove", name, "--yes")[1]
    make("kept")
    assert f"kept has no revision '0' here; there are: {revision}." in command("remove", "kept@0", "--yes")[1]


def test_files_outside_the_home_are_nobodys_to_remove(database, make, own, tmp_path):
    make("foreign")
    (tmp_path / "precious").mkdir()
    for path in (str(tmp_path / "precious"), "imports/foreign", "saes"):
        (own.home / path).mkdir(parents=True, exist_ok=True)
        make("foreign")
        with database.begin() as connection:
            connection.execute(t.sae.update().values(path=path))
        remove(database, own.home, "foreign")
        assert (own.home / path).is_dir()
