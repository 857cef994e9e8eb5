"""The map's page, which is drawn by a script over tiles; without one, a picture and lists."""

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from sqlalchemy.ext.asyncio import AsyncConnection

from app import urls
from app.errors import BadRequest, SaescopeError, UnknownMap
from app.store import browse as b
from app.store import map_places as p
from app.store import maps as m
from app.store import queries as q
from app.store.map_bulk import ClusterRow
from app.web import build, map_build, map_marks
from app.web import map_contexts as c
from app.web.browse import PAGE, bars, load_page, table_of
from app.web.browse_contexts import BrowseQuery, LatentTable
from app.web.contexts import Histogram
from app.web.freshness import unless_known
from app.web.inspection import fragment
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
        BadRequest, UnknownMap: what in the query does not fit.
    """
    ranked = None
    async with state_of(request).database.connect() as db:
        sae = await q.get_sae(db, slug)
        unless_known(request, sae)
    if query.text is not None and query.filters():
        raise BadRequest("A text lights up the whole map; leave out q, region, cluster and within.", field="text")
    told = None
    if query.text is not None:
        try:
            ranked = await map_marks.strongest(request, sae, query.text)
        except SaescopeError as error:
            told = error.message
    async with state_of(request).database.connect() as db:
        maps = await m.list_maps(db, sae.id)
        shown = found = spot = None
        if maps or query.map:
            record = pick(sae, maps, query.map)
            clusters = await m.get_clusters(db, record.id)
            shown = map_build.whole(sae, record, clusters)
            if ranked is not None:
                found = await map_marks.lit(db, sae, record, query.text or "", ranked)
            else:
                found = await map_marks.found(db, sae, record, query, clusters)
            if query.feature is not None:
                spot, missing = await _spot(db, sae, record, query.feature, clusters)
                told = told or missing
    return c.MapPage(
        sae=sae.slug, revision=sae.revision, address=sae.address, n_latents=sae.n_latents, query=query,
        maps=[map_build.summary(sae, one) for one in maps], map=shown, found=found, spot=spot, told=told,
    )  # fmt: skip


async def _spot(
    db: AsyncConnection, sae: q.SAERecord, record: m.MapRecord, index: int, clusters: list[ClusterRow]
) -> tuple[c.MapSpot | None, str | None]:
    if not index < sae.n_latents:
        return None, build.out_of_range(sae, index).message
    rows = await p.spots(db, sae.id, record.id, record.on, index)
    if not rows:
        return None, f"Feature {index} has no place on this map."
    return map_build.spot(sae, record, rows, clusters), None


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
        state = query.model_dump(exclude_defaults=True)
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
        kind=kind, id=number, name=one.name, size=one.size, alive=one.alive, density=one.density, x=one.x, y=one.y,
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
