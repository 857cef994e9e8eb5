"""A search for a circuit as it is kept: one JSON file of the home."""

import os
import re
from datetime import datetime
from pathlib import Path

from pydantic import BaseModel, ValidationError

from app.disk import room
from app.errors import UnknownCircuit

FOLDER = "circuits"
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,120}")


class CircuitPrompt(BaseModel):
    """A pair of the task; ``right`` is what completes the positive one."""

    positive: str
    negative: str
    right: list[str]


class CircuitSpread(BaseModel):
    """Of many shuffles: mean, standard deviation and 95th percentile of the ROC AUC."""

    mean: float
    std: float
    high: float


class CircuitRun(BaseModel):
    """What was asked and what was found. ``unique``, ``distinct``, ``untrained``, ``apart`` and ``effect`` are
    [layers][heads]."""

    name: str
    task: str
    subject: str
    subject_sha256: str
    dtype: str
    made: datetime
    seconds: float
    examples: int
    learned_from: int
    latents: int
    steps: int
    l1: float
    seed: int
    ablated_on: int
    threshold: float
    difference: float
    ablated_difference: float
    negative_difference: float
    accuracy: float
    silent: float
    unique: list[list[int]]
    distinct: list[list[int]]
    untrained: list[list[int]]
    apart: list[list[float]] | None = None  # runs of before it was measured have none
    effect: list[list[float]]
    in_circuit: int
    auc: float | None
    auc_normalised: float | None
    auc_untrained: float | None
    auc_apart: float | None = None
    spearman: float | None
    shuffled_truth: CircuitSpread | None
    shuffled_examples: CircuitSpread | None
    prompts: list[CircuitPrompt]


def keep(home: Path, run: CircuitRun) -> Path:
    """Write the run whole or not at all; one of the same name is replaced."""
    folder = home / FOLDER
    file = folder / f"{run.name}.json"
    with room(file, "The circuit"):
        folder.mkdir(parents=True, exist_ok=True)
        partial = folder / f".{run.name}.{os.getpid()}.partial"
        try:
            partial.write_text(run.model_dump_json(indent=1), encoding="utf-8")
            partial.replace(file)
        finally:
            partial.unlink(missing_ok=True)
    return file


def kept(home: Path) -> tuple[list[CircuitRun], list[str]]:
    """The runs of the home, the newest first, and the names of files that are none."""
    runs, bad = [], []
    for file in sorted((home / FOLDER).glob("*.json")):
        try:
            runs.append(_read(file))
        except (OSError, ValidationError, UnicodeDecodeError):
            bad.append(file.name)
    return sorted(runs, key=lambda run: run.made, reverse=True), bad


def get(home: Path, name: str) -> CircuitRun:
    """
    Raises:
        UnknownCircuit: there is none of that name, or it cannot be read.
    """
    if not _NAME.fullmatch(name):
        raise UnknownCircuit(
            f"There is no circuit {name[:60]!r} here; /circuits lists those there are.", circuit=name[:60]
        )
    try:
        return _read(home / FOLDER / f"{name}.json")
    except FileNotFoundError:
        told = f"There is no circuit {name!r} here; /circuits lists those there are."
    except (OSError, ValidationError, UnicodeDecodeError):
        told = f"The file of the circuit {name!r} cannot be read; make it again by saescope circuit."
    raise UnknownCircuit(told, circuit=name)


def _read(file: Path) -> CircuitRun:
    run = CircuitRun.model_validate_json(file.read_text(encoding="utf-8"))
    return run.model_copy(update={"name": file.stem})
