"""Pages, their ``.json`` twins and the inspection API. A route parses, asks, fills a context and renders."""

import random
import re
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from pydantic import BaseModel
from sqlalchemy.ext.asyncio import AsyncConnection

from app import urls
from app.errors import BadRequest, LatentOutOfRange, PageNotFound
from app.store import queries as q
from app.web import build
from app.web import contexts as c
from app.web.reference import api_page
from app.web.rendering import render_block, render_page
from app.web.state import State

router = APIRouter()
PAGE = 50
Find = Annotated[str | None, Query(alias="q", max_length=100, description="Text the label holds.")]


def state_of(request: Request) -> State:
    state: State = request.app.state.saescope
    return state


def html(name: str, request: Request, *, plots: bool = False, **context: Any) -> HTMLResponse:
    response = HTMLResponse(render_page(name, **context))
    if plots:
        response.headers["x-saescope-plots"] = "1"
    return response


def json_of(page: BaseModel) -> Response:
    return Response(page.model_dump_json(), media_type="application/json")


async def load_table(
    connection: AsyncConnection,
    sae: q.SAERecord,
    sort: c.Sort,
    order: c.Order | None,
    cursor: str | None,
    limit: int,
    label: str | None,
) -> c.LatentTable:
    if label and ("\0" in label or any("\ud800" <= ch <= "\udfff" for ch in label)):
        raise BadRequest("The text to find in labels holds a character no label can hold.", field="q")
    order = order or ("asc" if sort == "index" else "desc")
    rows, following = await q.page_latents(
        connection, sae.id, sort=sort, descending=order == "desc", cursor=cursor, limit=limit, label=label
    )
    page = c.LatentPage(items=[build.row(sae, latent) for latent in rows], next=following)
    return c.LatentTable(sae=sae.slug, address=sae.address, sort=sort, order=order, cursor=cursor, q=label, page=page)


async def load_home(request: Request) -> c.HomePage:
    state = state_of(request)
    async with state.database.connect() as db:
        saes = await q.list_saes(db)
        featured, shown = None, None
        if saes:
            first = saes[0]
            table = await q.page_latents(db, first.id, sort="max", descending=True, cursor=None, limit=40)
            rare = [latent for latent in table[0] if latent.density < 0.003] or table[0]
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


@router.get("/saes/{slug}/features.json", response_model=c.LatentPage)
async def features_json(
    request: Request,
    slug: str,
    sort: c.Sort = "index",
    order: c.Order | None = None,
    cursor: str | None = None,
    find: Find = None,
    limit: Annotated[int, Query(ge=1, le=500)] = PAGE,
) -> Response:
    """A page of the feature table; ``next`` is the cursor of the following one. ``slug`` may be ``slug@revision``."""
    async with state_of(request).database.connect() as db:
        sae = await q.get_sae(db, slug)
        return json_of((await load_table(db, sae, sort, order, cursor, limit, find)).page)


@router.get("/saes/{slug}/features", response_class=HTMLResponse, include_in_schema=False)
async def features(
    request: Request,
    slug: str,
    sort: c.Sort = "index",
    order: c.Order | None = None,
    cursor: str | None = None,
    find: Find = None,
) -> Response:
    async with state_of(request).database.connect() as db:
        table = await load_table(db, await q.get_sae(db, slug), sort, order, cursor, PAGE, find)
    if request.headers.get("hx-request") and not request.headers.get("hx-history-restore-request"):
        return HTMLResponse(render_block("features.html", "features_table", table=table))
    return html("features.html", request, table=table)


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


@router.get("/saes/{slug}.json", response_model=c.SAEPage)
async def sae_json(request: Request, slug: str) -> Response:
    """An SAE with its metrics and where they come from."""
    async with state_of(request).database.connect() as db:
        return json_of(build.sae_page(await q.get_sae(db, slug)))


@router.get("/saes/{slug}", response_class=HTMLResponse, include_in_schema=False)
async def sae_page(
    request: Request,
    slug: str,
    sort: c.Sort = "index",
    order: c.Order | None = None,
    cursor: str | None = None,
    find: Find = None,
) -> Response:
    async with state_of(request).database.connect() as db:
        sae = await q.get_sae(db, slug)
        table = await load_table(db, sae, sort, order, cursor, PAGE, find)
    return html("sae.html", request, plots=True, page=build.sae_page(sae), table=table)


@router.get("/api/docs", response_class=HTMLResponse, include_in_schema=False)
async def api_docs(request: Request) -> Response:
    return html("api.html", request, page=api_page(request.app.openapi()))


@router.get("/healthz")
async def healthz() -> dict[str, str]:
    """Answers while the process is up."""
    return {"status": "ok"}


fallback = APIRouter()


@fallback.get("/{path:path}", include_in_schema=False)
async def nothing_here(path: str) -> Response:
    raise PageNotFound(f"There is no page /{path[:100]} here.", path=path[:100])
