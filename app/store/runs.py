"""A job tells the database how it is doing: what the process of a harvest, or of any other kind of job, calls.

A run's ``facts`` are, as far as they are known: ``stage``, what is done besides reading, and ``part``, how much of it
is done and of how much; ``checkpoint``, its name, and ``kept``, the tokens it holds (of other jobs 1 as soon as any
work is kept); ``notes``, sentences for the page; ``skipped``, the documents left out; ``already``, the revisions that
were saved before; and, written by whoever drops them, ``gone``: what became of its revisions.
"""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Sequence
from typing import Any, Literal

from sqlalchemy import ColumnElement, Engine, ScalarSelect, cast, func, insert, select, tuple_, update
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.exc import SQLAlchemyError

from app.errors import RunEnded, UnknownRun
from app.store import tables as t
from app.store.engine import explained

End = Literal["stopped", "failed", "done"]
Kind = Literal["harvest", "explain", "map", "embed"]
OPEN = ("queued", "running", "stopping")
BEAT_SECONDS = 2.0
ALIVE_SECONDS = 10.0


class RunLog:
    """One run's row. Between ``start`` and ``finish`` a thread keeps saying that the process lives, through phases
    that have no progress to tell, such as loading the subject and saving."""

    def __init__(self, engine: Engine, run_id: int, slugs: Sequence[str], kind: Kind = "harvest") -> None:
        self.id = run_id
        self._kind = kind
        self._slugs = list(slugs)
        self._engine = engine
        self._due = 0.0
        self._stop_asked = False
        self._progress: dict[str, Any] = {}
        self._facts: dict[str, Any] = {}
        self._ended = threading.Event()
        self._alive = threading.Thread(target=self._live, name=f"run {run_id}", daemon=True)
        self._alive.start()

    @classmethod
    def start(
        cls, engine: Engine, slugs: Sequence[str], command: dict[str, Any], run_id: int | None = None,
        kind: Kind = "harvest",
    ) -> "RunLog":  # fmt: skip
        """A new run, or ``run_id`` taken over from the queue. ``command`` holds the options that start it again, by
        their long names; paths in it are absolute, since another process reads them.

        Raises:
            UnknownRun, RunEnded: ``run_id`` names none that waits to be run.
            DatabaseUnavailable: no answer.
        """
        r = t.run.c
        now = {"started": func.now(), "beat": func.now()}
        with explained(), engine.begin() as connection:
            if run_id is None:
                values = {"kind": kind, "slugs": list(slugs), "command": command, "state": "running"}
                made = connection.execute(insert(t.run).values(**values, **now).returning(r.id)).scalar_one()
                return cls(engine, int(made), slugs, kind)
            state = connection.execute(select(r.state).where(r.id == run_id).with_for_update()).scalar()
            if state is None:
                raise UnknownRun(f"There is no run {run_id} here.", run=run_id)
            if state not in OPEN:
                raise RunEnded(f"Run {run_id} is {state}; resume it from its page.", run=run_id, state=state)
            taken = {"state": "running"} if state == "queued" else {}
            query = update(t.run).where(r.id == run_id)
            connection.execute(query.values(slugs=list(slugs), message=None, finished=None, **taken, **now))
        return cls(engine, run_id, slugs, kind)

    def beat(self, tokens: int, total: int | None, resumed: int, seconds: float) -> bool:
        """Tell the progress, every two seconds at most; True once somebody has asked the run to stop. A database that
        does not answer is passed over: the harvest goes on without it."""
        self._progress = {
            "tokens": tokens,
            "total": total,
            "resumed": resumed,
            "seconds": seconds,
            "tokens_per_second": (tokens - resumed) / max(seconds, 1e-9),
        }
        self._facts["stage"] = None
        if time.monotonic() >= self._due:
            self._write(beat=func.now(), facts=self._merged(), **self._progress)
            self._due = time.monotonic() + BEAT_SECONDS
        return self._stop_asked

    def doing(self, stage: str) -> None:
        """What is done now, besides reading."""
        self._facts["stage"] = stage
        if "part" in self._facts:
            self._facts["part"] = None
        self._write(beat=func.now(), facts=self._merged(), **self._progress)

    def part(self, done: int, total: int) -> None:
        """How much of the stage is done, every two seconds at most. Only of jobs other than harvests."""
        self._facts |= {"part": [done, total]}
        if time.monotonic() >= self._due:
            self._write(beat=func.now(), facts=self._merged())
            self._due = time.monotonic() + BEAT_SECONDS

    def worth_resuming(self) -> None:
        """The same command would carry on from here."""
        if not self.resumable:
            self._facts["kept"] = 1
            self._write(facts=self._merged())

    def note(self, line: str) -> None:
        """A sentence for the run's page."""
        self._facts["notes"] = [*self._facts.get("notes", []), line]

    def kept(self, checkpoint: str, tokens: int) -> None:
        """The checkpoint's name, which is the same for every run of the same harvest, and how many tokens it holds."""
        if self.resumable != bool(tokens):
            self._due = 0.0
        self._facts |= {"checkpoint": checkpoint, "kept": tokens}

    @property
    def resumable(self) -> bool:
        """Whether there is a checkpoint to carry on from."""
        return bool(self._facts.get("kept"))

    def already(self, addresses: Sequence[str]) -> None:
        """The revisions, as ``slug@revision``, that were there before this run."""
        if addresses:
            self._facts["already"] = list(addresses)

    def skipped(self, count: int, named: Sequence[tuple[str, str]]) -> None:
        """Documents that were left out: how many, and the first with the reasons."""
        self._facts["skipped"] = {"count": count, "named": list(named)}

    def finish(
        self,
        state: End,
        message: str | None = None,
        revisions: Sequence[str] = (),
        metrics: dict[str, Any] | None = None,
    ) -> None:
        """Close the run; like a beat it raises nothing, so that the harvest's own outcome is what is seen.

        ``revisions`` has one entry for each slug. ``metrics`` are by slug; without them they are those that were saved
        with the revisions.
        """
        self._ended.set()
        self._alive.join(BEAT_SECONDS)  # it may be writing, over a connection that disposing of the engine would miss
        if state == "done" and self._progress:  # a corpus may hold less than was asked for
            self._progress["total"] = self._progress["tokens"]
        saved = _metrics(self._slugs, revisions) if revisions and self._kind == "harvest" else None
        self._facts["stage"] = None
        if "part" in self._facts:
            self._facts["part"] = None
        told = {"message": message, "revisions": list(revisions), "metrics": metrics or saved, "facts": self._merged()}
        self._write(state=state, finished=func.now(), **told, **self._progress)

    def _live(self) -> None:
        while not self._ended.wait(ALIVE_SECONDS):
            self._write(beat=func.now())
            # A harvest stops after the batch at hand; all else is interrupted, as by Ctrl-C.
            if self._stop_asked and self._kind != "harvest" and not self._ended.is_set():
                os.kill(os.getpid(), signal.SIGINT)
                return

    def _merged(self) -> ColumnElement[Any]:
        """This run's facts beside those that others have written."""
        return t.run.c.facts.op("||")(cast(self._facts, JSONB))

    def _write(self, **values: Any) -> None:
        query = update(t.run).where(t.run.c.id == self.id).values(**values).returning(t.run.c.state)
        with contextlib.suppress(SQLAlchemyError), self._engine.begin() as connection:
            if connection.execute(query).scalar() == "stopping":
                self._stop_asked = True


def _metrics(slugs: Sequence[str], revisions: Sequence[str]) -> ScalarSelect[Any]:
    """``{slug: metrics}`` of saved revisions."""
    s, h = t.sae.c, t.harvest.c
    these = tuple_(s.slug, s.revision).in_(list(zip(slugs, revisions, strict=False)))
    query = select(func.jsonb_object_agg(s.slug, h.metrics)).join(t.harvest, h.sae_id == s.id).where(these)
    return query.scalar_subquery()
