"""Runs as the site and the command line read and steer them.

A run that says ``running`` or ``stopping`` and has not been heard of for a minute is ``lost``: its process died
without a word. That is seen when it is read, and never stored.
"""

from collections.abc import Set
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    FromClause,
    Select,
    any_,
    case,
    delete,
    exists,
    func,
    insert,
    literal,
    or_,
    select,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from app.errors import BadRequest, RunEnded, RunOpen, UnknownRun
from app.store import tables as t
from app.store.runs import OPEN

LOST_SECONDS = 60
LARGEST = 2**63 - 1
RESUMABLE = ("stopped", "failed", "lost")
THING = {"harvest": "harvest", "explain": "command", "map": "command", "embed": "command"}


@dataclass(frozen=True)
class RunRecord:
    """Every column of a run; ``state`` may also be ``lost``. ``age`` is seconds since the run was last heard of."""

    id: int
    kind: str
    slugs: list[str]
    command: dict[str, Any]
    state: str
    tokens: int
    total: int | None
    resumed: int
    seconds: float
    tokens_per_second: float
    message: str | None
    revisions: list[str]
    metrics: dict[str, Any] | None
    created: datetime
    started: datetime | None
    beat: datetime | None
    finished: datetime | None
    facts: dict[str, Any]  # app.store.runs tells which
    latent: int | None  # whose page asked for it
    age: float | None
    here: list[str]  # those of its revisions, as ``slug@revision``, that there are
    followed: bool  # a later run of the same harvest has work of it in hand, or has done it

    @property
    def resumable(self) -> bool:
        """Whether resuming it would carry on from what it has done."""
        return self.state in RESUMABLE and bool(self.facts.get("kept")) and bool(self.command) and not self.followed

    @property
    def open(self) -> bool:
        """Whether it may still change by itself."""
        return self.state in ("queued", "running", "stopping")


def _silent(run: FromClause) -> ColumnElement[bool]:
    since = func.now() - func.make_interval(0, 0, 0, 0, 0, 0, LOST_SECONDS)
    return run.c.state.in_(("running", "stopping")) & (run.c.beat < since)


def _heard(run: FromClause) -> ColumnElement[bool]:
    return or_(run.c.beat.is_(None), ~_silent(run))


def _followed() -> ColumnElement[bool]:
    """Of the same command, or of the same checkpoint, which tells one harvest asked for in two ways."""
    r, later = t.run.c, t.run.alias("later")
    same = ((later.c.kind == r.kind) & (later.c.command == r.command)) | (
        later.c.facts["checkpoint"].astext == r.facts["checkpoint"].astext
    )
    works = (later.c.state == "done") | (later.c.state.in_(OPEN) & _heard(later))
    works |= later.c.facts["kept"].as_integer() > 0
    return exists(select(later.c.id).where(later.c.id > r.id, same, works).correlate(t.run))


def _here() -> ColumnElement[Any]:
    s, r = t.sae.c, t.run.c
    these = select(s.slug + "@" + s.revision).where(s.slug == any_(r.slugs), s.revision == any_(r.revisions))
    return func.array(these.correlate(t.run).scalar_subquery())


def _runs() -> Select[Any]:
    r = t.run.c
    state = case((_silent(t.run), literal("lost")), else_=r.state).label("state")
    age = func.extract("epoch", func.now() - r.beat).label("age")
    columns = (state if column.name == "state" else column for column in r)
    return select(*columns, age, _here().label("here"), _followed().label("followed"))


def _record(row: Any) -> RunRecord:
    values = dict(row._mapping)
    return RunRecord(**{**values, "age": None if values["age"] is None else float(values["age"])})


async def list_runs(
    connection: AsyncConnection, *, cursor: str | None, limit: int
) -> tuple[list[RunRecord], str | None]:
    """One page, newest first, and the cursor of the next (None at the end).

    Raises:
        BadRequest: the cursor is none of this list.
    """
    query = _runs().order_by(t.run.c.id.desc()).limit(limit + 1)
    if cursor:
        if not (cursor.isascii() and cursor.isdigit()) or int(cursor[:20]) > LARGEST:
            raise BadRequest(f"Cursor {cursor[:40]!r} does not belong to this list; start again without a cursor.")
        query = query.where(t.run.c.id < int(cursor))
    rows = [_record(row) for row in await connection.execute(query)]
    return rows[:limit], str(rows[limit - 1].id) if len(rows) > limit else None


async def count_runs(connection: AsyncConnection) -> dict[str, int]:
    """How many there are in each state."""
    state = case((_silent(t.run), literal("lost")), else_=t.run.c.state)
    return {
        str(name): int(count) for name, count in await connection.execute(select(state, func.count()).group_by(state))
    }


async def get_run(connection: AsyncConnection, run_id: int, *, lock: bool = False) -> RunRecord:
    """One run; with ``lock``, nobody else changes it until the transaction ends."""
    row = None
    if 0 < run_id <= LARGEST:
        query = _runs().where(t.run.c.id == run_id)
        row = (await connection.execute(query.with_for_update() if lock else query)).first()
    if row is None:
        raise UnknownRun(f"There is no run {run_id} here.", run=run_id)
    return _record(row)


async def asked_of(connection: AsyncConnection, slug: str, latent: int) -> RunRecord | None:
    """The newest run that a latent's page asked for."""
    r = t.run.c
    query = _runs().where(r.latent == latent, r.slugs.contains([slug])).order_by(r.id.desc()).limit(1)
    row = (await connection.execute(query)).first()
    return None if row is None else _record(row)


def in_progress(connection: Connection, slug: str, folders: Set[str]) -> int | None:
    """A run of ``slug``, or one that reads an SAE in ``folders``, that is under way or waits."""
    query = select(t.run.c.id, t.run.c.slugs, t.run.c.command).where(t.run.c.state.in_(OPEN), _heard(t.run))
    for run, slugs, command in connection.execute(query.order_by(t.run.c.id)):
        read = command.get("sae", [])
        if slug in slugs or not folders.isdisjoint(read if isinstance(read, list) else [read]):
            return int(run)
    return None


async def add_run(
    connection: AsyncConnection, slugs: list[str], command: dict[str, Any], *, kind: str = "harvest",
    latent: int | None = None,
) -> int:  # fmt: skip
    """A new run, queued; ``latent``: whose page asked for it."""
    values = {"kind": kind, "slugs": slugs, "command": command, "state": "queued", "latent": latent}
    return int((await connection.execute(insert(t.run).values(**values).returning(t.run.c.id))).scalar_one())


async def ask_stop(connection: AsyncConnection, run_id: int) -> str:
    """Ask a run to stop; its process does so after the batch at hand. One that waits or is lost is stopped at once.
    Returns its state.

    Raises:
        UnknownRun, RunEnded.
    """
    run = await get_run(connection, run_id, lock=True)
    if not run.open and run.state != "lost":
        raise RunEnded(f"Run {run_id} is {run.state}; there is nothing to stop.", run=run_id, state=run.state)
    if run.state in ("running", "stopping"):
        values: dict[str, Any] = {"state": "stopping"}
    else:
        message = "Stopped before it began." if run.state == "queued" else "Its process had died."
        values = {"state": "stopped", "finished": func.now(), "message": message}
    await connection.execute(update(t.run).where(t.run.c.id == run_id).values(**values))
    return str(values["state"])


async def forget(connection: AsyncConnection, run_id: int) -> None:
    """Take an ended or lost run off the list; what it made stays.

    Raises:
        UnknownRun. RunOpen: it runs or waits.
    """
    run = await get_run(connection, run_id, lock=True)
    if run.open:
        raise RunOpen(f"Run {run_id} is {run.state}; stop it first.", run=run_id, state=run.state)
    if run.latent is not None and datetime.now(UTC) - run.created < timedelta(hours=1):
        told = f"Run {run_id} counts towards this hour's explanations; it can be taken off the list when that is over."
        raise RunOpen(told, run=run_id, state=run.state)
    await connection.execute(delete(t.run).where(t.run.c.id == run_id))


async def resume(connection: AsyncConnection, run_id: int) -> int:
    """Queue what ``run_id`` ran once more, as a new run, which carries on from what was kept.

    Raises:
        UnknownRun: there is none. RunEnded: it is still running, or done, or there is nothing to carry on from.
    """
    run = await get_run(connection, run_id, lock=True)
    if not run.resumable:
        told = "it had kept nothing to carry on from; start it anew"
        if run.state not in RESUMABLE:
            told = "it is done" if run.state == "done" else "stop it first"
        elif run.followed:
            told = f"a later run of the same {THING[run.kind]} carried on from it"
        raise RunEnded(f"Run {run_id} is {run.state} and cannot be resumed: {told}.", run=run_id, state=run.state)
    new = await add_run(connection, run.slugs, run.command, kind=run.kind, latent=run.latent)
    if run.state == "lost":
        values = {"state": "failed", "finished": func.now(), "message": f"Its process died; run {new} carries on."}
        await connection.execute(update(t.run).where(t.run.c.id == run_id).values(**values))
    return new
