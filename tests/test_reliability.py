"""What happens when something else fails: Postgres killed under load, a full disk. (Engines that are killed:
test_infer.py; commands that are killed: test_crash.py.)"""

import asyncio
import os
import pwd
import signal
import subprocess
import threading
import time
from contextlib import contextmanager

import httpx2
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from app.harvest.job import Job, run_job
from app.main import create_app
from app.store.engine import async_engine, database_url, sync_engine
from app.store.migrate import migrate
from tests.conftest import SLUG, database_beside, public_folder
from tests.postgres import postgres
from tests.services import free_port, http, started
from tests.serving import serving

PAGES = (f"/saes/{SLUG}/features/3", f"/saes/{SLUG}", "/index.json", f"/saes/{SLUG}/features.json?sort=density")
ASK = {"text": "Paris", "sae": SLUG}


class Readers:
    """Clients that read page after page until they are told to stop; ``answers`` are (status, JSON or text)."""

    def __init__(self, url, count):
        self.answers = []
        self._url, self._stop = url, threading.Event()
        self._threads = [threading.Thread(target=self._read, args=(n,)) for n in range(count)]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _read(self, number):
        with httpx2.Client(base_url=self._url, trust_env=False, timeout=300) as client:
            while not self._stop.is_set():
                number += 1
                answer = client.get(PAGES[number % len(PAGES)])
                self.answers.append((answer.status_code, answer.text))

    def until(self, what):
        """What has been answered from now on until ``what`` is true of it."""
        first = len(self.answers)
        end = time.monotonic() + 600
        while time.monotonic() < end:
            if what(self.answers[first:]):
                return self.answers[first:]
            time.sleep(0.05)
        raise AssertionError([status for status, _ in self.answers[first:]][-50:])


def test_postgres_killed_under_load_is_503_until_it_is_back_and_no_restart_is_needed(
    harvested, settings, tiny, sequences
):
    with postgres() as server:
        own = settings.model_copy(update={"database_url": server.url, "home": public_folder()})
        engine = sync_engine(database_url(own))
        migrate(engine)
        run_job(Job(SLUG, harvested[2], "test text", 64, harvested[1]), tiny, sequences, engine, own.home)
        engine.dispose()
        own = own.model_copy(update={"allowed_hosts": "", "worker": True})  # a worker that loses its queue as well
        with serving(create_app(own)) as url, Readers(url, 6) as readers:
            assert {status for status, _ in readers.until(lambda told: len(told) >= 20)} == {200}
            server.kill()
            refused = readers.until(lambda told: sum(status == 503 for status, _ in told) >= 20)
            assert {status for status, _ in refused} <= {200, 503}
            assert http.get(f"{url}/healthz").status_code == 200
            assert http.get(f"{url}/readyz", timeout=300).status_code == 503
            told = [body for status, body in refused if status == 503]
            assert all("The database does not answer" in body for body in told)
            assert not any("Traceback" in body or "psycopg" in body for body in told)
            server.start()
            # Every connection of the pool is used again, so each dead one would show.
            back = readers.until(lambda told: sum(status == 200 for status, _ in told[-100:]) == 100)
            assert {status for status, _ in back} <= {200, 503}
            assert http.get(f"{url}/readyz", timeout=300).status_code == 200


def test_the_embedded_server_is_started_again_when_it_was_killed(tmp_path):
    home = public_folder()
    given = {"port": free_port(), "log": tmp_path / "log", "worker": "false"}
    with started("serve", "--home", home, **given) as site:
        pid = home / "postgres" / "postmaster.pid"
        before = int(pid.read_text().split()[0])
        os.kill(before, signal.SIGKILL)
        end = time.monotonic() + 600
        while time.monotonic() < end:
            told = http.get(f"{site.url}/saes.json", timeout=300).status_code
            assert told in (200, 503)
            if told == 200 and pid.exists() and int(pid.read_text().split()[0]) != before:
                break
            time.sleep(0.2)
        assert told == 200
    assert "it was started again" in site.log.read_text()
    assert not pid.exists()  # and it ends with the site, as ever


def test_connections_that_died_between_two_requests_are_noticed_by_nobody(settings):
    """All of the pool's connections are ended while they are idle."""
    own = database_beside(settings, "ended")
    engine = sync_engine(database_url(own))
    migrate(engine)
    with TestClient(create_app(own)) as client:
        for _ in range(3):
            assert client.get("/saes.json").status_code == 200
            with engine.connect() as connection:
                ended = text("SELECT count(pg_terminate_backend(pid, 10000)) FROM pg_stat_activity "
                             "WHERE datname = current_database() AND pid <> pg_backend_pid()")  # fmt: skip
                assert connection.execute(ended).scalar_one() >= 1  # and waits until they are gone
    engine.dispose()


def test_using_a_connection_again_asks_the_database_nothing(settings):
    """The server itself says when it was last asked something."""

    async def use():
        database = async_engine(database_url(settings))
        async with database.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
            pid = (await connection.execute(text("SELECT pg_backend_pid()"))).scalar_one()
        before = await last_asked(pid)
        for _ in range(5):
            async with database.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
                driver = (await connection.get_raw_connection()).driver_connection
                assert driver.info.backend_pid == pid
        assert await last_asked(pid) == before
        await database.dispose()

    async def last_asked(pid):
        other = async_engine(database_url(settings))
        async with other.connect() as connection:
            query = text("SELECT query_start, query FROM pg_stat_activity WHERE pid = :pid")
            found = (await connection.execute(query, {"pid": pid})).one()
        await other.dispose()
        return tuple(found)

    asyncio.run(use())


@contextmanager
def small_disk(megabytes):
    """A file system of its own, which the database may write to."""
    folder = public_folder() / "small"
    folder.mkdir()
    mounting = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mounting, capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        found = pwd.getpwnam("pgserver")
        os.chown(folder, found.pw_uid, found.pw_gid)
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(engine):
    with engine.connect() as connection:
        for _ in range(10_000):
            connection.execute(text("INSERT INTO filler VALUES (repeat('x', 8000))"))


def test_on_a_full_disk_reads_go_on_and_writes_say_so(harvested, settings, tiny, sequences):
    own = database_beside(settings, "full_disk")
    engine = sync_engine(database_url(own))
    migrate(engine)
    run_job(Job(SLUG, harvested[2], "test text", 64, harvested[1]), tiny, sequences, engine, own.home)
    alone = engine.execution_options(isolation_level="AUTOCOMMIT")
    with small_disk(8) as folder:
        with alone.connect() as connection:
            connection.execute(text(f"CREATE TABLESPACE small_disk LOCATION '{folder}'"))
            connection.execute(text("ALTER TABLE inspection SET TABLESPACE small_disk"))
            connection.execute(text("ALTER TABLE run SET TABLESPACE small_disk"))
            connection.execute(text("CREATE TABLE filler (content text STORAGE EXTERNAL) TABLESPACE small_disk"))
        with TestClient(create_app(own)) as client:
            kept = client.post("/api/inspect", json={**ASK, "keep": True}).json()["run"]
            with pytest.raises(OperationalError, match="No space left"):
                fill(alone)
            refused = None
            for number in range(200):  # the table has a few free pages left
                told = client.post("/api/inspect", json={"text": f"Paris {number}", "sae": SLUG, "keep": True})
                if told.status_code != 200:
                    refused = told
                    break
            assert refused is not None
            assert (refused.status_code, refused.json()["code"]) == (507, "disk_full")
            assert refused.json()["message"] == "The database's disk is full; free some space and try again."
            for page in (*PAGES, f"/inspect/{kept}.json"):
                assert client.get(page).status_code == 200
            assert client.post("/api/inspect", json={**ASK, "text": "read, not kept"}).status_code == 200
            with alone.connect() as connection:
                connection.execute(text("DROP TABLE filler"))
            assert client.post("/api/inspect", json={**ASK, "text": "there is room", "keep": True}).status_code == 200
        with alone.connect() as connection:
            for table in ("inspection", "run"):
                connection.execute(text(f"ALTER TABLE {table} SET TABLESPACE pg_default"))
            connection.execute(text("DROP TABLESPACE small_disk"))
    engine.dispose()
