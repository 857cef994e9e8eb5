"""A prompt's run and database rows to what the inspector shows."""

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from app import urls
from app.errors import BadRequest, UnknownSAE
from app.live.prompt import PromptRun, Reading
from app.live.ranking import Ranked, Scale, active, rank_apart
from app.store import queries as q
from app.subject.tokens import Vocabulary
from app.web import inspect_contexts as c
from app.web.state import State
from app.web.unvalidated import unvalidated


class Read(NamedTuple):
    """An SAE a prompt was read with; record is None where that revision is no longer here."""

    slug: str
    revision: str
    record: q.SAERecord | None
    pinned: bool

    @property
    def address(self) -> str:
        return f"{self.slug}@{self.revision}" if self.pinned else self.slug


_ATTENTION = re.compile(r"(?:o_proj|attn\.c_proj|attention\.dense):in")


def on_attention(reads: Sequence[str]) -> bool:
    """Whether an SAE that reads there reads attention outputs."""
    return len(reads) == 1 and _ATTENTION.search(reads[0]) is not None


async def result(
    state: State, run: PromptRun, saes: Sequence[Read], query: c.InspectState, text: str, *,
    chat: bool, subject: str, kept: str | None, vocabulary: Vocabulary | None,
) -> c.InspectResult:  # fmt: skip
    """
    Raises:
        BadRequest: the token asked for is not there, or a pin names no feature of these SAEs.
        UnknownSAE: one of them went meanwhile.
    """
    if query.token is not None and query.token >= len(run.pieces):
        raise BadRequest(
            f"The text has no token {query.token}; its tokens are 0 to {len(run.pieces) - 1}.", token=query.token
        )
    pins = {sae.address: pinned(query.pin, sae, saes) for sae in saes}
    among = await _labelled(state, run, saes, query)
    ranked: dict[str, list[Ranked]] = {}
    for sae in saes:
        scale = await _scale(state, sae, run.readings[sae.revision])
        ranked[sae.address] = await rank_apart(
            run.readings[sae.revision], scale, token=query.token, by=query.sort, top=query.top, densest=query.densest,
            among=among.get(sae.address),
        )  # fmt: skip
        mine = pins[sae.address]
        ranked[f"pinned {sae.address}"] = (
            await rank_apart(run.readings[sae.revision], scale, token=None, by="strength", top=len(mine), among=mine)
            if mine
            else []
        )
    summaries = await _summaries(state, saes, ranked, pins, run, query)
    return c.InspectResult(
        run=kept,
        subject=subject,
        text=text,
        chat=chat,
        tokens=run.pieces,
        prompt=tokens(run),
        token=query.token,
        expected=expected(run, query.token, vocabulary),
        sort=query.sort,
        saes=[_reading(sae, run, ranked, pins[sae.address], summaries, query, vocabulary) for sae in saes],
        milliseconds=round(1000 * run.seconds, 2),
        batch=run.batch,
    )


def pinned(pins: Sequence[str], sae: Read, saes: Sequence[Read]) -> list[int]:
    """The latents of ``sae`` among the pins, in their order.

    Raises:
        BadRequest: a pin that names no feature of ``saes``.
    """
    out: list[int] = []
    for pin in pins:
        name, _, number = pin.rpartition("/")
        if not number.isascii() or not number.isdigit() or len(number) > 18:
            raise BadRequest(f"{pin[:60]!r} pins no feature; write SLUG/NUMBER.", pin=pin[:60])
        if name and name not in {s.address for s in saes}:
            raise BadRequest(f"{pin[:60]!r} pins a feature of an SAE that this prompt is not read with.", pin=pin[:60])
        if name == sae.address or (not name and len(saes) == 1):
            last = sae.record.n_latents if sae.record is not None else 1 << 31
            if int(number) >= last:
                raise BadRequest(f"{sae.slug} has no feature {number}; its features are 0 to {last - 1}.", pin=pin[:60])
            if int(number) not in out:
                out.append(int(number))
    return out


def tokens(run: PromptRun) -> list[c.PromptToken]:
    plain = zip(run.pieces, run.token_ids, run.counted, strict=True)
    if run.predictions is None:
        unread = {"probability": None, "surprisal": None, "entropy": None}
        return [
            unvalidated(c.PromptToken, text=text, token_id=i, counted=counted, **unread) for text, i, counted in plain
        ]
    told = zip(run.predictions.logprob.tolist(), run.predictions.entropy.tolist(), strict=True)
    return [
        unvalidated(
            c.PromptToken,
            text=piece,
            token_id=i,
            counted=counted,
            probability=None if math.isnan(logprob) else math.exp(logprob),
            surprisal=None if math.isnan(logprob) else max(0.0, -logprob / math.log(2)),
            entropy=entropy / math.log(2),
        )
        for (piece, i, counted), (logprob, entropy) in zip(plain, told, strict=True)
    ]


def expected(run: PromptRun, token: int | None, vocabulary: Vocabulary | None) -> list[c.Expected] | None:
    """What the subject expects after ``token``, or after the last one."""
    if run.predictions is None or vocabulary is None:
        return None
    place = len(run.pieces) - 1 if token is None else token
    found = zip(run.predictions.top_ids[place].tolist(), run.predictions.top_logprobs[place].tolist(), strict=True)
    return [c.Expected(token=vocabulary.text(i), token_id=i, probability=math.exp(x)) for i, x in found]


async def _scale(state: State, sae: Read, reading: Reading) -> Scale:
    if sae.record is not None:
        return await state.scale(None, sae.record)
    n = int(reading.latent.max(initial=0)) + 1  # of a revision that is gone nothing is known
    return Scale(np.zeros(n, np.float32), np.full(n, 1e-4, np.float32))


async def _labelled(state: State, run: PromptRun, saes: Sequence[Read], query: c.InspectState) -> dict[str, set[int]]:
    """Where a label is asked for: which active latents have it, by SAE."""
    if not query.label:
        return {}
    there = {sae.record.id: sae.address for sae in saes if sae.record is not None}
    pairs = [
        (sae.record.id, index)
        for sae in saes
        if sae.record is not None
        for index in active(run.readings[sae.revision], query.token).tolist()
    ]
    out: dict[str, set[int]] = {sae.address: set() for sae in saes}
    async with state.reads.connect() as db:
        found = await q.labelled(db, pairs, query.label)
    for sae_id, index in found:
        out[there[sae_id]].add(index)
    return out


async def _summaries(
    state: State,
    saes: Sequence[Read],
    ranked: dict[str, list[Ranked]],
    pins: dict[str, list[int]],
    run: PromptRun,
    query: c.InspectState,
) -> dict[tuple[int, int], q.LatentSummary]:
    wanted = set()
    for sae in saes:
        if sae.record is None:
            continue
        wanted |= {(sae.record.id, r.index) for r in ranked[sae.address]}
        wanted |= {(sae.record.id, index) for index in pins[sae.address]}
        wanted |= {(sae.record.id, index) for index, _ in _taken(run.readings[sae.revision], query.token)}
    there = {sae.record.id: sae.record for sae in saes if sae.record is not None}
    found = await state.latents.get(wanted, {number: record.edition for number, record in there.items()})
    if gone := next((key for key in wanted if key not in found), None):
        raise UnknownSAE(
            f"{there[gone[0]].slug} was replaced or removed meanwhile; ask again.", sae=there[gone[0]].slug
        )
    return found


def _taken(reading: Reading, token: int | None) -> list[tuple[int, float]]:
    return (reading.steps or {}).get(token, []) if token is not None else []


def _reading(
    sae: Read, run: PromptRun, ranked: dict[str, list[Ranked]], pins: list[int],
    summaries: dict[tuple[int, int], q.LatentSummary], query: c.InspectState, vocabulary: Vocabulary | None,
) -> c.SAEReading:  # fmt: skip
    reading, record = run.readings[sae.revision], sae.record

    def summary(index: int) -> q.LatentSummary | None:
        return None if record is None else summaries[record.id, index]

    def shown(r: Ranked) -> c.PromptLatent:
        known = summary(r.index)
        return unvalidated(
            c.PromptLatent,
            index=r.index,
            label=known.label if known else "",
            label_source=known.label_source if known else "",
            activation=r.activation,
            share=r.share,
            strength=r.strength,
            position=r.position,
            count=r.count,
            first=r.first,
            density=known.density if known else 0.0,
            promoted=vocabulary.texts(known.promoted_ids[:5]) if known and vocabulary else [],
            activations=r.activations,
            url=urls.feature(sae.address, r.index) if record is not None else None,
            pin=f"{sae.address}/{r.index}",
        )

    fired = {r.index: r for r in ranked[f"pinned {sae.address}"]}
    silent = Ranked(0, 0.0, 0.0, 0.0, 0, 0, 0, [])
    steps = None
    if reading.steps is not None and query.token is not None:
        steps = [
            c.PursuitStep(
                index=index,
                label=known.label if (known := summary(index)) else "",
                residual=left,
                url=urls.feature(sae.address, index) if record is not None else None,
            )
            for index, left in _taken(reading, query.token)
        ]
    return c.SAEReading(
        sae=sae.slug,
        revision=sae.revision,
        address=sae.address,
        hook=", ".join(record.reads) if record is not None else "",
        kept=record is not None,
        attention=record is not None and on_attention(record.reads),
        active=len(active(reading, query.token)),
        latents=[shown(r) for r in ranked[sae.address]],
        pinned=[shown(fired.get(i, replace(silent, index=i))) for i in pins],
        error=None
        if reading.error is None
        else [None if math.isnan(x) else round(x, 4) for x in reading.error.tolist()],
        steps=steps,
    )
