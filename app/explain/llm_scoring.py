"""The scores of one explanation by every scorer asked for, each beside its control."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from app.explain import prompts
from app.explain.client import Client
from app.explain.llm_scorers import (
    Judge,
    Question,
    all_of,
    judged,
    questions,
    simulated,
    simulated_windows,
)
from app.explain.samples import KINDS, Window
from app.explain.tally import Tally, of_ranks, of_simulation, of_verdicts
from app.store.llm_bulk import ScoreRow, SetRow

if TYPE_CHECKING:
    from app.explain.embedding_scorer import EmbeddingScorer
    from app.explain.llm_run import Plan, Subject
    from app.explain.local_scorers import LocalSubject

ASKING = "detection", "fuzzing", "simulation"  # of the model behind the endpoint
LOCAL = "embedding", "surprisal", "intervention"  # of a sentence model, and of the subject itself
SCORERS = ASKING + LOCAL


@dataclass(frozen=True)
class Scoring:
    """``local``: the subject with its SAE, ``embedder``: a sentence model, each where a scorer needs it."""

    local: "LocalSubject | None" = None
    embedder: "EmbeddingScorer | None" = None
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)


async def score(
    subject: "Subject",
    plan: "Plan",
    one: tuple[int, int],
    text: str,
    control: str | None,
    client: Client,
    scoring: Scoring,
) -> tuple[SetRow, list[ScoreRow]]:
    """``control``: another latent's explanation."""
    windows = subject.sampler.windows(*one, "test", plan.n)
    seed = (plan.seed, one[0], int(one[1] < 0))

    async def by(scorer: str) -> ScoreRow:
        if scorer == "detection" or scorer == "fuzzing":
            judge: Judge = "detection" if scorer == "detection" else "fuzzing"
            return await _judge(judge, subject, windows, one, text, control, client, seed)
        if scorer == "simulation":
            return await _simulate(subject, windows, one, text, control, client, seed)
        # Beside the event loop, on which answers to others arrive; one at a time, for the subject is one.
        async with scoring.turn:
            return await asyncio.to_thread(locally, scorer, scoring, windows, one, text, control, seed)

    return of_set(subject, plan, one, windows), list(await all_of([by(scorer) for scorer in plan.scorers]))


async def _judge(
    judge: Judge,
    subject: "Subject",
    windows: Sequence[Window],
    one: tuple[int, int],
    text: str,
    control: str | None,
    client: Client,
    seed: tuple[int, ...],
) -> ScoreRow:
    asked = questions(judge, windows, subject.pieces, seed)
    whole = [question.window for question in asked]
    share = subject.share(*one)
    other: float | None = None
    said = await judged(client, judge, text, asked, one[0])
    if control is not None:
        theirs = await judged(client, judge, control, asked, one[0])
        other = of_verdicts(whole, theirs.predictions, theirs.probabilities, share=share, seed=seed).balanced_accuracy
    tally = of_verdicts(whole, said.predictions, said.probabilities, share=share, seed=seed, control=other)
    told = any(one is not None for one in said.probabilities)
    facts = {"control_text": control, "unasked": len(windows) - len(asked)}
    return ScoreRow(
        judge, prompts.VERSION, client.endpoint.model, _columns(tally, facts),
        _in_order(windows, asked, said.predictions),
        _in_order(windows, asked, said.probabilities) if told else None,
        _in_order(windows, asked, [question.text for question in asked]),
        _in_order(windows, asked, said.errors, "not asked"),
    )  # fmt: skip


async def _simulate(
    subject: "Subject",
    windows: Sequence[Window],
    one: tuple[int, int],
    text: str,
    control: str | None,
    client: Client,
    seed: tuple[int, ...],
) -> ScoreRow:
    some = simulated_windows(windows)
    said = await simulated(client, text, some, subject.pieces, one[0])
    other: float | None = None
    if control is not None:
        theirs = await simulated(client, control, some, subject.pieces, one[0])
        other = of_simulation(some, theirs.values, seed=seed).correlation
    tally = of_simulation(some, said.values, seed=seed, control=other)
    at = {id(window): i for i, window in enumerate(some)}
    # What is predicted of a window is that it fires where any token is at half the scale or above.
    said_of = [None if values is None else bool(values.max() >= 5) for values in said.values]
    strongest = [None if values is None else float(values.max()) / 10 for values in said.values]
    pick = [at.get(id(window)) for window in windows]
    return ScoreRow(
        "simulation", prompts.VERSION, client.endpoint.model, _columns(tally, {"control_text": control}),
        [None if i is None else said_of[i] for i in pick], [None if i is None else strongest[i] for i in pick],
        [None] * len(windows), ["not asked" if i is None else said.errors[i] for i in pick],
    )  # fmt: skip


def locally(
    scorer: str,
    scoring: Scoring,
    windows: Sequence[Window],
    one: tuple[int, int],
    text: str,
    control: str | None,
    seed: tuple[int, ...],
) -> ScoreRow:
    """A score of LOCAL; what it needs is in ``scoring``."""
    local = scoring.local
    nothing: list[Any] = [None] * len(windows)
    if scorer == "embedding":
        if scoring.embedder is None:
            raise ValueError("embedding scores need a sentence model")
        return _ranked(scorer, scoring.embedder.name, scoring.embedder.cosines, windows, text, control, seed)
    if local is None:
        raise ValueError(f"{scorer} needs the subject")
    if scorer == "surprisal":
        return _ranked(scorer, local.name, local.surprisal, windows, text, control, seed)
    tally = local.intervention(one, text, control, seed)
    return ScoreRow(scorer, 1, local.name, _columns(tally, {"control_text": control}), nothing, None, nothing)


def _ranked(
    scorer: str,
    model: str,
    measure: Callable[[str, Sequence[Window]], list[float]],
    windows: Sequence[Window],
    text: str,
    control: str | None,
    seed: tuple[int, ...],
) -> ScoreRow:
    """Of values that are high where the latent should be active."""
    values = measure(text, windows)
    nothing: list[Any] = [None] * len(windows)
    other = None if control is None else of_ranks(windows, measure(control, windows), seed=seed).auroc
    tally = of_ranks(windows, values, seed=seed, control=other)
    return ScoreRow(scorer, 1, model, _columns(tally, {"control_text": control}), nothing, list(values), nothing)


def _columns(tally: Tally, facts: dict[str, Any]) -> dict[str, Any]:
    return vars(replace(tally, facts={**tally.facts, **facts}))


def _in_order(
    windows: Sequence[Window], asked: Sequence[Question], of: Sequence[Any], missing: Any = None
) -> list[Any]:
    """Values of the questions in the order of the windows."""
    found = {id(question.window): value for question, value in zip(asked, of, strict=True)}
    return [found.get(id(window), missing) for window in windows]


def of_set(subject: "Subject", plan: "Plan", one: tuple[int, int], windows: Sequence[Window]) -> SetRow:
    """The windows as a row of ``example_set``."""
    return SetRow(
        one[0], one[1], "test", subject.sample, plan.seed, subject.sampler.grid.width,
        [window.sequence for window in windows],
        [window.start for window in windows],
        [KINDS.index(window.kind) for window in windows],
        [-1 if window.interval is None else window.interval for window in windows],
        [int(window.activations.argmax()) if window.active else -1 for window in windows],
        [float(window.activations.max(initial=0.0)) for window in windows],
    )  # fmt: skip
