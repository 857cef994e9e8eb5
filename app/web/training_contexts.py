"""What the pages of training runs show, typed, and how a run's files become it."""

import shlex
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel

from app import urls
from app.train import record

SAID = {
    "running": "running",
    "finished": "done",
    "stopped": "stopped",
    "failed": "failed",
    "lost": "lost",
}


class TrainingLine(BaseModel):
    """A line of a run's log: means since the line before."""

    step: int
    tokens: int
    loss: float
    fvu: float
    l0: float
    dead: float
    lr: float
    tokens_per_second: float
    terms: dict[str, float]


class TrainingRun(BaseModel):
    """A run of ``saescope train`` as it stands; the numbers are those of its last line, None before there is one."""

    name: str
    url: str
    state: Literal["running", "finished", "stopped", "failed", "lost"]
    said: str
    message: str | None
    idea: str
    n_latents: int
    seed: int
    subject: str
    reads: str
    writes: str
    step: int
    steps: int
    fvu: float | None
    l0: float | None
    dead: float | None
    tokens_per_second: float | None
    started: datetime
    seconds: float


class TrainingPage(BaseModel):
    """/training: all runs, the last started first."""

    items: list[TrainingRun]
    next: None
    refresh: bool


class TrainingRunPage(BaseModel):
    """/training/{run}."""

    run: TrainingRun
    about: str
    options: dict[str, Any]
    recipe: dict[str, Any]
    corpus: list[str]
    tokens: int
    sae: str
    harvest: str | None
    lines: list[TrainingLine]
    refresh: bool


def runs(home: Path) -> TrainingPage:
    found = [_run(facts, list(record.read_lines(record.folder_of(home, facts.name)))) for facts in record.runs(home)]
    return TrainingPage(items=found, next=None, refresh=any(run.state == "running" for run in found))


def run_page(home: Path, name: str) -> TrainingRunPage | None:
    """None where there is no such run."""
    facts = record.read_facts(record.folder_of(home, name))
    if facts is None:
        return None
    lines = list(record.read_lines(record.folder_of(home, name)))
    corpus = facts.corpus[0] if facts.corpus else "CORPUS"
    return TrainingRunPage(
        run=_run(facts, lines),
        about=facts.about,
        options=facts.options,
        recipe=facts.recipe,
        corpus=facts.corpus,
        tokens=facts.tokens,
        sae=facts.sae,
        harvest=_harvest(facts, corpus) if facts.state == "finished" else None,
        lines=_shown(facts, lines),
        refresh=facts.state == "running",
    )


def _harvest(facts: record.Facts, corpus: str) -> str:
    """The command that harvests it."""
    words = ["saescope", "harvest", "--sae", facts.sae, "--corpus", corpus.removesuffix(" (chats)").partition("@")[0]]
    return shlex.join([*words, "--slug", facts.name])


def _run(facts: record.Facts, lines: list[record.Line]) -> TrainingRun:
    last = lines[-1] if lines else None
    return TrainingRun(
        name=facts.name,
        url=urls.training_run(facts.name),
        state=facts.state,
        said=SAID[facts.state],
        message=facts.message,
        idea=facts.idea,
        n_latents=facts.n_latents,
        seed=facts.seed,
        subject=facts.subject,
        reads=facts.reads,
        writes=facts.writes,
        step=last.step if last else 0,
        steps=facts.steps,
        fvu=last.fvu if last else None,
        l0=last.l0 if last else None,
        dead=last.dead / facts.n_latents if last else None,
        tokens_per_second=last.tokens_per_second if last else None,
        started=datetime.fromtimestamp(facts.started, UTC),
        seconds=facts.seconds,
    )


def _shown(facts: record.Facts, lines: Iterable[record.Line]) -> list[TrainingLine]:
    return [
        TrainingLine(
            step=line.step,
            tokens=line.tokens,
            loss=line.loss,
            fvu=line.fvu,
            l0=line.l0,
            dead=line.dead / facts.n_latents,
            lr=line.lr,
            tokens_per_second=line.tokens_per_second,
            terms=line.terms,
        )
        for line in lines
    ]
