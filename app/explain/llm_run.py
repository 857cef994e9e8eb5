"""Explaining and scoring latents with a language model: first every explanation, then every score, each latent saved by
itself. A run that was cut short goes through the same requests again and finds their answers in the ledger."""

import asyncio
import hashlib
import json
from collections.abc import Callable, Coroutine
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from sqlalchemy import Engine

from app.explain import prompts
from app.explain.client import Client, Endpoint
from app.explain.examples import Pieces
from app.explain.failures import Failed
from app.explain.fence import shown
from app.explain.llm_explainers import LLMMethod, Written, gathered, write
from app.explain.llm_scorers import Judged, all_of, judged, questions
from app.explain.llm_scoring import Scoring, score
from app.explain.samples import SPLITS, Sampler
from app.explain.tally import of_verdicts
from app.store.explain_sources import ExplainSource, LatentFacts
from app.store.llm_bulk import ExplanationRow, prepare_partitions, save_explanation, save_scores

PROMOTED = 10
LABEL = 80  # characters
VAL = 10  # windows of either kind between which candidates are chosen

Latents = list[tuple[int, int]]  # (latent, sign)


@dataclass(frozen=True)
class Plan:
    """n: test windows of either kind; best_of: candidates, the best on val is kept; control: whether other latents'
    explanations are scored as well."""

    method: LLMMethod
    scorers: tuple[str, ...] = ("detection", "fuzzing")
    n: int = 50
    best_of: int = 1
    control: bool = True
    seed: int = 0


@dataclass(frozen=True)
class Subject:
    """What latents of one SAE are explained from."""

    source: ExplainSource
    facts: LatentFacts
    sampler: Sampler
    sample: str
    pieces: Pieces

    def largest(self, latent: int, sign: int) -> float:
        return max(float(self.facts.maxima[latent, int(sign < 0)]), 1e-30)

    def promoted(self, latent: int, sign: int) -> list[str]:
        ids = (self.facts.promoted if sign > 0 else self.facts.suppressed)[latent][:PROMOTED]
        return [text for i in ids.tolist() if i >= 0 for text in self.pieces([i])]

    def share(self, latent: int, sign: int) -> float:
        """Of test windows, those in which it is active."""
        windows = int((self.sampler.grid.split == SPLITS.index("test")).sum())
        return len(self.sampler.peaks(latent, sign, "test").window) / max(windows, 1)


@dataclass
class Watch:
    doing: Callable[[str], None] = lambda stage: None
    step: Callable[[int, int], None] = lambda done, total: None


@dataclass
class Outcome:
    """Latents by what became of them; ``failures``: by kind."""

    explained: int = 0
    scored: int = 0
    silent: int = 0  # without an active window to show
    failures: dict[str, int] = field(default_factory=dict)

    def failed(self, kind: str) -> None:
        self.failures[kind] = self.failures.get(kind, 0) + 1


def job_of(source: ExplainSource, endpoint: Endpoint, plan: Plan, latents: Latents) -> str:
    """What a run's spending is counted under: the same command is the same job."""
    parts = [source.slug, source.revision, endpoint.base_url.rstrip("/"), endpoint.model, asdict(plan), latents]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


async def run(
    subject: Subject, plan: Plan, latents: Latents, client: Client, scoring: Scoring, engine: Engine, watch: Watch
) -> Outcome:
    """
    Raises:
        EndpointRefused, EndpointSilent, BudgetSpent: what was done until then is saved.
        UnknownSAE: the SAE was removed meanwhile.
    """
    prepare_partitions(engine, subject.source.id)
    await client.probe()
    outcome, found = Outcome(), {}
    watch.doing("explaining")

    async def explain(one: tuple[int, int]) -> None:
        row = await _explained(subject, plan, one, client, outcome)
        if row is not None:
            found[one] = (save_explanation(engine, subject.source.id, row), row)

    await _each(latents, explain, client.pace.most, watch)
    texts = {one: row.text for one, (_, row) in found.items() if row.status == "ok"}
    outcome.explained = len(texts)
    if not plan.scorers:
        return outcome
    watch.doing("scoring")
    controls = shuffled(texts, subject.facts, plan.seed) if plan.control else {}

    async def judge(one: tuple[int, int]) -> None:
        of, rows = await score(subject, plan, one, texts[one], controls.get(one), client, scoring)
        save_scores(engine, subject.source.id, found[one][0], one[0], of, rows)
        outcome.scored += 1

    await _each(list(texts), judge, client.pace.most, watch)
    return outcome


async def _each(
    latents: Latents, work: Callable[[tuple[int, int]], Coroutine[Any, Any, None]], at_once: int, watch: Watch
) -> None:
    gate, done, stopped = asyncio.Semaphore(at_once), 0, False

    async def one(latent: tuple[int, int]) -> None:
        nonlocal done, stopped
        async with gate:
            if stopped:
                return
            try:
                await work(latent)
            except BaseException:
                stopped = True
                raise
        done += 1
        watch.step(done, len(latents))

    await all_of([one(latent) for latent in latents])


async def _explained(
    subject: Subject, plan: Plan, one: tuple[int, int], client: Client, outcome: Outcome
) -> ExplanationRow | None:
    latent, sign = one
    given = gathered(plan.method, subject.sampler, latent, sign)
    if not given.active:
        outcome.silent += 1
        return None
    ask = (client, given, subject.pieces, subject.promoted(latent, sign), latent, subject.largest(latent, sign))
    written: list[Written] = []
    failed: Failed | None = None
    for candidate in range(plan.best_of):
        try:
            written.append(await write(*ask, candidate))
        except Failed as error:
            outcome.failed(str(error.kind))
            failed = error
    parameters: dict[str, Any] = {
        "base_url": client.endpoint.base_url, "prompt_version": prompts.VERSION, "best_of": plan.best_of,
        "seed": plan.seed, "sample": subject.sample, "split": "train",
    }  # fmt: skip
    if not written:
        parameters["failure"] = str(failed)
        return ExplanationRow(
            latent, sign, plan.method, prompts.VERSION, client.endpoint.model, parameters, "", "", None, "failed"
        )
    best, scores = 0, None
    if len(written) > 1:
        scores = [await _on_val(subject, plan, one, text.text, client) for text in written]
        best = max(range(len(written)), key=lambda i: (-1.0 if scores[i] is None else scores[i], -i))
        parameters["candidates"] = [
            {"text": text.text, "val": value} for text, value in zip(written, scores, strict=True)
        ]
    chosen = written[best]
    parameters["examples"] = chosen.examples
    return ExplanationRow(
        latent, sign, plan.method, prompts.VERSION, client.endpoint.model, parameters, chosen.text,
        label_of(chosen.text), chosen.raw,
    )  # fmt: skip


async def _on_val(subject: Subject, plan: Plan, one: tuple[int, int], text: str, client: Client) -> float | None:
    windows = subject.sampler.windows(*one, "val", VAL)
    seed = (plan.seed, *_seed(one), 7)
    asked = questions("detection", windows, subject.pieces, seed)
    said: Judged = await judged(client, "detection", text, asked, one[0])
    whole = [question.window for question in asked]
    return of_verdicts(whole, said.predictions, said.probabilities, share=0.0, seed=seed).balanced_accuracy


def _seed(one: tuple[int, int]) -> tuple[int, int]:
    return one[0], int(one[1] < 0)


def label_of(text: str) -> str:
    """The text as cards show it: its first clause where that is short enough, else cut at a word."""
    text = text.rstrip(".")
    return text if len(text) <= LABEL else text[: LABEL - 1].rsplit(" ", 1)[0].rstrip(",;:( ") + "…"


def shuffled(texts: dict[tuple[int, int], str], facts: LatentFacts, seed: int) -> dict[tuple[int, int], str]:
    """Each latent's control: another latent's explanation, or, of one latent alone, another one's label."""
    ones = sorted(texts)
    order = np.random.default_rng([seed, len(ones)]).permutation(len(ones))
    if len(ones) > 1:
        # Along one cycle, so that none gets its own.
        return {ones[order[i]]: texts[ones[order[(i + 1) % len(ones)]]] for i in range(len(ones))}
    out = {}
    for one in ones:
        rng = np.random.default_rng([seed, *_seed(one)])
        others = [i for i in rng.permutation(len(facts.labels))[:200].tolist() if i != one[0] and facts.fired[i] > 0]
        labels = [shown([facts.labels[i][0]]).strip() for i in others]
        if named := [label for label in labels if label]:
            out[one] = named[0]
    return out
