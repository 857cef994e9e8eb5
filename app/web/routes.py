"""Pages, their ``.json`` twins and the inspection API. A route parses, asks, fills a context and renders."""

import random
import re
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from pydantic import BaseModel

from app import urls
from app.errors import LatentOutOfRange, PageNotFound
from app.store import queries as q
from app.store.browse import Filters, page
from app.web import build
from app.web import contexts as c
from app.web.reference import api_page
from app.web.refusals import refused
from app.web.rendering import render_page
from app.web.state import State

router = APIRouter(tags=["site"], responses=refused())


def state_of(request: Request) -> State:
    state: State = request.app.state.saescope
    return state


def html(name: str, request: Request, *, plots: bool = False, **context: Any) -> HTMLResponse:
    """plots: the page draws with plotly."""
    request.state.plots = plots
    return HTMLResponse(render_page(name, request=request, **context))


def json_of(page: BaseModel) -> Response:
    return Response(page.model_dump_json(), media_type="application/json")


async def load_home(request: Request) -> c.HomePage:
    state = state_of(request)
    async with state.database.connect() as db:
        saes = await q.list_saes(db)
        featured, shown = None, None
        if saes:
            first = saes[0]
            strong, _ = await page(db, first.id, Filters(), sort="max", descending=True, cursor=None, limit=40)
            rare = [latent for latent in strong if latent.density < 0.003] or strong
            if rare:
                latent = rare[0]
                featured = build.row(first, latent)
                examples = await q.get_examples(db, first, latent.index)
                if examples:
                    shown = build.example(examples[0], await state.vocabulary(first))
    return c.HomePage(
        saes=[build.card(s) for s in saes], featured=featured, featured_example=shown, hardware=state.hardware
    )


@router.get("/", response_class=HTMLResponse, include_in_schema=False)
async def home(request: Request) -> Response:
    return html("home.html", request, page=await load_home(request))


@router.get("/index.json", response_model=c.HomePage)
async def home_json(request: Request) -> Response:
    """The home page: every SAE, one feature to try, and what runs here."""
    return json_of(await load_home(request))


@router.get("/saes", include_in_schema=False)
async def saes(request: Request) -> Response:
    return RedirectResponse(urls.home(), status_code=308)


@router.get("/saes.json", response_model=c.SAEList)
async def saes_json(request: Request) -> Response:
    """Every SAE, newest revisions."""
    async with state_of(request).database.connect() as db:
        return json_of(c.SAEList(items=[build.card(s) for s in await q.list_saes(db)]))


def whole(text: str) -> int:
    """An index as people write it; what is no such number is refused like a number out of range."""
    if re.fullmatch(r"-?[0-9]{1,18}", text):
        return int(text)
    told = "There is no feature number in that" if not text else f"{text[:40]!r} is no feature number"
    raise LatentOutOfRange(f"{told}; give a whole number.", index=text[:40])


@router.get("/saes/{slug}/jump", include_in_schema=False)
async def jump(request: Request, slug: str, index: str = "") -> Response:
    return RedirectResponse(urls.feature(slug, whole(index.strip())), status_code=303)


@router.get("/saes/{slug}/random", include_in_schema=False)
async def random_feature(request: Request, slug: str) -> Response:
    async with state_of(request).database.connect() as db:
        sae = await q.get_sae(db, slug)
    return RedirectResponse(urls.feature(sae.address, random.randrange(sae.n_latents)), status_code=303)


@router.get("/api/docs", response_class=HTMLResponse, include_in_schema=False)
async def api_docs(request: Request) -> Response:
    return html("api.html", request, page=api_page(request.app.openapi(), str(request.base_url).rstrip("/")))


fallback = APIRouter()


@fallback.get("/{path:path}", include_in_schema=False)
async def nothing_here(path: str) -> Response:
    raise PageNotFound(f"There is no page /{path[:100]} here.", path=path[:100])
