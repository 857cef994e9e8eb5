"""What the pages of harvests show, typed, and how rows become it."""

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from app import urls
from app.commands import command_line
from app.corpus.document import corpus_name
from app.store.run_queries import RunRecord
from app.store.runs import Kind
from app.web.job_contexts import JobsForm, called
from app.web.metric_names import METRICS, measured_over

RunState = Literal["queued", "running", "stopping", "stopped", "failed", "done", "lost"]
ORDER = ("sae", "slug", "model", "corpus", "tokens", "context")  # jsonb keeps none
SAID = {
    "queued": "waits for its turn",
    "running": "running",
    "stopping": "stopping after the batch at hand",
    "stopped": "stopped",
    "failed": "failed",
    "done": "done",
    "lost": "lost",
}


class Measured(BaseModel):
    """A metric by the name that it has on an SAE's page; None where it is not defined, or was measured ``over`` no
    tokens."""

    name: str
    value: float | None
    over: int | None


class RunResult(BaseModel):
    """One SAE of a run; ``revision``, ``url`` and the metrics are None until it is saved. ``already`` is whether it was
    there before this run. A revision that is here no more has no ``url``, and ``gone`` says what became of it.
    ``measured`` are those of the metrics that its page names, in its order."""

    sae: str
    revision: str | None
    url: str | None
    gone: Literal["replaced", "removed"] | None
    already: bool
    fvu: float | None
    l0: float | None
    measured: list[Measured]
    metrics: dict[str, Any] | None


class RunView(BaseModel):
    """A job. Of a harvest ``tokens`` of ``total`` are read, ``resumed`` of them by an earlier run of the same;
    ``stage`` is what is done while none is read. ``lost`` is a run whose process died without a word."""

    id: int
    kind: Kind
    called: str  # what it does, in words
    state: RunState
    said: str  # the state in words
    already: bool  # every SAE was there, just so, before
    saes: list[RunResult]
    corpus: str | None
    tokens: int
    total: int | None
    stage: str | None
    part: int | None  # how much of the stage is done, of ``whole``; of jobs other than harvests
    whole: int | None
    resumed: int
    tokens_per_second: float
    seconds: float  # of the pass so far
    seconds_left: float | None
    duration: float | None  # from start to end
    message: str | None
    notes: list[str]  # what it said on the way
    skipped: int  # documents that could not be read
    skipped_named: list[str]  # the first of them, each with the reason
    command: dict[str, Any]  # the options that start it again
    command_line: str  # the same as one types it
    created: datetime
    started: datetime | None
    beat: datetime | None
    finished: datetime | None
    refresh: bool  # it may change by itself
    stoppable: bool
    resumable: bool
    forgettable: bool
    url: str


class RunList(BaseModel):
    """/harvests.json: newest first; ``next`` is the cursor of the following page."""

    items: list[RunView]
    next: str | None


class Choice(BaseModel):
    """An entry of a list to choose from."""

    value: str
    text: str


class StartForm(BaseModel):
    """The form as it was typed. What is written in a ``..._path`` counts before what is chosen."""

    sae: str = ""
    sae_path: str = ""
    slug: str = ""
    model: str = ""
    model_path: str = ""
    corpus: str = "pkg:wikipedia-demo"
    tokens: str = ""
    context: str = "128"
    pack: str = ""  # "on" where ticked, as the next two
    chat: str = ""
    replace: str = ""
    replacing: str | None = ""  # the revisions that may go for it, as they were shown; None asks nobody


class Going(BaseModel):
    """A revision that a harvest with ``replace`` would drop."""

    address: str
    corpus: str
    finished: str


class StartBody(BaseModel):
    """POST /api/harvests. ``sae`` is the name of an import or of an SAE here (``name@revision`` is that revision), or a
    folder; ``model`` is the name of a subject here, or a folder, and may be left out for an SAE that was harvested. A
    name for the SAE, ``slug``, is needed where it is a folder."""

    model_config = ConfigDict(extra="forbid")  # a misspelt field is no wish for its default

    sae: str
    model: str | None = None
    corpus: str
    tokens: int | None = Field(default=None, ge=16)
    context: int = Field(default=128, ge=16)
    slug: str | None = None
    pack: bool = False
    chat: bool = False
    replace: bool = False


class HarvestsPage(BaseModel):
    """/harvests: the runs of every kind of job, and forms to start one. ``worker`` is whether this server runs what it
    queues."""

    runs: RunList
    cursor: str | None
    saes: list[Choice]
    subjects: list[Choice]
    corpora: list[str]
    form: StartForm
    error: str | None
    going: list[Going]  # what the form would drop, to be agreed to
    worker: bool
    jobs: JobsForm  # forms of the other jobs


class RunPage(BaseModel):
    """/harvests/{run}."""

    run: RunView


def view(run: RunRecord) -> RunView:
    stage = run.facts.get("stage") if run.open else None
    moving = run.state == "running" and not stage and run.tokens < (run.total or 0) and run.tokens_per_second > 0
    end = run.finished or run.beat
    part, whole = (run.open and run.facts.get("part")) or (None, None)
    command = {name: run.command[name] for name in (*ORDER, *run.command) if name in run.command}
    saes = [_result(run, number) for number in range(len(run.slugs))]
    skipped = run.facts.get("skipped", {})
    already = bool(saes) and all(one.already for one in saes)
    return RunView(
        id=run.id,
        kind=run.kind,
        called=called(run.kind, run.command),
        state=run.state,
        said="already harvested" if already else _said(run),
        already=already,
        saes=saes,
        corpus=_corpus(run.command),
        tokens=run.tokens,
        total=run.total,
        stage=stage,
        part=part,
        whole=whole,
        resumed=run.resumed,
        tokens_per_second=round(run.tokens_per_second, 1),
        seconds=round(run.seconds, 2),
        seconds_left=((run.total or 0) - run.tokens) / run.tokens_per_second if moving else None,
        duration=(end - run.started).total_seconds() if run.started and end else None,
        message=run.message or _remedy(run),
        notes=run.facts.get("notes", []),
        skipped=skipped.get("count", 0),
        skipped_named=[f"{name} ({reason})" for name, reason in skipped.get("named", [])],
        command=command,
        command_line=command_line(run.kind, command),
        created=run.created,
        started=run.started,
        beat=run.beat,
        finished=run.finished,
        refresh=run.open,
        stoppable=run.state in ("queued", "running", "lost"),
        resumable=run.resumable,
        forgettable=not run.open,
        url=urls.harvest_run(run.id),
    )


def _said(run: RunRecord) -> str:
    return "stopping" if run.state == "stopping" and run.kind != "harvest" else SAID[run.state]


def _result(run: RunRecord, number: int) -> RunResult:
    slug = run.slugs[number]
    revision = run.revisions[number] if number < len(run.revisions) else None
    metrics = (run.metrics or {}).get(slug) or {}
    address = f"{slug}@{revision}"
    here = address in run.here
    return RunResult(
        sae=slug,
        revision=revision,
        url=urls.sae(address) if here else None,
        gone=run.facts.get("gone", {}).get(address, "removed") if revision and not here else None,
        already=address in run.facts.get("already", []),
        fvu=metrics.get("fvu"),
        l0=metrics.get("l0"),
        measured=[
            Measured(name=name, value=metrics[key], over=metrics.get(measured_over(key)))
            for key, name in METRICS.items()
            if key in metrics
        ],
        metrics=metrics or None,
    )


def _corpus(command: dict[str, Any]) -> str | None:
    spec = command.get("corpus")
    return corpus_name(spec, chat=bool(command.get("chat")), pack=bool(command.get("pack"))) if spec else None


def _remedy(run: RunRecord) -> str | None:
    if run.state != "lost":
        return None
    minutes = int((run.age or 0) // 60)
    since = f"{minutes} minute{'s' if minutes > 1 else ''}"
    on = " Resume carries on from what was kept." if run.resumable else ""
    return f"Nothing was heard of it for {since}: its process has died.{on}"
