"""Commands as runs: their progress on the terminal and in their row, which is closed in the way they end."""

import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer

from app.cli_progress import Stages, staged
from app.errors import SaescopeError

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from app.store.runs import Kind, RunLog


class Recorded:
    """A command's progress. ``keeps``: what it has done is found again when it is started anew."""

    def __init__(self, shown: Stages, log: "RunLog", keeps: bool) -> None:
        self._shown, self._log, self._keeps = shown, log, keeps
        self._revisions: list[str] = []

    def doing(self, stage: str) -> None:
        self._shown.doing(stage)
        self._log.doing(stage)

    def done(self, done: int, total: int) -> None:
        self._shown.done(done, total)
        if self._keeps:
            self._log.worth_resuming()
        self._log.part(done, total)

    def worth_resuming(self) -> None:
        """The same command would carry on from here."""
        self._log.worth_resuming()

    def tell(self, lines: Sequence[str]) -> None:
        """What came of it: printed, and shown on the run's page."""
        for line in lines:
            typer.echo(line)
            self._log.note(line)

    def made(self, revision: str) -> None:
        """It was of this revision."""
        self._revisions.append(revision)

    def close(self) -> None:
        self._log.finish("done", revisions=self._revisions)


@contextmanager
def recorded(
    engine: "Engine", kind: "Kind", slugs: Sequence[str], command: dict[str, Any], run: int | None, *, keeps: bool
) -> Iterator[Recorded]:
    """
    Raises:
        UnknownRun, RunEnded: ``run`` names none that waits to be run.
    """
    from app.store.runs import RunLog

    log = RunLog.start(engine, slugs, command, run, kind)
    try:
        with staged() as shown:
            work = Recorded(shown, log, keeps)
            yield work
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt | SystemExit) or interrupted():
            on = "what it had done is kept, and resuming carries on from there" if log.resumable else "nothing was kept"
            log.finish("stopped", f"Stopped; {on}.")
            raise KeyboardInterrupt from error
        told = error.message if isinstance(error, SaescopeError) else f"{type(error).__name__}: {error}"
        log.finish("failed", told)
        raise
    work.close()


def interrupted() -> bool:
    """Whether Ctrl-C was pressed: what a library makes of it may be another exception."""
    return bool(getattr(signal.getsignal(signal.SIGINT), "pressed", False))


def given(command: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    """The options that say something: those that are not what they would be anyway."""
    return {name: value for name, value in command.items() if value is not None and value != defaults.get(name)}
