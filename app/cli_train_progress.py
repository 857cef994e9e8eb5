"""How a training is shown: bars where there is a terminal, and a line for every line of a run's log."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from app.train.record import Facts
    from app.train.run import Run


class Lines:
    """A line for every line of a run's log."""

    def gathered(self, done: int, total: int) -> None:
        pass

    def stepped(self, run: "Run") -> None:
        line = run.last
        if line is None or line.step != run.step:
            return
        self.say(
            f"{run.plan.label}  step {line.step}/{run.steps}  fvu {line.fvu:.4f}  l0 {line.l0:.1f}  dead {line.dead}  "
            f"{line.tokens_per_second:,.0f} tok/s"
        )

    def ended(self, facts: "Facts") -> None:
        if facts.state == "failed":
            typer.echo(f"{facts.name}: {facts.message}", err=True)

    def say(self, text: str) -> None:
        typer.echo(text)


class Bars(Lines):
    """The same, and a bar for the activations and for each run."""

    def __init__(self, progress: Any) -> None:
        self._progress = progress
        self._tasks: dict[str, Any] = {}

    def gathered(self, done: int, total: int) -> None:
        self._move("activations", done, total)

    def stepped(self, run: "Run") -> None:
        super().stepped(run)
        self._move(run.plan.label, run.step, run.steps)

    def say(self, text: str) -> None:
        self._progress.console.print(text, markup=False, highlight=False)

    def _move(self, name: str, done: int, total: int) -> None:
        if name not in self._tasks:
            self._tasks[name] = self._progress.add_task(name, total=total)
        self._progress.update(self._tasks[name], completed=done)


@contextmanager
def shown() -> Iterator[Lines]:
    """Bars on a terminal, lines elsewhere."""
    if not sys.stderr.isatty():
        yield Lines()
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = [TextColumn("{task.description}", markup=False), BarColumn(bar_width=20), TimeRemainingColumn()]
    with Progress(*columns, console=Console(stderr=True)) as progress:
        yield Bars(progress)
