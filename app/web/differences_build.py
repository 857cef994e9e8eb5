"""Texts that were read together and database rows to what the comparisons show."""

import asyncio
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from sqlalchemy.ext.asyncio import AsyncConnection

from app import urls
from app.errors import BadRequest
from app.live.alignment import Column, align
from app.live.differences import Contrasted, Difference, Side, contrast, differences
from app.live.prompt import Reading
from app.live.ranking import Scale, rows_of
from app.store import queries as q
from app.web import differences_contexts as c
from app.web.inspect_build import Read, pinned, tokens
from app.web.state import State
from app.web.together import Source, Together

Summaries = dict[tuple[int, int], q.LatentSummary]


class _Told(NamedTuple):
    """What is said of a latent beside its activations."""

    label: str
    label_source: str
    density: float
    url: str | None
    pin: str


async def two_prompts(
    state: State, db: AsyncConnection, found: Together, query: c.TwoPromptsQuery | c.TwoPromptsBody
) -> c.TwoPromptsResult:
    """
    Raises:
        BadRequest: the place asked for is not there, or a pin names no feature of these SAEs.
    """
    first, second = (source.run for source in found.sources)
    columns = await asyncio.to_thread(align, first.token_ids, second.token_ids)
    if query.at is not None and query.at >= len(columns):
        raise BadRequest(
            f"The texts have no place {query.at} when lined up; the places are 0 to {len(columns) - 1}.", at=query.at
        )
    pins = {sae.address: pinned(query.pin, sae, found.saes) for sae in found.saes}
    among = await _labelled(db, found, found.sources, query.label)
    made = {}
    for sae in found.saes:
        one, other = (run.readings[sae.revision] for run in (first, second))
        made[sae.address] = differences(
            one, other, await _scale(state, db, sae, (one, other)),
            scope=None if query.at is None else _scope(columns[query.at]), top=query.top, densest=query.densest,
            among=among.get(sae.address), chosen=pins[sae.address],
        )  # fmt: skip
    shown = {address: [*d.only_first, *d.only_second, *d.both, *d.chosen] for address, d in made.items()}
    summaries = await _summaries(db, found.saes, {address: [d.index for d in some] for address, some in shown.items()})
    out = []
    for sae in found.saes:
        d = made[sae.address]
        rows = [rows_of(run.readings[sae.revision], {x.index for x in shown[sae.address]}) for run in (first, second)]

        def latents(some: Iterable[Difference], sae: Read = sae, rows: list[_Rows] = rows) -> list[c.DifferentLatent]:
            return [_different(x, sae, rows, summaries) for x in some]

        out.append(
            c.SAEDifferences(
                **_about(sae), only_first_count=d.counts[0], only_second_count=d.counts[1], both_count=d.counts[2],
                only_first=latents(d.only_first), only_second=latents(d.only_second), both=latents(d.both),
                pinned=latents(d.chosen),
            )
        )  # fmt: skip
    return c.TwoPromptsResult(
        subject=found.subject, first=_read(found.sources[0]), second=_read(found.sources[1]),
        columns=[c.AlignedColumn(kind=x.kind, first=x.first, second=x.second) for x in columns], at=query.at, saes=out,
        milliseconds=round(1000 * max(first.seconds, second.seconds), 2), batch=max(first.batch, second.batch),
    )  # fmt: skip


async def contrasted(
    state: State, db: AsyncConnection, found: Together, n_here: int, query: c.ContrastQuery | c.ContrastBody
) -> c.ContrastResult:
    """The first ``n_here`` texts are the first side."""
    here, there = found.sources[:n_here], found.sources[n_here:]
    among = await _labelled(db, found, here, query.label)
    made = {}
    for sae in found.saes:
        ours, theirs = ([source.run.readings[sae.revision] for source in side] for side in (here, there))
        made[sae.address] = contrast(
            ours, theirs, await _scale(state, db, sae, [*ours, *theirs]), every=query.on == "every",
            threshold=query.over, top=query.top, densest=query.densest, among=among.get(sae.address),
        )  # fmt: skip
    wanted = {address: [x.index for x in some] for address, (some, _) in made.items()}
    summaries = await _summaries(db, found.saes, wanted)
    out = []
    for sae in found.saes:
        some, count = made[sae.address]
        rows = [rows_of(one.run.readings[sae.revision], set(wanted[sae.address])) for one in found.sources]
        latents = [_contrast_latent(x, sae, rows, summaries) for x in some]
        out.append(c.SAEContrast(**_about(sae), found=count, latents=latents))
    return c.ContrastResult(
        subject=found.subject, here=[_read(one) for one in here], there=[_read(one) for one in there], on=query.on,
        over=query.over, saes=out, batch=max(one.run.batch for one in found.sources),
    )  # fmt: skip


_Rows = dict[int, list[tuple[int, float]]]


def _scope(column: Column) -> tuple[range, range]:
    one, other = (range(0) if place is None else range(place, place + 1) for place in (column.first, column.second))
    return one, other


def _read(source: Source) -> c.ReadPrompt:
    return c.ReadPrompt(text=source.text, chat=source.chat, run=source.kept, tokens=tokens(source.run))


def _about(sae: Read) -> dict[str, object]:
    hook = ", ".join(sae.record.reads) if sae.record is not None else ""
    return {
        "sae": sae.slug, "revision": sae.revision, "address": sae.address, "hook": hook, "kept": sae.record is not None,
    }  # fmt: skip


def _told(sae: Read, index: int, summaries: Summaries) -> _Told:
    pin = f"{sae.address}/{index}"
    if sae.record is None:
        return _Told("", "", 0.0, None, pin)
    known = summaries[sae.record.id, index]
    return _Told(known.label, known.label_source, known.density, urls.feature(sae.address, index), pin)


def _on(side: Side, row: list[tuple[int, float]]) -> c.LatentOn:
    return c.LatentOn(activation=side.activation, share=side.share, position=side.position, activations=row)


def _peak(sae: Read, index: int, summaries: Summaries, rows: Sequence[_Rows]) -> float:
    """max|a| in the harvest, or, where nothing is known of it, on the texts."""
    known = None if sae.record is None else summaries[sae.record.id, index]
    peak = 0.0 if known is None else max(known.maximum, -known.minimum)
    return peak or max((abs(value) for row in rows for _, value in row[index]), default=0.0)


def _different(x: Difference, sae: Read, rows: Sequence[_Rows], summaries: Summaries) -> c.DifferentLatent:
    return c.DifferentLatent(
        index=x.index, **_told(sae, x.index, summaries)._asdict(), max=_peak(sae, x.index, summaries, rows),
        difference=x.difference, first=_on(x.first, rows[0][x.index]), second=_on(x.second, rows[1][x.index]),
    )  # fmt: skip


def _contrast_latent(x: Contrasted, sae: Read, rows: Sequence[_Rows], summaries: Summaries) -> c.ContrastLatent:
    sides = [_on(side, row[x.index]) for side, row in zip([*x.here, *x.there], rows, strict=True)]
    return c.ContrastLatent(
        index=x.index, **_told(sae, x.index, summaries)._asdict(), max=_peak(sae, x.index, summaries, rows),
        strength=x.strength, count=x.count, here=sides[: len(x.here)], there=sides[len(x.here) :],
    )  # fmt: skip


async def _scale(state: State, db: AsyncConnection, sae: Read, readings: Sequence[Reading]) -> Scale:
    if sae.record is not None:
        return await state.scale(db, sae.record)
    n = max(int(reading.latent.max(initial=0)) for reading in readings) + 1  # of one that is gone nothing is known
    return Scale(np.zeros(n, np.float32), np.full(n, 1e-4, np.float32))


async def _labelled(db: AsyncConnection, found: Together, sources: Sequence[Source], label: str) -> dict[str, set[int]]:
    """Where a label is asked for: which latents active on ``sources`` have it, by SAE."""
    if not label:
        return {}
    there = {sae.record.id: sae for sae in found.saes if sae.record is not None}
    pairs = [
        (number, int(index))
        for number, sae in there.items()
        for index in np.unique(np.concatenate([one.run.readings[sae.revision].latent for one in sources]))
    ]
    out: dict[str, set[int]] = {sae.address: set() for sae in found.saes}
    for number, index in await q.labelled(db, pairs, label):
        out[there[number].address].add(index)
    return out


async def _summaries(db: AsyncConnection, saes: Sequence[Read], wanted: dict[str, list[int]]) -> Summaries:
    pairs = {(sae.record.id, i) for sae in saes if sae.record is not None for i in wanted[sae.address]}
    return await q.get_summaries_of(db, sorted(pairs))
