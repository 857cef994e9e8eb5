"""Explanations: what a score was made on, and what people write, edit and vote for."""

import re

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from sqlalchemy.ext.asyncio import AsyncConnection

from app import urls
from app.errors import BadRequest, LatentOutOfRange, PageNotFound, UnknownSAE
from app.store import explanations as x
from app.store import people
from app.store import queries as q
from app.web import build
from app.web.embedding import embed_few
from app.web.explain_build import KIND_NAMES, score_page
from app.web.explain_contexts import ScorePage
from app.web.forms import form_fields
from app.web.found import find_latent
from app.web.refusals import refused
from app.web.routes import html, json_of, state_of, whole

router = APIRouter(tags=["explanations"], responses=refused(BadRequest, UnknownSAE, LatentOutOfRange, PageNotFound))


async def load_score(request: Request, slug: str, index: int, score: str) -> ScorePage:
    state = state_of(request)
    async with state.reads.connect() as db:
        sae, latent = await find_latent(request, db, slug, index)
        record = await x.get_score(db, sae.id, index, int(score)) if re.fullmatch("[0-9]{1,18}", score) else None
        if record is None:
            raise PageNotFound(
                f"Feature {index} of {sae.slug} has no score {score[:20]} with examples; its page lists those it has.",
                index=index,
            )
        windows = await x.get_windows(db, sae, record)
    return score_page(sae, latent, record, windows, await state.vocabulary(sae))


@router.get("/saes/{slug}/features/{index}/scores/{score}.json", response_model=ScorePage)
async def score_json(request: Request, slug: str, index: str, score: str) -> Response:
    """A score's examples: what the explanation said of each, and what was so."""
    return json_of(await load_score(request, slug, whole(index), score))


@router.get("/saes/{slug}/features/{index}/scores/{score}", response_class=HTMLResponse, include_in_schema=False)
async def score_html(request: Request, slug: str, index: str, score: str) -> Response:
    page = await load_score(request, slug, whole(index), score)
    return html("score.html", request, page=page, kinds=KIND_NAMES)


async def find_sae(db: AsyncConnection, slug: str, index: int) -> q.SAERecord:
    sae = await q.get_sae(db, slug)
    if not 0 <= index < sae.n_latents:
        raise build.out_of_range(sae, index)
    return sae


def number_of(name: str, index: int) -> int:
    if not re.fullmatch("[0-9]{1,18}", name):
        raise people.unknown(index, 0)
    return int(name)


def _back(sae: q.SAERecord, index: int) -> Response:
    return RedirectResponse(urls.feature(sae.address, index) + "#explanations", status_code=303)


async def _fields(request: Request) -> dict[str, str]:
    return {name: values[-1] for name, values in (await form_fields(request)).items()}


@router.post("/saes/{slug}/features/{index}/explanations", include_in_schema=False)
async def write(request: Request, slug: str, index: str) -> Response:
    given, latent = await _fields(request), whole(index)
    async with state_of(request).database.begin() as db:
        sae = await find_sae(db, slug, latent)
        await people.write(db, sae.id, latent, given.get("text", ""), given.get("author", ""))
    state_of(request).later(embed_few(state_of(request), sae.id))
    return _back(sae, latent)


@router.post("/saes/{slug}/features/{index}/explanations/{number}", include_in_schema=False)
async def edit(request: Request, slug: str, index: str, number: str) -> Response:
    given, latent = await _fields(request), whole(index)
    async with state_of(request).database.begin() as db:
        sae = await find_sae(db, slug, latent)
        which = number_of(number, latent)
        await people.edit(db, sae.id, latent, which, given.get("text", ""), given.get("author", ""))
    state_of(request).later(embed_few(state_of(request), sae.id))
    return _back(sae, latent)


@router.post("/saes/{slug}/features/{index}/explanations/{number}/votes", include_in_schema=False)
async def vote(request: Request, slug: str, index: str, number: str) -> Response:
    given, latent = await _fields(request), whole(index)
    value = given.get("value", "")
    if value not in ("1", "0", "-1"):
        raise BadRequest(f"A vote is 1, -1 or 0, not {value[:20]!r}.", value=value[:20])
    async with state_of(request).database.begin() as db:
        sae = await find_sae(db, slug, latent)
        await people.vote(db, sae.id, latent, number_of(number, latent), given.get("author", ""), int(value))
    return _back(sae, latent)
