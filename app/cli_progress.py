"""Progress on stderr: a bar where there is a terminal, else lines; a harvest's is written to its run's row as well."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

import typer

from app.web.formats import duration

if TYPE_CHECKING:
    from app.harvest.run import Progress, Watch
    from app.store.runs import RunLog

EVERY = 10.0  # seconds between lines


class Shown(Protocol):
    """Where progress is shown."""

    def step(self, step: "Progress") -> None: ...
    def doing(self, stage: str) -> None: ...
    def close(self) -> None: ...


class Lines:
    """A line now and then, one at the end of the text, and one for each stage."""

    def __init__(self) -> None:
        self._begun, self._last = False, 0.0

    def step(self, step: "Progress") -> None:
        if not self._begun:
            carried_on(step)
        self._begun = True
        if step.seconds - self._last >= EVERY or step.tokens == step.total:
            self._last = step.seconds
            typer.echo("  ".join(filter(None, (amount(step), speed(step), left(step)))), err=True)

    def doing(self, stage: str) -> None:
        typer.echo(f"{stage} ...", err=True)

    def close(self) -> None:
        pass


class Bar:
    """Tokens done, tokens a second and time left; at other stages their names."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        columns = [TextColumn(f"{{task.fields[{name}]}}", markup=False) for name in ("done", "now", "left")]
        self._bar = Progress(columns[0], BarColumn(bar_width=20), *columns[1:], console=Console(stderr=True))
        self._task = self._bar.add_task("harvest", total=None, done="", now="", left="")
        self._begun = False

    def step(self, step: "Progress") -> None:
        if not self._begun:
            carried_on(step)
        self._begun = True
        self._bar.start()
        self._bar.update(
            self._task, total=step.total, completed=step.tokens, done=amount(step), now=speed(step), left=left(step)
        )

    def doing(self, stage: str) -> None:
        self._bar.start()
        self._bar.update(self._task, now=f"{stage} ...", left="")

    def close(self) -> None:
        self._bar.stop()


class Stages:
    """The stages of something that reads no tokens: a line for each, and where there is a terminal a bar under it."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        self._bar = Progress(
            TextColumn("{task.description}", markup=False), BarColumn(bar_width=20), TimeElapsedColumn(),
            TimeRemainingColumn(), console=Console(stderr=True), disable=not sys.stderr.isatty(),
        )  # fmt: skip
        self._task = self._bar.add_task("", total=None)

    def doing(self, stage: str) -> None:
        if self._bar.disable:
            typer.echo(f"{stage} ...", err=True)
        self._bar.start()
        self._bar.reset(self._task, description=stage, total=None)

    def done(self, done: int, total: int) -> None:
        self._bar.update(self._task, completed=done, total=total)

    def close(self) -> None:
        self._bar.stop()


@contextmanager
def staged() -> Iterator[Stages]:
    shown = Stages()
    try:
        yield shown
    finally:
        shown.close()


@contextmanager
def watching(log: "RunLog") -> "Iterator[Watch]":
    """What shows a pass on the terminal and in the run's row."""
    from app.harvest.run import Watch

    shown: Shown = Bar() if sys.stderr.isatty() else Lines()

    def progress(step: "Progress") -> bool:
        shown.step(step)
        return log.beat(step.tokens, step.total, step.resumed, step.seconds)

    def doing(stage: str) -> None:
        shown.doing(stage)
        log.doing(stage)

    def note(line: str) -> None:
        typer.echo(line, err=True)
        log.note(line)

    try:
        yield Watch(progress=progress, doing=doing, note=note, kept=lambda file, tokens: log.kept(file.name, tokens))
    finally:
        shown.close()


def carried_on(step: "Progress") -> None:
    if step.resumed:
        typer.echo(f"carrying on after {step.resumed:,} tokens", err=True)


def amount(step: "Progress") -> str:
    """``1,024 of 400,000 tokens``, or without the total where it is not known."""
    return f"{step.tokens:,} tokens" if step.total is None else f"{step.tokens:,} of {step.total:,} tokens"


def speed(step: "Progress") -> str:
    return f"{(step.tokens - step.resumed) / max(step.seconds, 1e-9):,.0f} tok/s"


def left(step: "Progress") -> str:
    """Nothing where all is read, for then something else is being done, or where the total is not known."""
    if step.total is None or step.tokens >= step.total or step.tokens <= step.resumed:
        return ""
    return f"{duration((step.total - step.tokens) * step.seconds / (step.tokens - step.resumed))} left"
