"""Pages, their ``.json`` twins and the inspection API. A route parses, asks, fills a context and renders."""

import random
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from pydantic import BaseModel, Field
from sqlalchemy.ext.asyncio import AsyncConnection

from app import urls
from app.errors import BadRequest, LatentOutOfRange, PageNotFound
from app.live.ranking import rank
from app.store import queries as q
from app.web import build
from app.web import contexts as c
from app.web.reference import api_page
from app.web.rendering import render_block, render_page
from app.web.state import State, target

router = APIRouter()
PAGE = 50


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
) -> c.LatentTable:
    order = order or ("asc" if sort == "index" else "desc")
    rows, following = await q.page_latents(
        connection, sae.id, sort=sort, descending=order == "desc", cursor=cursor, limit=limit
    )
    page = c.LatentPage(items=[build.row(sae, latent) for latent in rows], next=following)
    return c.LatentTable(sae=sae.slug, address=sae.address, sort=sort, order=order, cursor=cursor, page=page)


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
    limit: Annotated[int, Query(ge=1, le=500)] = PAGE,
) -> Response:
    """A page of the feature table; ``next`` is the cursor of the following one. ``slug`` may be ``slug@revision``."""
    async with state_of(request).database.connect() as db:
        sae = await q.get_sae(db, slug)
        return json_of((await load_table(db, sae, sort, order, cursor, limit)).page)


@router.get("/saes/{slug}/features", response_class=HTMLResponse, include_in_schema=False)
async def features(
    request: Request,
    slug: str,
    sort: c.Sort = "index",
    order: c.Order | None = None,
    cursor: str | None = None,
) -> Response:
    async with state_of(request).database.connect() as db:
        table = await load_table(db, await q.get_sae(db, slug), sort, order, cursor, PAGE)
    if request.headers.get("hx-request") and not request.headers.get("hx-history-restore-request"):
        return HTMLResponse(render_block("features.html", "features_table", table=table))
    return html("features.html", request, table=table)


@router.get("/saes/{slug}/jump", include_in_schema=False)
async def jump(request: Request, slug: str, index: str = "") -> Response:
    if not index.strip().isdecimal():
        raise BadRequest(f"{index[:40]!r} is no feature number; give a whole number.", index=index[:40])
    return RedirectResponse(urls.feature(slug, int(index.strip()[:9])), status_code=303)


@router.get("/saes/{slug}/random", include_in_schema=False)
async def random_feature(request: Request, slug: str) -> Response:
    async with state_of(request).database.connect() as db:
        sae = await q.get_sae(db, slug)
    return RedirectResponse(urls.feature(sae.address, random.randrange(sae.n_latents)), status_code=303)


async def load_feature(request: Request, slug: str, index: int) -> c.FeaturePage:
    state = state_of(request)
    async with state.database.connect() as db:
        sae = await q.get_sae(db, slug)
        if not 0 <= index < sae.n_latents:
            raise build.out_of_range(sae, index)
        latent = await q.get_latent(db, sae.id, index)
        if latent is None:
            raise build.out_of_range(sae, index)
        examples = await q.get_examples(db, sae, index)
        neighbours = await q.get_summaries(db, sae.id, latent.neighbour_ids)
    return build.feature_page(sae, latent, examples, neighbours, await state.vocabulary(sae))


def whole(text: str) -> int:
    """An index from a path; what is no number is refused like a number out of range."""
    try:
        return int(text)
    except ValueError:
        raise LatentOutOfRange(f"{text[:40]!r} is no feature number.", index=text[:40]) from None


@router.get("/saes/{slug}/features/{index}.json", response_model=c.FeaturePage)
async def feature_json(request: Request, slug: str, index: str) -> Response:
    """One feature with its examples."""
    return json_of(await load_feature(request, slug, whole(index)))


@router.get("/saes/{slug}/features/{index}", response_class=HTMLResponse, include_in_schema=False)
async def feature(request: Request, slug: str, index: str) -> Response:
    page = await load_feature(request, slug, whole(index))
    i = page.index
    return html(
        "feature.html", request, plots=True, page=page, groups=build.groups(page),
        previous=urls.feature(slug, i - 1) if i else None,
        next=urls.feature(slug, i + 1) if i + 1 < page.n_latents else None,
    )  # fmt: skip


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
) -> Response:
    async with state_of(request).database.connect() as db:
        sae = await q.get_sae(db, slug)
        table = await load_table(db, sae, sort, order, cursor, PAGE)
    return html("sae.html", request, plots=True, page=build.sae_page(sae), table=table)


class InspectBody(BaseModel):
    """POST /api/inspect. ``token`` limits the ranking to one position; ``sae`` may be left out if there is one."""

    text: str
    sae: str | None = None
    top: int = Field(default=20, ge=1, le=500)
    token: int | None = Field(default=None, ge=0)
    sort: c.Ranking = "strength"


async def run_inspect(
    request: Request,
    db: AsyncConnection,
    sae: q.SAERecord,
    text: str,
    token: int | None,
    sort: c.Ranking,
    top: int,
) -> c.InspectResult:
    state = state_of(request)
    run = await state.engine.inspect(target(sae), text)
    if token is not None and token >= len(run.pieces):
        raise BadRequest(f"The text has no token {token}; its tokens are 0 to {len(run.pieces) - 1}.", token=token)
    ranked, active = rank(run, await state.scale(db, sae), token=token, by=sort, top=top)
    taken = (run.steps or {}).get(token, []) if token is not None else []
    summaries = await q.get_summaries(db, sae.id, [*(r.index for r in ranked), *(index for index, _ in taken)])
    vocabulary = await state.vocabulary(sae)
    return c.InspectResult(
        sae=sae.slug,
        revision=sae.revision,
        address=sae.address,
        text=text,
        tokens=run.pieces,
        prompt=[
            c.PromptToken(text=piece, token_id=i, counted=counted)
            for piece, i, counted in zip(run.pieces, run.token_ids, run.counted, strict=True)
        ],
        token=token,
        sort=sort,
        active=active,
        latents=[
            c.PromptLatent(
                index=r.index,
                label=summaries[r.index].label,
                activation=r.activation,
                share=r.share,
                strength=r.strength,
                position=r.position,
                density=summaries[r.index].density,
                promoted=[vocabulary.text(i) for i in summaries[r.index].promoted_ids[:5]],
                activations=r.activations,
                url=urls.feature(sae.address, r.index),
            )
            for r in ranked
        ],
        steps=None
        if run.steps is None or token is None
        else [
            c.PursuitStep(
                index=index, label=summaries[index].label, residual=left, url=urls.feature(sae.address, index)
            )
            for index, left in taken
        ],
        milliseconds=round(1000 * run.seconds, 2),
    )


async def load_inspect(
    request: Request, sae: str | None, text: str, token: int | None, sort: c.Ranking
) -> c.InspectPage:
    state = state_of(request)
    async with state.database.connect() as db:
        saes = await q.list_saes(db)
        chosen = await q.get_sae(db, sae) if sae else (saes[0] if saes else None)
        result = None
        if text and chosen is not None:
            result = await run_inspect(request, db, chosen, text, token, sort, 20)
    return c.InspectPage(
        saes=[build.card(s) for s in saes],
        sae=chosen.address if chosen else None,
        text=text,
        limit_tokens=state.settings.max_prompt_tokens,
        result=result,
    )


@router.get("/inspect.json", response_model=c.InspectPage)
async def inspect_json(
    request: Request, sae: str | None = None, text: str = "",
    token: Annotated[int | None, Query(ge=0)] = None, sort: c.Ranking = "strength",
) -> Response:  # fmt: skip
    """The inspect page: a prompt and the features that fire on it."""
    return json_of(await load_inspect(request, sae, text, token, sort))


@router.get("/inspect", response_class=HTMLResponse, include_in_schema=False)
async def inspect(
    request: Request, sae: str | None = None, text: str = "",
    token: Annotated[int | None, Query(ge=0)] = None, sort: c.Ranking = "strength",
) -> Response:  # fmt: skip
    page = await load_inspect(request, sae, text, token, sort)
    if request.headers.get("hx-request") and not request.headers.get("hx-history-restore-request"):
        return HTMLResponse(render_block("inspect.html", "inspect_result", page=page))
    return html("inspect.html", request, page=page)


@router.post("/api/inspect", response_model=c.InspectResult)
async def api_inspect(request: Request, body: InspectBody) -> Response:
    """Read a prompt with an SAE: its tokens and the strongest features."""
    async with state_of(request).database.connect() as db:
        if body.sae is None:
            saes = await q.list_saes(db)
            if len(saes) != 1:
                raise BadRequest("Say which SAE with 'sae'; there is not exactly one here.")
            sae = saes[0]
        else:
            sae = await q.get_sae(db, body.sae)
        return json_of(await run_inspect(request, db, sae, body.text, body.token, body.sort, body.top))


@router.get("/api/docs", response_class=HTMLResponse, include_in_schema=False)
async def api_docs(request: Request) -> Response:
    return html("api.html", request, page=api_page(request.app.openapi()))


@router.get("/healthz")
async def healthz() -> dict[str, str]:
    """Answers while the process is up."""
    return {"status": "ok"}


@router.get("/{path:path}", include_in_schema=False)
async def nothing_here(path: str) -> Response:
    raise PageNotFound(f"There is no page /{path[:100]} here.", path=path[:100])
