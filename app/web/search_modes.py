"""Search other than by meaning: tokens, what fires on a text, phrases in examples, directions."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from fastapi import Request

from app.errors import BadRequest, DecoderUnavailable
from app.live.directions import nearest
from app.live.ranking import active, rank
from app.store import queries as q
from app.store.decoders import Decoder
from app.store.embeddings import Standing
from app.store.search import Key
from app.store.search_hits import TOKENS, Wanted, get_hits, kept_latents, with_tokens
from app.store.search_phrases import EXAMPLES, PLACES, get_lines, with_phrase
from app.subject.phrases import variants
from app.web import build as web_build
from app.web import search_build as build
from app.web import search_form as form
from app.web.browse_form import LONGEST, reading_as
from app.web.inspection import read
from app.web.routes import state_of
from app.web.search_contexts import SearchQuery, SearchResult


@dataclass(frozen=True)
class Scope:
    """What is asked, of which SAEs; known: the newest revision of every one; told: of those asked for, by id."""

    request: Request
    query: SearchQuery
    saes: list[q.SAERecord]
    known: list[q.SAERecord]
    told: dict[int, Standing]


async def find_tokens(scope: Scope) -> SearchResult:
    """Latents that fire on the token or promote it.

    Raises:
        BadRequest: no token reads so, or it is too long.
    """
    state, query = state_of(scope.request), scope.query
    typed = form.check_short(query) and query.q
    if len(typed) > LONGEST:
        raise BadRequest(f"No token is longer than {LONGEST} characters.", field="q")
    meant, told = [], []
    for some in by_subject(scope.saes):
        found = reading_as(typed, await state.vocabulary(some[0])) or reading_as(
            typed.strip(), await state.vocabulary(some[0])
        )
        if found:
            meant.append(([sae.id for sae in some], [token.token_id for token in found]))
            told += found
    if not meant:
        subjects = ", ".join(sorted({sae.subject for sae in scope.saes}))
        raise BadRequest(
            f"No token of {subjects} reads {typed[:40]!r}; words may be split: try a beginning, or mode examples.",
            field="q",
        )
    async with state.database.connect() as db:
        hits = await with_tokens(db, form.kept(query, scope.saes), meant, query.after, query.top + 1)
        shown = hits[: query.top]
        records = await get_hits(db, [Wanted((one.sae_id, one.latent)) for one in shown])
    by_id = {sae.id: sae for sae in scope.saes}
    found_count = hits[0].found if hits else 0
    return SearchResult(
        found=found_count,
        more=found_count >= TOKENS,
        notes=[],
        meant=list({token.token_id: token for token in told}.values()),
        items=[build.by_token(by_id[one.sae_id], records[one.sae_id, one.latent], one) for one in shown],
        next=_next(query, hits),
    )


async def find_text(scope: Scope) -> SearchResult:
    """Latents that fire on a text, by strength.

    Raises:
        as app.web.inspection.read.
    """
    state, query, sae = state_of(scope.request), scope.query, scope.saes[0]
    kept = form.kept(query, [sae])
    run = await read(scope.request, [sae], query.q, chat=False, predict=False)
    reading = run.readings[sae.revision]
    signs = {1: reading.value > 0, -1: reading.value < 0}
    firing = active(reading) if kept.sign is None else np.unique(reading.latent[signs[kept.sign]])
    async with state.database.connect() as db:
        among: list[int] | None = None
        if kept:
            among = (await kept_latents(db, kept, firing.tolist())).get(sae.id, [])
        scale = await state.scale(db, sae)
        ranked = rank(reading, scale, token=None, by="strength", top=query.after + query.top + 1, among=among)
        hits = ranked[query.after :]
        shown = hits[: query.top]
        records = await get_hits(db, [Wanted((sae.id, one.index)) for one in shown])
    others = [] if len(scope.saes) == 1 else [f"Read with {sae.address}; choose another SAE to read with that one."]
    return SearchResult(
        found=len(firing) if among is None else len(among),
        more=False,
        notes=others,
        read=run.pieces,
        items=[build.by_text(sae, records[sae.id, one.index], one) for one in shown],
        next=_next(query, hits),
    )


async def find_phrase(scope: Scope) -> SearchResult:
    """Latents whose examples hold a phrase.

    Raises:
        BadRequest: it is too long. SubjectUnavailable: the tokenizer is gone.
    """
    state, query = state_of(scope.request), scope.query
    asked = form.check_short(query)
    groups = by_subject(scope.saes)
    saes = groups[0]
    notes = [f"Only SAEs of {saes[0].subject} were searched; choose another to search its examples."] * (
        len(groups) > 1
    )
    phrases = await asyncio.to_thread(variants, state.settings.home / saes[0].subject_path, asked)
    vocabulary = await state.vocabulary(saes[0])
    async with state.database.connect() as db:
        hits = await with_phrase(db, form.kept(query, saes), phrases, query.after, query.top + 1) if phrases else []
        shown = hits[: query.top]
        lines = await get_lines(db, shown)
        records = await get_hits(db, [Wanted((one.sae_id, one.latent)) for one in shown])
    by_id = {sae.id: sae for sae in saes}
    more = bool(hits) and (hits[0].places >= PLACES or hits[0].examples >= EXAMPLES)
    if more:
        notes.append(f"The phrase is so frequent that only its first {PLACES:,} places were looked at.")
    return SearchResult(
        found=hits[0].found if hits else 0,
        more=more,
        notes=notes,
        items=[
            build.by_phrase(by_id[one.sae_id], records[key], one, lines[key], vocabulary)
            for one in shown
            if (key := (one.sae_id, one.latent)) in lines
        ],
        next=_next(query, hits),
    )


async def find_direction(scope: Scope) -> SearchResult:
    """Latents whose decoder rows point where a direction does: exact cosines.

    Raises:
        BadRequest, UnknownSAE, LatentOutOfRange: it is no direction, or of a width no decoder has.
        DecoderUnavailable: the one decoder there is cannot be read.
    """
    state, query = state_of(scope.request), scope.query
    saes, own, notes = scope.saes, None, []
    named = form.feature_named(query.q)
    if named is not None:
        async with state.database.connect() as db:
            source = await _named(db, scope, named[0])
        if named[1] >= source.n_latents:
            raise web_build.out_of_range(source, named[1])
        own = (source.id, named[1])
        saes = [sae for sae in saes if (sae.subject_path, sae.writes) == (source.subject_path, source.writes)]
        row = await asyncio.to_thread(lambda: _decoder(scope, source).rows(named[1], named[1] + 1)[0])
        if not row.any():
            raise BadRequest(
                f"The decoder row of {query.q.strip()[:80]} is all zeros, so it has no direction.", field="q"
            )
    else:
        row = form.direction(query.q)
    kept = form.kept(query, saes)
    among: dict[int, list[int]] | None = None
    if kept:
        async with state.database.connect() as db:
            among = await kept_latents(db, kept)
    top = query.after + query.top + 2
    found, widths, gone = await asyncio.to_thread(_nearest, scope, saes, row, top, among)
    if not found and gone:
        raise DecoderUnavailable(gone[0])
    if not widths & {len(row)}:
        told = ", ".join(map(str, sorted(widths))) or "none"
        raise BadRequest(f"The direction has {len(row)} numbers; the decoders searched have {told}.", field="q")
    notes += gone
    hits = [one for one in found if one[0] != own][query.after :]
    shown = hits[: query.top]
    async with state.database.connect() as db:
        records = await get_hits(db, [Wanted(key) for key, _ in shown])
    by_id = {sae.id: sae for sae in saes}
    return SearchResult(
        found=None,
        more=False,
        notes=notes,
        items=[build.by_direction(by_id[key[0]], records[key], cosine) for key, cosine in shown if key in records],
        next=_next(query, hits),
    )


async def _named(db: Any, scope: Scope, address: str) -> q.SAERecord:
    for sae in (*scope.saes, *scope.known):
        if address in (sae.slug, f"{sae.slug}@{sae.revision}"):
            return sae
    return await q.get_sae(db, address)


def _decoder(scope: Scope, sae: q.SAERecord) -> Decoder:
    return Decoder(state_of(scope.request).settings.home / sae.path, sae.n_latents)


def _nearest(
    scope: Scope, saes: Sequence[q.SAERecord], row: npt.NDArray[np.float32], top: int,
    among: dict[int, list[int]] | None,
) -> tuple[list[tuple[Key, float]], set[int], list[str]]:  # fmt: skip
    """The nearest of all SAEs, the widths of their decoders, and why some could not be read."""
    found: list[tuple[Key, float]] = []
    widths, gone = set(), []
    for sae in saes:
        try:
            decoder = _decoder(scope, sae)
        except DecoderUnavailable as error:
            gone.append(error.message)
            continue
        widths.add(decoder.d)
        if decoder.d == len(row):
            some = None if among is None else np.array(among.get(sae.id, []), np.int64)
            found += [((sae.id, i), cosine) for i, cosine in nearest(decoder, sae.n_latents, row, top, some)]
    return sorted(found, key=lambda one: (-one[1], one[0]))[:top], widths, gone


def by_subject(saes: Sequence[q.SAERecord]) -> list[list[q.SAERecord]]:
    groups: dict[str, list[q.SAERecord]] = {}
    for sae in saes:
        groups.setdefault(sae.subject_path, []).append(sae)
    return list(groups.values())


def _next(query: SearchQuery, hits: Sequence[Any]) -> int | None:
    return query.after + query.top if len(hits) > query.top else None
