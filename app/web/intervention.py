"""Interventions: a text without and with some latents edited."""

import json
import math
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import Annotated, NamedTuple, TypeVar

from fastapi import APIRouter, Body, Request
from fastapi.responses import Response

from app import urls
from app.errors import BadRequest, SaescopeError
from app.live.edit import Edit
from app.live.jobs import EffectJob, GenerateJob, Job, Shift
from app.store import queries as q
from app.subject.tokens import Vocabulary
from app.web import intervene_contexts as c
from app.web.api_examples import EFFECT, GENERATE
from app.web.gone import while_there
from app.web.inspection import check_unicode, chosen
from app.web.limits import about_tokens, client_of
from app.web.refusals import EDITING, Responses, refused
from app.web.routes import json_of, state_of
from app.web.state import target
from app.web.streamed import Streamed

A = TypeVar("A")
router = APIRouter(tags=["live"], responses=refused(*EDITING))

_STREAMED: Responses = {200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}}


class Prepared(NamedTuple):
    """Edits as the engine takes them, with the SAEs they are of and their features."""

    saes: list[q.SAERecord]
    edits: list[Edit]
    named: list[c.NamedEdit]


async def prepared(request: Request, bodies: Sequence[c.EditBody], others: Sequence[str] = ()) -> Prepared:
    """
    Raises:
        BadRequest, LatentOutOfRange, UnknownSAE: a feature that is none, or of another subject.
    """
    wanted = [named_feature(body.feature) for body in bodies]
    async with state_of(request).database.connect() as db:
        known = await q.list_saes(db)
        wanted = [(only_sae(name, known), index) for name, index in wanted]
        names = list(dict.fromkeys([*(name for name, _ in wanted), *others]))
        saes = await chosen(db, names, known)
        if not saes:
            raise BadRequest("There is no SAE here whose features could be edited; harvest one first.")
        by_name = dict(zip(names, saes, strict=True)) if names else {}
        rows = await q.get_summaries_of(db, [(by_name[name].id, index) for name, index in wanted])
    edits, named = [], []
    for body, (name, index) in zip(bodies, wanted, strict=True):
        sae = by_name[name]
        latent = rows.get((sae.id, index))
        if latent is None:
            raise BadRequest(
                f"{sae.slug} has no feature {index}; its features are 0 to {sae.n_latents - 1}.", feature=body.feature
            )
        peak = max(latent.maximum, -latent.minimum)
        by_peak = body.unit == "max" and body.kind in ("clamp", "add", "steer")
        amount = body.strength * peak if by_peak else body.strength
        amount = 0.0 if body.kind in ("ablate", "project") else amount
        places = frozenset(body.positions) if isinstance(body.positions, list) else body.positions
        edits.append(Edit(saes.index(sae), index, body.kind, amount, places))
        named.append(
            c.NamedEdit(
                feature=f"{sae.address}/{index}", label=latent.label, url=urls.feature(sae.address, index),
                kind=body.kind, strength=body.strength, where=_where(body.positions), amount=amount, max=peak,
            )
        )  # fmt: skip
    return Prepared(saes, edits, named)


def _where(positions: str | list[int]) -> str:
    return positions if isinstance(positions, str) else " ".join(map(str, positions))


def named_feature(text: str) -> tuple[str, int]:
    """The SAE and the number of SLUG/NUMBER; of a number alone, "" for the only SAE there is.

    Raises:
        BadRequest: it is none.
    """
    name, _, number = text.strip().rpartition("/")
    if not number.isascii() or not number.isdigit() or len(number) > 9:
        raise BadRequest(f"{text[:60]!r} names no feature; write SLUG/NUMBER.", feature=text[:60])
    return name, int(number)


def only_sae(name: str, known: Sequence[q.SAERecord]) -> str:
    """``name``, or, where it is empty, that of the only SAE there is.

    Raises:
        BadRequest: there are several, or none.
    """
    if not name and len(known) != 1:
        raise BadRequest("A number alone names a feature where there is one SAE; write SLUG/NUMBER.")
    return name or known[0].slug


async def first_of(request: Request, saes: Sequence[q.SAERecord], job: Job[A], cost: Callable[[A], int]) -> A:
    """The answer of a job that gives one, charged for by ``cost``."""

    async def first() -> A:
        async with aclosing(answers_of(request, saes, job, cost)) as answers:
            return await anext(answers)

    return await while_there(request, first())


async def answers_of(
    request: Request, saes: Sequence[q.SAERecord], job: Job[A], cost: Callable[[A], int]
) -> AsyncGenerator[A, None]:
    """``cost``: how many tokens were read or made for an answer."""
    state = state_of(request)
    targets = [target(sae, state.settings.home) for sae in saes]
    with state.limits.request(client_of(request)) as spend:
        async with aclosing(state.engine.run(targets, job)) as answers:
            async for answer in answers:
                spend(cost(answer))
                yield answer


async def run_effect(request: Request, body: c.EffectBody, given: Prepared) -> c.EffectResult:
    check_unicode(body.text)

    job = EffectJob(body.text, body.chat, given.edits, body.position, body.top, body.by)
    found = await first_of(request, given.saes, job, lambda done: 2 * len(done.tokens))
    vocabulary = await state_of(request).vocabulary(given.saes[0])
    return c.EffectResult(
        tokens=found.tokens,
        position=found.position,
        kl=[_finite(x) for x in found.kl],
        loss_change=[None, *map(_finite, found.loss_change)],
        mean_loss_change=found.mean_loss_change,
        raised=[_shift(s, vocabulary) for s in found.raised],
        lowered=[_shift(s, vocabulary) for s in found.lowered],
    )


def _finite(value: float) -> float:
    return value if math.isfinite(value) else 0.0


def _shift(shift: Shift, vocabulary: Vocabulary) -> c.Shift:
    return c.Shift(
        token=vocabulary.text(shift.token), token_id=shift.token, clean_logit=shift.clean_logit,
        edited_logit=shift.edited_logit, clean_probability=shift.clean_probability,
        edited_probability=shift.edited_probability,
    )  # fmt: skip


async def steps_of(request: Request, body: c.GenerateBody, given: Prepared) -> AsyncGenerator[c.GenerateStep, None]:
    """Each new token as it is made."""
    check_unicode(body.text)
    vocabulary = await state_of(request).vocabulary(given.saes[0])

    job = GenerateJob(
        body.text, body.chat, given.edits, body.max_new, body.temperature, body.top_p, body.seed
    )  # fmt: skip
    sides: tuple[list[int], list[int]] = ([], [])
    shown = ["", ""]
    prompt = about_tokens(body.text)
    async for step in answers_of(request, given.saes, job, lambda step: 1 if step.number else 1 + prompt):
        tokens: list[c.GeneratedToken | None] = []
        for side, (token, logprob) in enumerate(
            ((step.baseline, step.baseline_logprob), (step.edited, step.edited_logprob))
        ):
            if token is None:
                tokens.append(None)
                continue
            sides[side].append(token)
            text = "".join(vocabulary.pieces(sides[side])).rstrip("�")  # of a character whose end is still to come
            tokens.append(c.GeneratedToken(text=text[len(shown[side]) :], token_id=token, logprob=logprob))
            shown[side] = text
        yield c.GenerateStep(number=step.number, baseline=tokens[0], edited=tokens[1], kl=step.kl)


async def run_generate(request: Request, body: c.GenerateBody, given: Prepared) -> c.GenerateResult:
    async def whole() -> list[c.GenerateStep]:
        return [step async for step in steps_of(request, body, given)]

    steps = await while_there(request, whole())
    kls = [step.kl for step in steps if step.kl is not None]
    return c.GenerateResult(
        baseline="".join(s.baseline.text for s in steps if s.baseline),
        edited="".join(s.edited.text for s in steps if s.edited),
        steps=steps,
        mean_kl=sum(kls) / len(kls) if kls else None,
    )


def check_new(request: Request, asked: int) -> None:
    most = state_of(request).settings.max_new_tokens
    if asked > most:
        raise BadRequest(f"max_new is {asked:,}; a text goes on for at most {most:,} tokens here.", limit=most)


@router.post("/api/effect", response_model=c.EffectResult)
async def api_effect(request: Request, body: Annotated[c.EffectBody, Body(openapi_examples=EFFECT)]) -> Response:
    """What edits of latents do to the subject's predictions on a text: KL and loss by token, the most changed ones."""
    return json_of(await run_effect(request, body, await prepared(request, body.edits)))


@router.post("/api/generate", response_model=c.GenerateResult, responses=_STREAMED)
async def api_generate(request: Request, body: Annotated[c.GenerateBody, Body(openapi_examples=GENERATE)]) -> Response:
    """A text goes on without and with edits of latents. With ``stream``, events ``step`` (a GenerateStep) and, at the
    end, ``done`` or ``error``."""
    check_new(request, body.max_new)
    given = await prepared(request, body.edits)
    if not body.stream:
        return json_of(await run_generate(request, body, given))
    steps = steps_of(request, body, given)

    async def begin() -> c.GenerateStep:
        return await anext(steps)

    first = await while_there(request, begin())  # so that a refusal is one, and no stream that breaks off

    async def events() -> AsyncGenerator[str, None]:
        yield _event("step", first.model_dump_json())
        try:
            async for step in steps:
                yield _event("step", step.model_dump_json())
            yield _event("done", "{}")
        except SaescopeError as error:
            yield _event("error", json.dumps(error.as_json()))
        finally:
            await steps.aclose()

    return Streamed(events(), media_type="text/event-stream", headers={"x-accel-buffering": "no"})


def _event(name: str, data: str) -> str:
    return f"event: {name}\ndata: {data}\n\n"
