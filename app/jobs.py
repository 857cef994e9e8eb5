"""Jobs started from the site (harvests, explanations, maps, embeddings): a queue in Postgres, a worker inside the
server, and a process for each job.

The process is the same command a person would type, so torch never shares the server's memory. The table ``run`` is
what counts; procrastinate's job only says who works on a run, and is put back for a run that waits without one.
One job runs at a time; what a feature's page asks for has a queue of its own, so that it waits for no harvest.
"""

import asyncio
import contextlib
import logging
import os
import signal
import tempfile
from asyncio.subprocess import DEVNULL
from collections.abc import Awaitable, Callable
from typing import IO, Any

import procrastinate
import psycopg
from procrastinate.exceptions import AlreadyEnqueued, ConnectorException
from procrastinate.jobs import Status
from sqlalchemy import ARRAY, URL, Text, cast, func, select, text, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.commands import argv, environment
from app.errors import HarvestRunning
from app.settings import Settings
from app.store import run_queries as q
from app.store import tables as t
from app.store.runs import OPEN, Kind

POLL_SECONDS = 0.5
SWEEP_SECONDS = 15.0
GRACE_SECONDS = 30.0
_PATH = "SET{} search_path TO procrastinate, public"
_FAILURES = (SQLAlchemyError, psycopg.Error, ConnectorException, OSError)
TASK, QUEUE, ASKED = "run", "jobs", "asked"
THINGS = {"harvest": "A harvest", "explain": "Explaining", "map": "A map", "embed": "Embedding"}
Bound = Callable[[AsyncConnection], Awaitable[None]]
_log = logging.getLogger(__name__)


class Jobs:
    """The queues of jobs, and this server's workers on them."""

    def __init__(self, settings: Settings, url: URL, database: AsyncEngine) -> None:
        self._settings = settings
        self._database = database
        self._connector = procrastinate.PsycopgConnector(
            conninfo=url.set(drivername="postgresql").render_as_string(hide_password=False),
            min_size=1, max_size=6, configure=_own_schema,
        )  # fmt: skip
        self._queue = procrastinate.App(connector=self._connector)
        self._task = self._queue.task(name=TASK, queue=QUEUE)(self._run)
        self._closing = asyncio.Event()
        self._mine: set[int] = set()
        self._work: list[asyncio.Task[None]] = []

    async def start(
        self, slugs: list[str], command: dict[str, Any], *, kind: Kind = "harvest", latent: int | None = None,
        bound: Bound | None = None,
    ) -> int:  # fmt: skip
        """Queue a job; returns its run. ``latent``: whose page asks for it. ``bound`` may refuse it, while nobody else
        can start one.

        Raises:
            HarvestRunning: the same kind of job waits in the queue already for one of these SAEs (or for the latent).
            And what ``bound`` raises.
        """
        async with self._database.begin() as connection:
            await _refuse_twice(connection, kind, slugs, latent)
            if bound is not None:
                await bound(connection)
            run_id = await q.add_run(connection, slugs, command, kind=kind, latent=latent)
            await self._enqueue(connection, run_id, kind, slugs, latent)
        return run_id

    async def resume(self, run_id: int) -> int:
        """Queue what ``run_id`` ran once more; returns the new run.

        Raises:
            UnknownRun, RunEnded, HarvestRunning.
        """
        async with self._database.begin() as connection:
            new = await q.resume(connection, run_id)
            run = await q.get_run(connection, new)
            await _refuse_twice(connection, run.kind, run.slugs, run.latent, but=new)
            await self._enqueue(connection, new, run.kind, run.slugs, run.latent)
        return new

    async def open(self) -> None:
        """Begin to work on the queue."""
        await self._queue.open_async()
        work = self._serve(QUEUE), self._serve(ASKED), self._sweep()
        self._work = [asyncio.create_task(one) for one in work]

    def interrupt(self) -> None:
        """Interrupt what runs here, and begin nothing else; ``close`` waits for its end."""
        self._closing.set()

    async def close(self) -> None:
        """Stop working. What runs here is interrupted, which leaves a checkpoint, and queued again."""
        if not self._work:
            return
        self._closing.set()
        for task in self._work:
            task.cancel()
        await asyncio.gather(*self._work, return_exceptions=True)
        await self._queue.close_async()

    async def _enqueue(
        self, connection: AsyncConnection, run_id: int, kind: str, slugs: list[str], latent: int | None
    ) -> None:
        """In the caller's transaction, so that no run is without a job, nor a job without a run."""
        await connection.exec_driver_sql(_PATH.format(" LOCAL"))
        raw = (await connection.get_raw_connection()).driver_connection
        queue = QUEUE if latent is None else ASKED
        lock = f"{kind if latent is None else ASKED} {' '.join(sorted(slugs))}"
        job = self._task.configure(queue=queue, lock=lock, queueing_lock=f"run {run_id}", connection=raw)
        await job.defer_async(run_id=run_id)

    async def _serve(self, queue: str) -> None:
        while not self._closing.is_set():
            try:
                # It waits for the job that runs before it ends, so a database that was away for a moment ends
                # none; a server that stops says so by self._closing.
                await self._queue.run_worker_async(
                    queues=[queue], concurrency=1, install_signal_handlers=False, delete_jobs="always"
                )
            except _FAILURES as error:
                _log.warning("The worker lost the database and starts again: %s", error)
            await asyncio.sleep(POLL_SECONDS * 4)

    async def _sweep(self) -> None:
        """Give a job to runs that wait without one: their server was stopped, or killed."""
        while True:
            try:
                await self._tidy()
            except _FAILURES as error:
                _log.warning("The queue was not looked through: %s", error)
            await asyncio.sleep(SWEEP_SECONDS)

    async def _tidy(self) -> None:
        manager = self._queue.job_manager
        for job in await manager.get_stalled_jobs(task_name=TASK):
            if job.task_kwargs.get("run_id") not in self._mine:
                await manager.finish_job(job, Status.FAILED, delete_job=True)
        orphans = text(
            "SELECT id, kind, slugs, latent FROM run WHERE state = 'queued' AND NOT EXISTS (SELECT FROM "
            "procrastinate.procrastinate_jobs job WHERE job.status IN ('todo', 'doing') "
            f"AND job.task_name = '{TASK}' AND (job.args ->> 'run_id')::bigint = run.id) ORDER BY id"
        )
        async with self._database.connect() as connection:
            waiting = (await connection.execute(orphans)).all()
        for run_id, kind, slugs, latent in waiting:
            with contextlib.suppress(AlreadyEnqueued):  # by another server, in this moment
                async with self._database.begin() as connection:
                    await self._enqueue(connection, run_id, kind, slugs, latent)

    async def _run(self, run_id: int) -> None:
        """The job: run the command, pass on a wish to stop, and write down how it ended."""
        taken = None if self._closing.is_set() else await self._take(run_id)
        if taken is None:
            return
        kind, command = taken
        self._mine.add(run_id)
        try:
            # A pipe would break, and the job with it, if this server was killed.
            with tempfile.TemporaryFile() as said:
                process = await asyncio.create_subprocess_exec(
                    *argv(command, run_id, kind), env=environment(self._settings), stdin=DEVNULL, stdout=DEVNULL,
                    stderr=said, start_new_session=True,  # Ctrl-C in the server's terminal is passed on by close()
                )  # fmt: skip
                await self._watch(process, run_id)
                await self._ended(run_id, process.returncode or 0, _last_line(said))
        finally:
            self._mine.discard(run_id)

    async def _take(self, run_id: int) -> tuple[str, dict[str, Any]] | None:
        r = t.run.c
        values = {"state": "running", "started": func.now(), "beat": func.now(), "message": None}
        query = update(t.run).where(r.id == run_id, r.state == "queued").values(**values).returning(r.kind, r.command)
        async with self._database.begin() as connection:
            row = (await connection.execute(query)).first()
        return None if row is None else (row.kind, row.command)

    async def _watch(self, process: asyncio.subprocess.Process, run_id: int) -> None:
        """Until the process has ended. It tells its own progress; that it lives is told here as well, since it loads
        for a while before it can."""
        loop = asyncio.get_running_loop()
        ending = asyncio.create_task(process.wait())
        interrupted: float | None = None
        while not ending.done():
            await asyncio.wait({ending}, timeout=POLL_SECONDS)
            if ending.done():
                break
            if interrupted is None:
                if self._closing.is_set() or await self._beat(run_id) == "stopping":
                    interrupted = loop.time()
                    process.send_signal(signal.SIGINT)
            elif self._closing.is_set() and loop.time() - interrupted > GRACE_SECONDS:
                process.kill()

    async def _beat(self, run_id: int) -> str | None:
        r = t.run.c
        query = update(t.run).where(r.id == run_id).values(beat=func.now()).returning(r.state)
        try:
            async with self._database.begin() as connection:
                state: str | None = (await connection.execute(query)).scalar()
                return state
        except _FAILURES:
            return None

    async def _ended(self, run_id: int, status: int, last: str) -> None:
        """What the process left unsaid. What a closing server interrupted waits in the queue again."""
        r = t.run.c
        async with self._database.begin() as connection:
            query = select(r.state, r.message).where(r.id == run_id).with_for_update()
            run = (await connection.execute(query)).first()
            if run is None:  # it was lost for a while, and somebody took it off the list
                return
            values: dict[str, Any] = {"state": run.state, "message": run.message}
            if status == 0:
                values["state"] = "done"
            elif self._closing.is_set() and run.state in ("running", "stopped"):
                values = {"state": "queued", "message": "The server was stopped; it carries on with the next one."}
            elif run.state == "stopping" or status in (130, -signal.SIGINT):
                values["state"] = "stopped"
            elif run.state in OPEN:
                values["state"] = "failed"
            if values["state"] == "failed" and not run.message:
                values["message"] = (
                    _killed(status) or last or f"The process ended with status {status} and said nothing."
                )
            finished = None if values["state"] == "queued" else func.coalesce(r.finished, func.now())
            await connection.execute(update(t.run).where(r.id == run_id).values(finished=finished, **values))


async def _own_schema(connection: psycopg.AsyncConnection[Any]) -> None:
    await connection.execute(_PATH.format(""))
    await connection.commit()


async def _refuse_twice(
    connection: AsyncConnection, kind: str, slugs: list[str], latent: int | None, *, but: int = 0
) -> None:
    # One start at a time: of two that look at once, neither would see the other.
    await connection.execute(select(func.pg_advisory_xact_lock(func.hashtext("saescope: start a harvest"))))
    r = t.run.c
    these = r.kind == kind, r.latent.is_not_distinct_from(latent), r.slugs.overlap(cast(slugs, ARRAY(Text)))
    # Of a page's wishes one that runs is enough; of other jobs the next may wait for the one that runs.
    open_ = r.state == "queued" if latent is None else r.state.in_(OPEN)
    waiting = (await connection.execute(select(r.id).where(open_, *these, r.id != but).limit(1))).scalar()
    if waiting is None:
        return
    what = THINGS[kind] if latent is None else f"An explanation of feature {latent}"
    where = "waits in the queue already" if latent is None else "is under way already"
    raise HarvestRunning(
        f"{what} of {', '.join(slugs) or 'all SAEs'} {where}, as run {waiting}; stop that one first.", run=waiting
    )


def _killed(status: int) -> str | None:
    """Of a process that a signal ended; what it printed last says nothing about that."""
    if status >= 0:
        return None
    memory = "; memory may have run out" if status == -signal.SIGKILL else ""
    return f"Its process was ended by {signal.Signals(-status).name}{memory}."


def _last_line(said: IO[bytes]) -> str:
    """The last line that says something, without the program's name."""
    said.seek(max(said.seek(0, os.SEEK_END) - 4000, 0))
    lines = said.read().decode(errors="replace").replace("\0", "").splitlines()
    return next((line.strip() for line in reversed(lines) if line.strip()), "").removeprefix("saescope: ")
