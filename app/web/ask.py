"""A button on a feature's page: a language model explains this one feature, in a process of its own."""

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from sqlalchemy.ext.asyncio import AsyncConnection

from app import urls
from app.errors import (
    BadRequest,
    ExplainLimit,
    HarvestRunning,
    LatentOutOfRange,
    SaescopeError,
    UnknownSAE,
)
from app.settings import Settings
from app.store import queries as q
from app.store.explanations import get_explanations
from app.store.reader import may
from app.store.run_queries import asked_of
from app.web import build, spending
from app.web.ask_contexts import AskedPage
from app.web.explain_build import explanation
from app.web.refusals import refused
from app.web.rendering import render_block, render_page
from app.web.routes import html, json_of, state_of, whole
from app.web.run_contexts import view
from app.web.runs import fragment

router = APIRouter(tags=["explanations"], responses=refused(BadRequest, UnknownSAE, LatentOutOfRange))
METHODS = ("llm", "llm-contrastive")


async def load_asked(request: Request, slug: str, index: int, error: str | None = None) -> AskedPage:
    state = state_of(request)
    async with state.database.connect() as db:
        sae, latent = await _latent(db, slug, index)
        run = await asked_of(db, sae.slug, index)
        told = await get_explanations(db, sae.id, index)
    shown = None if run is None else view(run)
    if shown is not None and not may("viewer"):  # what was run here, and what it said, is the team's
        shown = shown.model_copy(
            update={
                "message": None,
                "command": {},
                "command_line": "",
                "notes": [],
                "corpus": None,
                "skipped_named": [],
            }
        )
    newest = {one.sign: one for one in told if one.method in METHODS}  # the later ones stand last
    return AskedPage(
        sae=sae.slug, revision=sae.revision, address=sae.address, index=index, label=latent.label,
        model=spending.on_pages(state.settings), run=shown,
        explanations=[explanation(sae, latent, one) for one in newest.values()], error=error,
    )  # fmt: skip


async def _latent(db: AsyncConnection, slug: str, index: int) -> tuple[q.SAERecord, q.LatentRecord]:
    sae = await q.get_sae(db, slug)
    latent = await q.get_latent(db, sae, index) if 0 <= index < sae.n_latents else None
    if latent is None:
        raise build.out_of_range(sae, index)
    return sae, latent


async def start(request: Request, slug: str, index: int) -> int:
    """
    Raises:
        BadRequest: there is nobody to ask, or nothing to explain.
        ExplainLimit: enough was asked for, or spent, for now.
        HarvestRunning: this is being explained.
    """
    state = state_of(request)
    settings = state.settings
    spending.checked_model(settings)
    if not settings.llm_per_hour:
        raise BadRequest("Pages cannot ask the language model here (SAESCOPE_LLM_PER_HOUR is 0).")
    async with state.database.connect() as db:
        sae, latent = await _latent(db, slug, index)
    if not latent.maximum and not latent.minimum:
        raise BadRequest(f"Feature {index} never fired, so there is nothing to explain.", index=index)

    async def bound(connection: AsyncConnection) -> None:
        await spending.within_hour(connection, settings)
        await spending.within_day(connection, settings, spending.one_explanation(settings))

    command = command_of(f"{sae.slug}@{sae.revision}", index, settings)
    return await state.jobs.start([sae.slug], command, kind="explain", latent=index, bound=bound)


def command_of(address: str, index: int, settings: Settings) -> dict[str, Any]:
    command = {"sae": address, "method": "llm", "model": settings.llm_model, "latents": str(index)}
    most = spending.one_explanation(settings)
    return command if most is None else command | {"max_usd": most}


@router.get("/saes/{slug}/features/{index}/ask.json", response_model=AskedPage)
async def asked_json(request: Request, slug: str, index: str) -> Response:
    """What became of asking a language model what this feature fires on."""
    return json_of(await load_asked(request, slug, whole(index)))


@router.get("/saes/{slug}/features/{index}/ask", response_class=HTMLResponse, include_in_schema=False)
async def asked(request: Request, slug: str, index: str) -> Response:
    page = await load_asked(request, slug, whole(index))
    if fragment(request):
        return HTMLResponse(render_block("ask.html", "asked", page=page))
    return html("ask.html", request, page=page)


@router.post("/saes/{slug}/features/{index}/ask", response_class=HTMLResponse, include_in_schema=False)
async def ask(request: Request, slug: str, index: str) -> Response:
    error, status = None, 200
    try:
        await start(request, slug, whole(index))
    except (UnknownSAE, LatentOutOfRange):
        raise
    except SaescopeError as refusal:
        if refusal.status >= 500:
            raise
        error, status = refusal.message, refusal.status
    if fragment(request):
        page = await load_asked(request, slug, whole(index), error)
        return HTMLResponse(render_block("ask.html", "asked", page=page))
    if error is not None:
        page = await load_asked(request, slug, whole(index), error)
        return HTMLResponse(render_page("ask.html", page=page), status_code=status)
    return RedirectResponse(urls.ask(slug, whole(index)), status_code=303)


@router.post(
    "/api/saes/{slug}/features/{index}/ask",
    response_model=AskedPage,
    responses=refused(BadRequest, UnknownSAE, LatentOutOfRange, ExplainLimit, HarvestRunning),
)
async def api_ask(request: Request, slug: str, index: str) -> Response:
    """Ask the server's language model what this feature fires on; ask.json tells what becomes of it."""
    await start(request, slug, whole(index))
    return json_of(await load_asked(request, slug, whole(index)))
