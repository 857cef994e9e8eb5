"""What the engine does for a job, a step at a time."""

from collections.abc import Callable, Iterator
from typing import Any

from app.errors import BadRequest
from app.live.attribute import Attribution, attribute
from app.live.effect import effect
from app.live.forward import Probe
from app.live.generate import generate, likeliest
from app.live.head_split import head_split
from app.live.jobs import (
    AttributeAnswer,
    Attributed,
    AttributedWhole,
    AttributeJob,
    EffectAnswer,
    EffectJob,
    GenerateJob,
    HeadsAnswer,
    HeadsJob,
    Job,
    ListJob,
    Step,
)
from app.live.listing import listing
from app.live.metric import Metric
from app.subject.load import Subject

Tokens = Callable[..., list[int]]  # (subject, text, *, chat): a chat is to be answered


def steps_of(job: Job[Any], tokens: Tokens) -> Callable[[Subject, list[Probe]], Iterator[Any]]:
    """
    Raises:
        TypeError: there is no such job.
    """

    def steps(subject: Subject, probes: list[Probe]) -> Iterator[Any]:
        match job:
            case GenerateJob():
                yield from _generate(job, tokens, subject, probes)
            case EffectJob():
                yield _effect(job, tokens, subject, probes)
            case AttributeJob():
                yield _attribute(job, tokens, subject, probes)
            case HeadsJob():
                yield _heads(job, subject, probes)
            case ListJob():
                yield listing(subject, job.query)
            case _:
                raise TypeError(f"there is no job {type(job).__name__}")

    return steps


def _generate(job: GenerateJob, tokens: Tokens, subject: Subject, probes: list[Probe]) -> Iterator[Step]:
    ends = subject.tokenizer.eos_token_id
    return generate(
        subject.model, [probe.sae for probe in probes], job.edits, tokens(subject, job.text, chat=job.chat),
        special_ids=subject.special_ids, eos_ids=[] if ends is None else [int(ends)], max_new=job.max_new,
        temperature=job.temperature, top_p=job.top_p, seed=job.seed,
    )  # fmt: skip


def _heads(job: HeadsJob, subject: Subject, probes: list[Probe]) -> HeadsAnswer:
    found = head_split(subject.model, probes[0].sae, job.ids, job.position, job.latent)
    return HeadsAnswer(found.pieces.tolist(), found.bias, found.pre_act)


def _effect(job: EffectJob, tokens: Tokens, subject: Subject, probes: list[Probe]) -> EffectAnswer:
    ids = tokens(subject, job.text, chat=job.chat)
    found = effect(
        subject.model, [probe.sae for probe in probes], job.edits, ids, special_ids=subject.special_ids,
        position=job.position, top=job.top, by=job.by,
    )  # fmt: skip
    return EffectAnswer(
        subject.vocabulary.pieces(ids), found.position, found.kl.tolist(),
        (found.edited_loss - found.clean_loss).tolist(), found.mean_loss_change, found.raised, found.lowered,
    )  # fmt: skip


def _attribute(job: AttributeJob, tokens: Tokens, subject: Subject, probes: list[Probe]) -> AttributeAnswer:
    ids = tokens(subject, job.text, chat=job.chat)
    position = len(ids) - 1 if job.position is None else job.position
    if position >= len(ids):
        raise BadRequest(f"The text has no token {position}; its tokens are 0 to {len(ids) - 1}.", token=position)
    token = job.token
    if token is None:
        token = likeliest(subject.model, ids[: position + 1])
    metric = Metric(
        position, _token(subject, token), None if job.against is None else _token(subject, job.against), job.kind
    )
    found = attribute(
        subject.model, [probe.sae for probe in probes], ids, metric, special_ids=subject.special_ids, top=job.top
    )
    wholes = [
        AttributedWhole(
            float(one.latent_act_grad.sum()), one.error_act_grad, one.bias_act_grad, one.exact_latents, one.exact_all
        )
        for one in found.saes
    ]
    return AttributeAnswer(
        subject.vocabulary.pieces(ids), metric.position, metric.token, metric.against, found.metric,
        _attributed(found), wholes,
    )  # fmt: skip


def _attributed(found: Attribution) -> list[Attributed]:
    out = []
    for x in found.top:
        one = found.saes[x.sae]
        mine = one.latent == x.latent
        places = zip(one.position[mine].tolist(), one.value[mine].tolist(), one.act_grad[mine].tolist(), strict=True)
        direct = None if one.direct is None else float(one.direct[mine].sum())
        out.append(Attributed(x.sae, x.latent, x.act_grad, x.exact, direct, list(places)))
    return out


def _token(subject: Subject, asked: int | str) -> int:
    """The id, or that of the text where it is one token, with a space before it or else as it is.

    Raises:
        BadRequest: there is no such token.
    """
    if isinstance(asked, int):
        if not 0 <= asked < subject.n_tokens:
            raise BadRequest(f"There is no token {asked}; ids are 0 to {subject.n_tokens - 1}.", token=asked)
        return asked
    for text in (f" {asked}", asked):
        ids = subject.encode(text)
        if len(ids) == 1:
            return ids[0]
    if asked.isascii() and asked.isdigit() and int(asked) < subject.n_tokens:
        return int(asked)
    raise BadRequest(f"{asked[:60]!r} is not one token of the subject; give a token or its id.", token=asked[:60])
