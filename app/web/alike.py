"""Contexts of the corpus that look like a prompt: the page, its twin, and POST /api/inspect/contexts."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Body, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from app import urls
from app.errors import BadRequest, ContextsMissing, UnknownInspection, UnknownSAE
from app.live.alike import Alike, Vector, most_alike, vector
from app.live.packed import unpack
from app.live.prompt import PromptRun
from app.store import inspections
from app.store import queries as q
from app.store.contexts import ContextRecord, get_contexts, get_postings
from app.subject.tokens import Vocabulary
from app.web import alike_contexts as c
from app.web.api_examples import CONTEXTS
from app.web.forms import filled, form_fields
from app.web.heat import SPECIAL
from app.web.inspection import LONGEST_URL, chosen, keep, read, tidy
from app.web.refusals import READING, refused
from app.web.routes import html, json_of, state_of

router = APIRouter(tags=["live"], responses=refused(*READING, UnknownInspection, ContextsMissing))
Asked = Annotated[c.AlikeQuery, Query()]


def scope(run: PromptRun, asked: c.AlikeScope) -> tuple[int, int]:
    """The first and last position that are compared.

    Raises:
        BadRequest: they are not there.
    """
    last = len(run.pieces) - 1
    if asked.to is not None and asked.token is None:
        raise BadRequest("Say with 'token' where the tokens up to 'to' begin.", to=asked.to)
    if asked.token is None:
        return 0, last
    to = asked.token if asked.to is None else asked.to
    for place in (asked.token, to):
        if place > last:
            raise BadRequest(f"The text has no token {place}; its tokens are 0 to {last}.", token=place)
    if to < asked.token:
        raise BadRequest(f"Tokens {asked.token} to {to} are none: the last comes before the first.", to=to)
    return asked.token, to


def check_kept(sae: q.SAERecord) -> None:
    """
    Raises:
        ContextsMissing: its harvest is older than contexts are.
    """
    if "contexts" not in sae.facts:
        raise ContextsMissing(
            f"{sae.address} was harvested before contexts were kept; harvest it again to search contexts.",
            sae=sae.address,
        )


async def answered(
    request: Request, sae: q.SAERecord, run: PromptRun, asked: c.AlikeScope, text: str, *, chat: bool,
    kept: str | None = None,
) -> c.AlikeResult:  # fmt: skip
    state = state_of(request)
    first, last = scope(run, asked)
    most, width = int(sae.parameters["context_latents"]), int(sae.parameters["context_width"])
    vocabulary = await state.vocabulary(sae)
    async with state.database.connect() as db:
        scale = await state.scale(db, sae)
        wanted = vector(run.readings[sae.revision], scale, first=first, last=last, most=most)
        postings = await get_postings(db, sae.id, wanted.latent.tolist())
        alike, found = await asyncio.to_thread(most_alike, postings, wanted, top=asked.top, after=asked.after)
        records = await get_contexts(db, sae, [one.context for one in alike])
        names = await q.get_summaries(db, sae.id, sorted({s.latent for one in alike for s in one.shared}))
    return c.AlikeResult(
        sae=sae.slug,
        revision=sae.revision,
        address=sae.address,
        subject=sae.subject,
        corpus=sae.corpus,
        text=text,
        chat=chat,
        run=kept,
        tokens=run.pieces,
        counted=run.counted,
        token=asked.token,
        to=asked.to,
        active=wanted.active,
        compared=len(wanted.latent),
        latents=most,
        width=width,
        kept=sae.facts["contexts"]["kept"],
        seen=sae.facts["contexts"]["seen"],
        found=found,
        items=[shown(sae, one, records[one.context], wanted, names, vocabulary) for one in alike],
        next=asked.after + asked.top if asked.after + asked.top < found else None,
    )


def shown(
    sae: q.SAERecord, one: Alike, record: ContextRecord, asked: Vector, names: dict[int, q.LatentSummary],
    vocabulary: Vocabulary,
) -> c.AlikeContext:  # fmt: skip
    tokens = vocabulary.pieces(record.token_ids)
    parts = [0.0] * len(tokens)
    for shared in one.shared:
        parts[shared.offset] += shared.part
    mine = {latent: place for place, latent in enumerate(asked.latent.tolist())}
    text = "".join(token for place, token in enumerate(tokens) if place or not SPECIAL.fullmatch(token))
    return c.AlikeContext(
        similarity=one.similarity,
        sequence=record.sequence_id,
        start=record.start,
        document=record.document,
        tokens=tokens,
        token_ids=record.token_ids,
        parts=parts,
        shared=[
            c.SharedLatent(
                index=s.latent,
                label=names[s.latent].label,
                url=urls.feature(sae.address, s.latent),
                part=s.part,
                strength=abs(float(asked.strength[mine[s.latent]])),
                position=int(asked.position[mine[s.latent]]),
                context_strength=abs(s.weight) * record.norm,
                context_position=s.offset,
            )
            for s in one.shared
        ],
        text=text,
        url=urls.inspect(sae=sae.address, text=text),
    )


async def load_alike(request: Request, query: c.AlikeQuery) -> c.AlikePage:
    sae: q.SAERecord | None
    if query.run is not None:
        sae, saes, result = await _of_run(request, query, query.run)
    else:
        async with state_of(request).database.connect() as db:
            known = await q.list_saes(db)
            found = await chosen(db, [query.sae] if query.sae else [], known)
        sae, saes = found[0] if found else None, [one.slug for one in known]
        result = None
        if query.text is not None and sae is not None:
            check_kept(sae)
            run = await read(request, [sae], query.text, chat=query.chat, predict=False)
            result = await answered(request, sae, run, query, query.text, chat=query.chat)
    address = None if sae is None else sae.address
    settings = state_of(request).settings
    return c.AlikePage(
        query=query,
        saes=[address, *saes] if address is not None and address not in saes else saes,
        chosen=address,
        limit_tokens=settings.max_prompt_tokens - 1,
        limit_characters=settings.max_prompt_chars,
        result=result,
    )


async def _of_run(request: Request, query: c.AlikeQuery, name: str) -> tuple[q.SAERecord, list[str], c.AlikeResult]:
    """A run that was kept, as it was read then.

    Raises:
        UnknownInspection, UnknownSAE: it is not here, was not read with the SAE, or that revision is gone.
    """
    async with state_of(request).database.connect() as db:
        record = await inspections.get(db, name)
        named = list(zip(record.slugs, record.revisions, strict=True))
        wanted = [one for one in named if query.sae in (None, one[0], "@".join(one))]
        there = await q.find_revisions(db, wanted[:1])
    if not wanted:
        told = ", ".join(f"{slug}@{revision}" for slug, revision in named)
        raise UnknownSAE(f"Run {name} was not read with {query.sae}; it was with: {told}.", sae=query.sae)
    if not there:
        slug, revision = wanted[0]
        raise UnknownSAE(f"{slug}@{revision}, which run {name} was read with, is no longer here.", sae=slug)
    sae = there[wanted[0]]
    check_kept(sae)
    run = await asyncio.to_thread(unpack, record.data)
    result = await answered(request, sae, run, query, record.text, chat=record.chat, kept=name)
    query.text, query.chat = record.text, record.chat
    return sae, [], result


@router.get("/contexts.json", response_model=c.AlikePage)
async def contexts_json(request: Request, query: Asked) -> Response:
    """The corpus's contexts in which the same features fire as in a text."""
    return json_of(await load_alike(request, query))


@router.get("/contexts", response_class=HTMLResponse, include_in_schema=False)
async def contexts(request: Request, query: Asked) -> Response:
    return html("contexts.html", request, page=await load_alike(request, query))


@router.post("/contexts", include_in_schema=False)
async def post_contexts(request: Request) -> Response:
    """The form: a short text goes to an address that holds it, a long one to a kept run's."""
    query = filled(c.AlikeQuery, await form_fields(request))
    url = urls.contexts(**tidy(query))
    if len(url) > LONGEST_URL and query.text is not None:
        async with state_of(request).database.connect() as db:
            saes = await chosen(db, [query.sae] if query.sae else [], await q.list_saes(db))
        if not saes:
            raise BadRequest("There is no SAE here to read it with; harvest one first.")
        check_kept(saes[0])
        name, _ = await keep(request, saes, query.text, chat=query.chat, predict=False)
        url = urls.contexts(run=name, token=query.token, to=query.to, top=query.top)
    return RedirectResponse(url, status_code=303)


@router.post("/api/inspect/contexts", response_model=c.AlikeResult)
async def api_contexts(request: Request, body: Annotated[c.AlikeBody, Body(openapi_examples=CONTEXTS)]) -> Response:
    """The corpus's contexts most like a text, by what fires in either."""
    async with state_of(request).database.connect() as db:
        known = await q.list_saes(db)
        if not body.sae and len(known) != 1:
            raise BadRequest("Say which SAE with 'sae'; there is not exactly one here.")
        (sae,) = await chosen(db, [body.sae] if body.sae else [], known)
    check_kept(sae)
    run = await read(request, [sae], body.text, chat=body.chat, predict=False)
    return json_of(await answered(request, sae, run, body, body.text, chat=body.chat))
