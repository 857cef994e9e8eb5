"""What is kept of a training run beside its SAE: facts, and a line of numbers every so many steps. No torch here: the
site reads it too."""

import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

FACTS, LINES = "run.json", "log.jsonl"
SILENT_S = 120.0  # without a sign of life a run that says it is running has been killed
State = Literal["running", "finished", "stopped", "failed", "lost"]


@dataclass
class Facts:
    """A run as it was asked for and how it stands. ``sae``: the folder the SAE is in, or will be."""

    name: str
    idea: str
    about: str
    options: dict[str, Any]
    seed: int
    n_latents: int
    subject: str
    reads: str
    writes: str
    corpus: list[str]
    tokens: int
    steps: int
    recipe: dict[str, Any]
    identity: str
    sae: str
    state: State = "running"
    message: str | None = None
    started: float = field(default_factory=time.time)
    ended: float | None = None
    seconds: float = 0.0  # spent on its steps, in all


@dataclass(frozen=True)
class Line:
    """loss, fvu, l0 and terms are means since the last line; ``lr`` is the last used; dead: latents now."""

    step: int
    tokens: int
    loss: float
    fvu: float
    l0: float
    dead: int
    lr: float
    tokens_per_second: float
    terms: dict[str, float]


def folder_of(home: Path, name: str) -> Path:
    return home / "training" / name


def save_facts(folder: Path, facts: Facts) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / (FACTS + ".partial")
    partial.write_text(json.dumps(asdict(facts), indent=2) + "\n")
    partial.rename(folder / FACTS)


def read_facts(folder: Path) -> Facts | None:
    """The run in ``folder``, None where there is none or its facts cannot be read."""
    try:
        facts = Facts(**json.loads((folder / FACTS).read_text()))
        age = time.time() - (folder / FACTS).stat().st_mtime
    except (OSError, ValueError, TypeError):
        return None
    if facts.state == "running" and age > SILENT_S:
        facts.state = "lost"
    return facts


def alive(folder: Path) -> None:
    """Say that the run in ``folder`` is going on."""
    os.utime(folder / FACTS)


def runs(home: Path) -> list[Facts]:
    """Every run there is, the last started first."""
    try:
        folders = [path for path in (home / "training").iterdir() if path.is_dir()]
    except OSError:
        return []
    found = [facts for folder in folders if (facts := read_facts(folder)) is not None]
    return sorted(found, key=lambda facts: (-facts.started, facts.name))


def add_line(folder: Path, line: Line) -> None:
    with (folder / LINES).open("a") as log:
        log.write(json.dumps(asdict(line)) + "\n")


def read_lines(folder: Path) -> Iterator[Line]:
    """The log so far; a line that a crash cut off is left out."""
    try:
        text = (folder / LINES).read_text()
    except OSError:
        return
    for raw in text.splitlines():
        try:
            yield Line(**json.loads(raw))
        except (ValueError, TypeError):
            continue


def cut_lines(folder: Path, step: int) -> None:
    """Leave out what was logged after ``step``: it will be done again."""
    kept = [line for line in read_lines(folder) if line.step <= step]
    if kept or (folder / LINES).is_file():
        (folder / LINES).write_text("".join(json.dumps(asdict(line)) + "\n" for line in kept))
