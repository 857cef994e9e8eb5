"""Attribution graphs: given as files, listed, and shown node by node."""

from typing import Annotated, Any

from fastapi import APIRouter, Body, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException

from app import urls
from app.errors import BadRequest, BodyTooLong, SaescopeError, TooLarge, UnknownGraph, UnknownSAE
from app.interop import graphs as g
from app.interop.graph_layout import Layout, laid_out
from app.store import graphs as store
from app.store import queries as q
from app.web import graph_build as build
from app.web import graph_contexts as c
from app.web.api_examples import GRAPH
from app.web.identity import Entry
from app.web.refusals import refused
from app.web.rendering import render_page
from app.web.routes import html, json_of, state_of

router = APIRouter(tags=["graphs"], responses=refused(BadRequest, UnknownGraph))
Cursor = Annotated[str | None, Query(max_length=200)]
Named = Annotated[str | None, Query(max_length=400)]
SAEs = Annotated[list[str], Query(max_length=64)]


async def keep(request: Request, graph: g.Graph) -> str:
    data = await run_in_threadpool(g.packed, graph)
    size = len(graph.nodes), len(graph.links)
    name, statement = store.keeping(graph.title, graph.scan, graph.prompt, *size, data)
    async with state_of(request).database.begin() as db:
        await db.execute(statement)
    request.state.audit = Entry("", urls.graph(name))
    return name


async def load_graphs(request: Request, cursor: str | None) -> c.GraphsPage:
    async with state_of(request).database.connect() as db:
        rows, following = await store.list_graphs(db, cursor)
    return c.GraphsPage(items=[build.summary(row) for row in rows], cursor=cursor, next=following)


async def load_graph(request: Request, name: str, node: str | None, saes: list[str]) -> tuple[c.GraphPage, Layout]:
    async with state_of(request).database.connect() as db:
        record, data = await store.get_graph(db, name)
        graph = await run_in_threadpool(g.unpacked, data)
        chosen = next((i for i, one in enumerate(graph.nodes) if one.id == node), None) if node else None
        if node and chosen is None:
            raise BadRequest(f"This graph has no node {node[:60]!r}.", node=node[:60])
        named = [await q.get_sae(db, one) for one in saes if one]
        here = await q.list_saes(db) if graph.scan else []
        of_layer = build.by_layer(graph, named, here)
        wanted = {(sae.id, index) for sae, index in build.meant(graph, of_layer).values()}
        labels = await q.get_summaries_of(db, sorted(wanted))
    return await run_in_threadpool(lambda: (build.page(record, graph, of_layer, labels, chosen), laid_out(graph)))


@router.get("/graphs", response_class=HTMLResponse, include_in_schema=False)
async def graphs(request: Request, cursor: Cursor = None) -> Response:
    return html("graphs.html", request, page=await load_graphs(request, cursor))


@router.get("/graphs.json", response_model=c.GraphsPage)
async def graphs_json(request: Request, cursor: Cursor = None) -> Response:
    """Every attribution graph, the newest first."""
    return json_of(await load_graphs(request, cursor))


@router.post("/graphs", include_in_schema=False)
async def give(request: Request) -> Response:
    """A file, or what was pasted; where it does not fit, the page says why."""
    try:
        async with request.form(max_files=1, max_fields=10, max_part_size=g.MOST_BYTES) as form:
            file, text = form.get("file"), str(form.get("text") or "")
            data = await file.read() if isinstance(file, UploadFile) else b""
        if not data and not text.strip():
            raise BadRequest("Nothing was given; choose a file, or paste a graph's JSON.")
        name = await keep(request, await run_in_threadpool(g.read, data or text))
    except (SaescopeError, HTTPException) as error:
        told = error if isinstance(error, SaescopeError) else BadRequest("The form cannot be read: it is no form.")
        if told.status >= 500:
            raise
        page = await load_graphs(request, None)
        again = render_page("graphs.html", request=request, page=page, error=told.message)
        return HTMLResponse(again, status_code=told.status)
    return RedirectResponse(urls.graph(name), status_code=303)


@router.post("/api/graphs", response_model=c.GraphSummary, responses=refused(BadRequest, TooLarge, BodyTooLong))
async def api_give(request: Request, body: Annotated[dict[str, Any], Body(openapi_examples=GRAPH)]) -> Response:
    """Keep an attribution graph, as circuit-tracer and Neuronpedia write them, and say where it is shown."""
    name = await keep(request, await run_in_threadpool(g.of, body))
    async with state_of(request).database.connect() as db:
        record, _ = await store.get_graph(db, name)
    return json_of(build.summary(record))


@router.get("/graphs/{graph}.json", response_model=c.GraphPage, responses=refused(UnknownSAE))
async def graph_json(request: Request, graph: str, node: Named = None, sae: SAEs = []) -> Response:  # noqa: B006
    """A graph's nodes, and with ``node`` the strongest links of that one; ``sae`` names whose features they are."""
    return json_of((await load_graph(request, graph, node, sae))[0])


@router.get("/graphs/{graph}", response_class=HTMLResponse, include_in_schema=False)
async def graph_page(request: Request, graph: str, node: Named = None, sae: SAEs = []) -> Response:  # noqa: B006
    page, layout = await load_graph(request, graph, node, sae)
    return html("graph.html", request, page=page, layout=layout, named=[one.sae for one in page.saes if one.chosen])


@router.post("/graphs/{graph}/delete", include_in_schema=False)
async def delete_graph(request: Request, graph: str) -> Response:
    async with state_of(request).database.begin() as db:
        await store.remove_graph(db, graph)
    return RedirectResponse(urls.graphs(), status_code=303)
