"""The map's page, which is drawn by a script over tiles; without one, a picture and lists."""

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from sqlalchemy.ext.asyncio import AsyncConnection

from app import urls
from app.errors import BadRequest, SaescopeError, UnknownMap
from app.live.ranking import Ranked
from app.store import browse as b
from app.store import map_places as p
from app.store import maps as m
from app.store import queries as q
from app.web import build, map_beside, map_build, map_marks
from app.web import map_contexts as c
from app.web.browse import PAGE, bars, load_page, table_of
from app.web.browse_contexts import BrowseQuery, LatentTable
from app.web.contexts import Histogram
from app.web.freshness import unless_known
from app.web.inspection import fragment
from app.web.map_beside import Shown
from app.web.map_filter import pick
from app.web.refusals import READING, refused
from app.web.rendering import render_block
from app.web.routes import html, json_of, state_of, whole

router = APIRouter(tags=["features"], responses=refused(*READING, UnknownMap))
Asked = Annotated[c.MapQuery, Query()]


async def load_map(request: Request, slug: str, query: c.MapQuery) -> c.MapPage:
    """
    Raises:
        NotModified: the reader has it.
        BadRequest, UnknownMap, UnknownSAE: what in the query does not fit.
    """
    state = state_of(request)
    check(query)
    right = None
    async with state.database.connect() as db:
        sae = await q.get_sae(db, slug)
        maps, near = await m.list_with_neighbours(db, sae.id)
        if not query.beside:
            unless_known(request, sae, near)
        left = None
        if maps or query.map:
            record = pick(sae, maps, query.map)
            left = Shown(sae, record, await m.get_clusters(db, record.id))
            if query.beside:
                right = await map_beside.second(db, sae, maps, record, query.beside)
        if query.beside:
            unless_known(request, sae, near, right and (right.sae.id, right.sae.edition))
    marked, there = (right, left) if right and query.side == "right" else (left, right)
    ranked, told = await _read(request, query, marked)
    also = None
    if marked and there and marked.sae.sha256 != there.sae.sha256:
        also, _ = await _read(request, query, there)
    lit, found, spot, two = None, None, None, None
    async with state.database.connect() as db:
        if left and marked:
            if query.text is not None:
                found = await map_marks.lit(db, marked.sae, marked.record, query.text, ranked) if ranked else None
            else:
                found = await map_marks.found(db, marked.sae, marked.record, query, marked.clusters)
            if query.feature is not None:
                spot, missing = await _spot(db, marked, query.feature)
                told = told or missing
            if right and there:
                if also is not None:
                    lit = await map_marks.lit(db, there.sae, there.record, query.text or "", also)
                two, missing = await map_beside.beside(db, state, query, left, right, found, spot, lit)
                told = told or missing
    return c.MapPage(
        sae=sae.slug, revision=sae.revision, address=sae.address, n_latents=sae.n_latents, query=query,
        maps=[map_build.summary(sae, one) for one in maps],
        map=left and map_build.whole(sae, left.record, left.clusters),
        others=map_beside.others(sae, maps, left.record, near) if left else [], beside=two,
        marked=marked.sae.address if marked else sae.address, found=found, spot=spot, told=told,
    )  # fmt: skip


def check(query: c.MapQuery) -> None:
    """
    Raises:
        BadRequest: parts of it do not go together.
    """
    if query.text is not None and query.filters():
        raise BadRequest("A text lights up the whole map; leave out q, region, cluster and within.", field="text")
    if query.side == "right" and not query.beside:
        raise BadRequest("side=right is of a second map; name one with beside.", field="side")


async def _read(request: Request, query: c.MapQuery, marked: Shown | None) -> tuple[list[Ranked] | None, str | None]:
    """What fires on the text, the strongest first, or why there is no telling."""
    if query.text is None or marked is None:
        return None, None
    try:
        return await map_marks.strongest(request, marked.sae, query.text), None
    except SaescopeError as error:
        return None, error.message


async def _spot(db: AsyncConnection, shown: Shown, index: int) -> tuple[c.MapSpot | None, str | None]:
    sae, record = shown.sae, shown.record
    if not index < sae.n_latents:
        return None, build.out_of_range(sae, index).message
    rows = await p.spots(db, sae.id, record.id, record.on, index)
    if not rows:
        return None, f"Feature {index} has no place on this map."
    return map_build.spot(sae, record, rows, shown.clusters), None


@router.get("/map", include_in_schema=False)
async def first_map(request: Request) -> Response:
    """The map of the newest SAE, which leads to the others."""
    async with state_of(request).database.connect() as db:
        saes = await q.list_saes(db)
    return RedirectResponse(urls.map_page(saes[0].slug) if saes else urls.home(), status_code=303)


@router.get("/saes/{slug}/map.json", response_model=c.MapPage)
async def map_page_json(request: Request, slug: str, query: Asked) -> Response:
    """The map's page: the map, what is marked on it, and the feature that is held."""
    return json_of(await load_map(request, slug, query))


@router.get("/saes/{slug}/map", response_class=HTMLResponse, include_in_schema=False)
async def map_page(request: Request, slug: str, query: Asked) -> Response:
    given = request.query_params
    number = query.q.strip()
    if number.isdecimal() and number.isascii():  # a feature's number is a feature
        state = {**query.model_dump(exclude_defaults=True, exclude={"q"}), "feature": number}
        return RedirectResponse(urls.map_page(slug, **state), status_code=303)
    if any(not value for name, value in given.items() if name != "text") and not fragment(request):
        alone = set() if query.beside else {"side", "lines", "lock"}  # what a form leaves of a second map
        state = query.model_dump(exclude_defaults=True, exclude=alone)
        return RedirectResponse(urls.map_page(slug, **state), status_code=303)
    page = await load_map(request, slug, query)
    if fragment(request):
        return HTMLResponse(render_block("map.html", "beside", page=page))
    return html("map.html", request, page=page, scripted=map_build.scripted(page))


async def load_group(
    request: Request, slug: str, version: str, level: int, number: int
) -> tuple[c.MapGroupPage, LatentTable]:
    """
    Raises:
        NotModified: the reader has it.
        UnknownMap: there is no such map, or no such group on it.
    """
    kind = c.KINDS[level]
    async with state_of(request).database.connect() as db:
        sae = await q.get_sae(db, slug)
        unless_known(request, sae)
        record = pick(sae, await m.list_maps(db, sae.id), version)
        clusters = await m.get_clusters(db, record.id)
        one = next((one for one in clusters if (one.level, one.id) == (level, number)), None)
        if one is None:
            count = sum(other.level == level for other in clusters)
            raise UnknownMap(f"Map {version} has no {kind} {number}; it has {count} of them.", version=version)
        query = BrowseQuery.model_validate({"map": version, kind: str(number), "sort": "density", "order": "desc"})
        only = p.OnMap(sae.id, record.id, *((None, number) if level else (number, None)))
        page = await load_page(request, db, sae, query, PAGE, only)
        counts, _ = await b.count_by_density(db, sae.id, b.Filters(on_map=only), sae.density_edges)
    edges = [10.0**edge for edge in sae.density_edges]
    density = bars(sae, query, "features", "density", edges, counts)
    table = table_of(sae, query, "features", page, sources=[], density_bars=density, score_bars=[])
    above = next((o for o in clusters if level and (o.level, o.id) == (0, one.parent)), None)
    inside = [o for o in clusters if not level and (o.level, o.parent) == (1, number)]
    shown = c.MapGroupPage(
        sae=sae.slug, revision=sae.revision, address=sae.address, version=version, map=map_build.summary(sae, record),
        kind=kind, id=number, name=one.name, named_by=one.named_by,
        size=one.size, alive=one.alive, density=one.density, x=one.x, y=one.y,
        terms=[c.Term(term=term, score=score) for term, score in zip(one.terms, one.scores, strict=False)],
        centre=one.centre, centre_url=urls.feature(sae.address, one.centre),
        parent=None if above is None else map_build.cluster(sae, version, above),
        clusters=[map_build.cluster(sae, version, o) for o in inside],
        on_map=urls.map_page(sae.address, map=version, x=one.x, y=one.y, z=3 + level, **{kind: number}),
        density_histogram=Histogram(edges=sae.density_edges, counts=counts),
        features=page,
    )  # fmt: skip
    return shown, table


@router.get("/saes/{slug}/map/{version}/regions/{number}.json", response_model=c.MapGroupPage)
async def region_json(request: Request, slug: str, version: str, number: str) -> Response:
    """A region of a map: its terms, density and features."""
    return json_of((await load_group(request, slug, version, 0, whole(number)))[0])


@router.get("/saes/{slug}/map/{version}/clusters/{number}.json", response_model=c.MapGroupPage)
async def cluster_json(request: Request, slug: str, version: str, number: str) -> Response:
    """A cluster of a map: its terms, density and features."""
    return json_of((await load_group(request, slug, version, 1, whole(number)))[0])


@router.get("/saes/{slug}/map/{version}/regions/{number}", response_class=HTMLResponse, include_in_schema=False)
async def region(request: Request, slug: str, version: str, number: str) -> Response:
    return await _group_page(request, slug, version, 0, number)


@router.get("/saes/{slug}/map/{version}/clusters/{number}", response_class=HTMLResponse, include_in_schema=False)
async def cluster(request: Request, slug: str, version: str, number: str) -> Response:
    return await _group_page(request, slug, version, 1, number)


async def _group_page(request: Request, slug: str, version: str, level: int, number: str) -> Response:
    page, table = await load_group(request, slug, version, level, whole(number))
    return html("map_group.html", request, page=page, table=table)
