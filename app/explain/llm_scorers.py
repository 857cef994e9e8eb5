"""Scores by a language model that sees an explanation and test windows, never the activations."""

import asyncio
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np

from app.explain import prompts
from app.explain.answers import read_answers, read_verdicts
from app.explain.client import Ask, Client
from app.explain.examples import Pieces, bare, highlighted, shuffled_marks
from app.explain.failures import Failed, Failure
from app.explain.fence import shown
from app.explain.samples import Floats, Window

T = TypeVar("T")
Judge = Literal["detection", "fuzzing"]
TOGETHER = 5  # texts in one request
SIMULATED = 5  # windows of either kind


@dataclass(frozen=True)
class Question:
    """A window as a scorer sees it."""

    window: Window
    text: str


class Judged(NamedTuple):
    """One list an element a question: what was said (None: no answer), the probability where it was told, and why there
    is no answer."""

    predictions: list[bool | None]
    probabilities: list[float | None]
    errors: list[str | None]


def questions(judge: Judge, windows: Sequence[Window], pieces: Pieces, seed: Sequence[int]) -> list[Question]:
    """In an order that tells nothing."""
    rng = np.random.default_rng([*seed, 1])
    if judge == "detection":
        made = [Question(one, bare(one, pieces)) for one in windows]
    else:
        active, quiet = [one for one in windows if one.active], [one for one in windows if not one.active]
        made = [Question(one, highlighted(one, pieces)) for one in active]
        for one, marked in zip(quiet, shuffled_marks(quiet, active, [*seed, 2]), strict=True):
            if marked is not None:
                made.append(Question(one, highlighted(one, pieces, marked)))
    return [made[i] for i in rng.permutation(len(made))]


def judge_ask(judge: Judge, explanation: str, texts: Sequence[str], latent: int) -> Ask:
    wording = prompts.detect if judge == "detection" else prompts.fuzz
    room = prompts.ROOM + prompts.VERDICT_TOKENS * len(texts)
    return Ask(
        wording(explanation, texts), prompts.VERSION, judge, room, latent=latent, schema=prompts.VERDICTS, logprobs=True
    )


async def judged(
    client: Client, judge: Judge, explanation: str, asked: Sequence[Question], latent: int, together: int = TOGETHER
) -> Judged:
    """
    Raises:
        EndpointRefused, EndpointSilent, BudgetSpent: there is no use in asking more.
    """
    batches = [asked[i : i + together] for i in range(0, len(asked), together)]
    texts = [[one.text for one in batch] for batch in batches]
    done = await all_of([_batch(client, judge, explanation, batch, latent) for batch in texts])
    return Judged(*([one for part in parts for one in part] for parts in zip(*done, strict=True))) if done else NOTHING


NOTHING = Judged([], [], [])


async def _batch(client: Client, judge: Judge, explanation: str, texts: list[str], latent: int) -> Judged:
    try:
        reply = await client.ask(judge_ask(judge, explanation, texts, latent))
        said, told = read_verdicts(reply, len(texts))
    except Failed as failed:
        if failed.kind is Failure.too_long and len(texts) > 1:
            half = len(texts) // 2
            parts = [await _batch(client, judge, explanation, some, latent) for some in (texts[:half], texts[half:])]
            return Judged(*(first + second for first, second in zip(*parts, strict=True)))
        n = len(texts)
        return Judged([None] * n, [None] * n, [str(failed.kind)] * n)
    return Judged(list(said), list(told) if told else [None] * len(texts), [None] * len(texts))


class Simulated(NamedTuple):
    """What was predicted for each token of each window, None for a window without an answer; errors: by window."""

    values: list[Floats | None]
    errors: list[str | None]


def simulated_windows(windows: Sequence[Window]) -> list[Window]:
    """A few of either kind, from all over, active ones first."""
    active, quiet = [one for one in windows if one.active], [one for one in windows if not one.active]
    return [one for some in (active, quiet) for one in some[:: max(1, len(some) // SIMULATED)][:SIMULATED]]


def simulate_ask(explanation: str, window: Window, pieces: Pieces, latent: int) -> Ask:
    tokens = [shown([piece]) for piece in pieces(window.token_ids.tolist())]
    room = prompts.ROOM + prompts.VALUE_TOKENS * len(tokens)
    return Ask(
        prompts.simulate(explanation, tokens), prompts.VERSION, "simulation", room, latent=latent, schema=prompts.VALUES
    )


async def simulated(
    client: Client, explanation: str, windows: Sequence[Window], pieces: Pieces, latent: int
) -> Simulated:
    """Activations from 0 to 10 for each token (Bills et al. 2023, "Language models can explain neurons in language
    models", all tokens asked at once).

    Raises:
        EndpointRefused, EndpointSilent, BudgetSpent: there is no use in asking more.
    """

    async def one(window: Window) -> tuple[Floats | None, str | None]:
        try:
            reply = await client.ask(simulate_ask(explanation, window, pieces, latent))
            values = read_answers(reply.text, len(window.token_ids), "value", int)
        except Failed as failed:
            return None, str(failed.kind)
        return np.clip(np.array(values, np.float32), 0, 10), None

    done = await all_of([one(window) for window in windows])
    return Simulated([values for values, _ in done], [error for _, error in done])


async def all_of(coroutines: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """The results in order. Where some raise, the others are finished first, for what is under way is paid for."""
    done = await asyncio.gather(*coroutines, return_exceptions=True)
    out: list[T] = []
    for one in done:
        if isinstance(one, BaseException):
            raise one
        out.append(one)
    return out
