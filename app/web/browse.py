"""An SAE's page, its feature table, and their twins."""

import math
from dataclasses import replace
from itertools import pairwise
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from sqlalchemy.ext.asyncio import AsyncConnection

from app import urls
from app.errors import BadRequest, SaescopeError, UnknownMap, UnknownSAE
from app.store import browse as b
from app.store import maps as m
from app.store import queries as q
from app.store.map_places import OnMap
from app.store.overviews import get_overview
from app.subject.tokens import Vocabulary
from app.web import browse_form as form
from app.web import build, map_build
from app.web import contexts as c
from app.web.browse_contexts import (
    Bar,
    BrowseListQuery,
    BrowseQuery,
    BrowseRow,
    LatentPage,
    LatentTable,
)
from app.web.freshness import unless_known
from app.web.map_filter import on_map
from app.web.refusals import refused
from app.web.rendering import render_block
from app.web.routes import html, json_of, state_of
from app.web.sharing import sae_preview

router = APIRouter(tags=["features"], responses=refused(BadRequest, UnknownSAE, UnknownMap))
PAGE = 50
COUNTED = 10_000
Place = Literal["sae", "features"]
Asked = Annotated[BrowseQuery, Query()]


async def load_page(
    request: Request, db: AsyncConnection, sae: q.SAERecord, query: BrowseQuery, limit: int, place: OnMap | None = None
) -> LatentPage:
    """A page of the rows the query keeps. place: what it says of a map, where that is known.

    Raises:
        BadRequest, LatentOutOfRange: what in the query does not fit.
    """
    vocabulary = await state_of(request).vocabulary(sae)
    tokens = form.tokens_meant(query, sae, vocabulary)
    kept = replace(form.filters(query, sae, tokens), on_map=place or await on_map(db, sae, query))
    if kept.sign in ("negative", "both") and not sae.signed:  # known without looking through all of them
        return LatentPage(items=[], next=None, found=0, found_exact=True, tokens=tokens)
    descending = query.way() == "desc"
    records, following = await b.page(
        db, sae.id, kept, sort=query.sort, descending=descending, cursor=query.cursor or None, limit=limit
    )
    found, exact = len(records), True
    if kept == b.Filters():
        found = sae.n_latents
    elif following or query.cursor:
        found = await b.count(db, sae.id, kept, COUNTED + 1)
        exact, found = found <= COUNTED, min(found, COUNTED)
    items = [row(sae, record, vocabulary, kept.tokens) for record in records]
    return LatentPage(items=items, next=following, found=found, found_exact=exact, tokens=tokens)


def row(sae: q.SAERecord, record: b.BrowseRecord, vocabulary: Vocabulary, wanted: tuple[int, ...]) -> BrowseRow:
    """wanted: ids of the token asked for."""
    kinds = {
        "fires most surely": record.token_probability_ids,
        "fires most strongly": record.token_mean_ids,
        "promotes": record.promoted_ids,
    }
    return BrowseRow.model_construct(
        index=record.index,
        label=record.label,
        label_source=record.label_source,
        label_score=record.label_score,
        density=record.density,
        max=record.maximum,
        min=record.minimum,
        url=urls.feature(sae.address, record.index),
        tokens=[vocabulary.text(i) for i in (record.token_probability_ids or record.promoted_ids)[:5]],
        matches=[name for name, ids in kinds.items() if wanted and not set(wanted).isdisjoint(ids or [])],
    )


async def load_table(
    request: Request, db: AsyncConnection, sae: q.SAERecord, query: BrowseQuery, place: Place
) -> LatentTable:
    """The table; where its filters do not fit, an empty one that says so."""
    error, status, page = None, 200, LatentPage(items=[], next=None, found=0, found_exact=True, tokens=[])
    try:
        page = await load_page(request, db, sae, query, PAGE)
    except SaescopeError as refused:
        if refused.status >= 500 or "cursor" in refused.detail:
            raise
        error, status = refused.message, refused.status
    sources = await b.sources(db, sae.id)
    scores = await state_of(request).scores.get(db, sae)
    densities = ([10.0**edge for edge in sae.density_edges], sae.density_counts)
    return table_of(
        sae, query, place, page, sources=sources, density_bars=bars(sae, query, place, "density", *densities),
        score_bars=bars(sae, query, place, "score", *scores), error=error, status=status,
    )  # fmt: skip


def table_of(sae: q.SAERecord, query: BrowseQuery, place: Place, page: LatentPage, **rest: Any) -> LatentTable:
    return LatentTable(
        sae=sae.slug,
        address=sae.address,
        signed=sae.signed,
        place=place,
        query=query,
        given=query.given(),
        ordered=query.ordered(),
        sort=query.sort,
        order=query.way(),
        cursor=query.cursor or None,
        page=page,
        **rest,
    )


def bars(
    sae: q.SAERecord, query: BrowseQuery, place: Place, name: str, edges: list[float], counts: list[int]
) -> list[Bar]:
    """The bars of a histogram, each a link to the table with its range in the place of the present one."""
    page = urls.sae if place == "sae" else urls.features
    low_name, high_name = f"{name}_min", f"{name}_max"
    low_now, high_now = _known(query, low_name), _known(query, high_name)
    out = []
    for number, ((low, high), count) in enumerate(zip(pairwise(edges), counts, strict=True)):
        most = f"{high:.6g}" if number == len(counts) - 1 else b.below(float(f"{high:.6g}"))
        state = query.ordered() | {low_name: f"{low:.6g}", high_name: most}
        inside = (
            low_now is not None
            and high_now is not None
            and low_now <= low * (1 + 1e-6)
            and high <= high_now * (1 + 1e-6)
        )
        out.append(
            Bar(
                low=low,
                high=high,
                count=count,
                chosen=inside,
                url=page(sae.address, **state) + "#features",
                fragment=urls.features(sae.address, **state),
            )
        )
    return out


def _known(query: BrowseQuery, name: str) -> float | None:
    try:
        value = float(getattr(query, name))
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def tidy(request: Request, url: str) -> Response | None:
    """Send a browser whose form left fields empty, or named features one by one, to the address without them."""
    given = request.query_params.multi_items()
    if any(not value for _, value in given) or sum(name == "index" for name, _ in given) > 1:
        return RedirectResponse(url, status_code=303)
    return None


@router.get("/saes/{slug}/features.json", response_model=LatentPage)
async def features_json(request: Request, slug: str, query: Annotated[BrowseListQuery, Query()]) -> Response:
    """A page of the feature table; ``next`` is the cursor of the following one. ``slug`` may be ``slug@revision``."""
    async with state_of(request).database.connect() as db:
        sae = await q.get_sae(db, slug)
        unless_known(request, sae)
        return json_of(await load_page(request, db, sae, query, query.limit))


@router.get("/saes/{slug}/features", response_class=HTMLResponse, include_in_schema=False)
async def features(request: Request, slug: str, query: Asked) -> Response:
    fragment = bool(request.headers.get("hx-request")) and not request.headers.get("hx-history-restore-request")
    current = request.headers.get("hx-current-url", "").partition("?")[0].partition("#")[0]
    place: Place = "sae" if fragment and not current.endswith("/features") else "features"
    async with state_of(request).database.connect() as db:
        sae = await q.get_sae(db, slug)
        page = urls.sae if place == "sae" else urls.features
        url = page(sae.address, **query.ordered(), cursor=query.cursor)
        if not fragment and (elsewhere := tidy(request, url)):
            return elsewhere
        unless_known(request, sae, place)
        table = await load_table(request, db, sae, query, place)
    if not fragment:
        answer = html("features.html", request, table=table)
    else:
        answer = HTMLResponse(
            render_block("features.html", "features_table", table=table), headers={"hx-push-url": url}
        )
    answer.status_code = table.status
    return answer


@router.get("/saes/{slug}.json", response_model=c.SAEPage)
async def sae_json(request: Request, slug: str) -> Response:
    """An SAE with its metrics and where they come from."""
    async with state_of(request).database.connect() as db:
        sae = await q.get_sae(db, slug)
        unless_known(request, sae)
        overview = await get_overview(db, sae)
    return json_of(build.sae_page(sae, overview))


@router.get("/saes/{slug}", response_class=HTMLResponse, include_in_schema=False)
async def sae_page(request: Request, slug: str, query: Asked) -> Response:
    async with state_of(request).database.connect() as db:
        sae = await q.get_sae(db, slug)
        if elsewhere := tidy(request, urls.sae(sae.address, **query.ordered(), cursor=query.cursor) + "#features"):
            return elsewhere
        unless_known(request, sae)
        overview = await get_overview(db, sae)
        maps = [map_build.summary(sae, one) for one in await m.list_maps(db, sae.id)]
        table = await load_table(request, db, sae, query, "sae")
    shown = build.sae_page(sae, overview)
    answer = html("sae.html", request, preview=sae_preview(request, shown), page=shown, table=table, maps=maps)
    answer.status_code = table.status
    return answer
