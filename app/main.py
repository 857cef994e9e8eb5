"""The application factory: no work at import."""

import asyncio
import contextlib
import logging
import os
import platform
import re
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import HTTPException
from starlette.middleware.gzip import DEFAULT_EXCLUDED_CONTENT_TYPES
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from app import __version__, tracing, urls
from app.errors import BadRequest, SaescopeError
from app.jobs import Jobs
from app.live.inference import Inference
from app.settings import Settings
from app.store import queries
from app.store.embedded import revive
from app.store.embeddings import standing
from app.store.engine import async_engine, database_url, explain, sync_engine
from app.store.migrate import migrate
from app.web.account_routes import accounts
from app.web.alike import router as alike
from app.web.ask import router as ask
from app.web.attribution import router as attribution
from app.web.bodies import Bodies
from app.web.browse import router as browse
from app.web.circuit_tracer import router as circuit_tracer
from app.web.circuits import router as circuits
from app.web.compare import router as compare
from app.web.compressed import Compressed
from app.web.contexts import ErrorPage
from app.web.differences import router as differences
from app.web.evaluations import router as evaluations
from app.web.example_page import router as example_page
from app.web.explanation_api import router as explanation_api
from app.web.explanations import router as explanations
from app.web.exports import router as exports
from app.web.features import router as features
from app.web.freshness import NotModified, not_modified, site_version
from app.web.graphs import router as graphs
from app.web.guard import Guard, believed
from app.web.headers import Headers, secure
from app.web.heads import router as heads
from app.web.identity import Identity
from app.web.inspection import router as inspection
from app.web.intervene_page import router as intervene_page
from app.web.intervention import router as intervention
from app.web.jobs import router as jobs_router
from app.web.limits import Limits
from app.web.list_adding import router as list_adding
from app.web.list_api import router as list_api
from app.web.lists import router as lists
from app.web.map_page import router as map_page
from app.web.maps import router as maps
from app.web.notes import router as notes
from app.web.operations import router as operations
from app.web.patterns import router as patterns
from app.web.previews import router as previews
from app.web.reference import ABOUT, TAGS, summarise
from app.web.rendering import ROOT, render_page
from app.web.routes import fallback, router
from app.web.runs import router as runs
from app.web.search import router as search
from app.web.state import State, target
from app.web.static_files import CompressedStaticFiles
from app.web.traffic import Counted, Traffic
from app.web.training import router as training

MIND_S = 1.0
_log = logging.getLogger(__name__)
# Parquet holds compressed columns; a map's tiles shrink little.
_AS_IT_IS = (*DEFAULT_EXCLUDED_CONTENT_TYPES, "application/vnd.apache.parquet", "application/octet-stream")


def create_app(settings: Settings) -> FastAPI:
    """The site over ``settings``: its database is opened (and migrated) when the server starts."""

    traffic = Traffic()

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        url = await asyncio.to_thread(database_url, settings)
        sync = sync_engine(url)
        await asyncio.to_thread(migrate, sync)
        sync.dispose()
        engine = _engine(settings)
        database = async_engine(url, settings.query_limit)
        tracing.follow_statements(database.sync_engine)
        jobs = Jobs(settings, url, database)
        state = State(settings, database, engine, jobs, _hardware(settings), Limits.of(settings), traffic,
                      Limits.of_searches(settings))  # fmt: skip
        app.state.saescope = state
        app.state.warming = warming = asyncio.create_task(_warm(state))
        minding = None if settings.database_url else asyncio.create_task(_mind(settings.home))
        if settings.worker:
            await jobs.open()
        try:
            yield
        finally:
            left = [task for task in (warming, minding, *state.tasks) if task is not None]
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)  # they may hold connections
            await jobs.close()
            await engine.close()
            await database.dispose()
            await asyncio.to_thread(tracing.flush)

    app = FastAPI(
        title="saescope", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None,
        openapi_url="/api/openapi.json", openapi_tags=TAGS, description=ABOUT,
    )  # fmt: skip
    app.add_middleware(Bodies, settings=settings, refuse=_refuse)
    if settings.team:
        app.add_middleware(Identity, settings=settings, refuse=_refuse)
    app.add_middleware(Guard, settings=settings, refuse=_refuse)
    app.add_middleware(Headers, team=settings.team)
    app.add_middleware(Compressed, minimum_size=1000, exclude_content_types=_AS_IT_IS)
    app.add_middleware(Counted, traffic=traffic)
    app.add_middleware(Heads)
    if settings.proxies:
        app.add_middleware(ProxyHeadersMiddleware, trusted_hosts=list(believed(settings)))
    app.add_exception_handler(NotModified, not_modified)
    app.add_exception_handler(SaescopeError, _refuse)
    app.add_exception_handler(RequestValidationError, _refuse)
    app.add_exception_handler(SQLAlchemyError, _refuse)
    app.add_exception_handler(HTTPException, _refuse)
    app.add_exception_handler(ClientDisconnect, _gone)
    app.add_exception_handler(Exception, _unexpected)
    app.mount("/static", CompressedStaticFiles(directory=ROOT / "static"), name="static")
    for routes in (
        router,
        differences,  # these two before the inspector's, whose runs are named where their pages are
        heads,
        inspection,  # early, for a prompt is looked up among these in order
        operations,
        browse,
        search,
        exports,
        evaluations,
        compare,
        circuits,
        features,
        example_page,
        explanations,
        previews,
        alike,
        intervention,
        intervene_page,
        attribution,
        map_page,  # before what a version's address would take
        maps,
        notes,
        list_adding,  # before the lists themselves
        lists,
        list_api,
        graphs,
        circuit_tracer,
        *(accounts if settings.team else ()),
        runs,
        jobs_router,
        ask,
        explanation_api,
        training,
        patterns,
        fallback,
    ):
        app.include_router(routes)
    summarise(app)
    return app


async def _warm(state: State) -> None:
    await asyncio.to_thread(site_version)
    saes = []
    with contextlib.suppress(SaescopeError, SQLAlchemyError):
        async with state.database.connect() as connection:
            saes = await queries.list_saes(connection)
            embedded = await standing(connection, [sae.id for sae in saes])
        if any(one.model for one in embedded.values()):
            await state.engine.embed(["warm"])
    with contextlib.suppress(SaescopeError, SQLAlchemyError):
        if saes:
            await state.vocabulary(saes[0])
            await state.engine.warm(target(saes[0], state.settings.home))


async def _mind(home: Path) -> None:
    """Start the embedded database again when it was killed, by a machine without memory, say."""
    while True:
        await asyncio.sleep(MIND_S)
        try:
            if await asyncio.to_thread(revive, home):
                _log.warning("The embedded database had ended; it was started again.")
        except (OSError, RuntimeError, subprocess.SubprocessError) as error:
            _log.warning("The embedded database has ended and does not start again yet: %s", type(error).__name__)


class Heads:
    """HEAD is answered like GET; the server itself leaves the body out."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "HEAD":
            scope = {**scope, "method": "GET"}
        await self._app(scope, receive, send)


async def _refuse(request: Request, error: Exception) -> Response:
    """Any refusal as JSON where JSON was asked for, else as a page or, for htmx, a fragment."""
    shown: SaescopeError
    if isinstance(error, RequestValidationError):
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"][1:]) or "request"
        shown = BadRequest(f"{name} does not fit: {first['msg'].lower()}.", field=name)
        if first["type"] == "extra_forbidden":
            sentence = f"There is no field {name[:100]!r} here; /api/docs lists those there are."
            shown = BadRequest(sentence, field=name[:100])
        if first.get("type") == "json_invalid":
            shown = BadRequest("The body is not JSON.", field="body")
        elif first["loc"] == ("body",) and "json" not in request.headers.get("content-type", ""):
            shown = BadRequest("Send the body as JSON, with the header Content-Type: application/json.", field="body")
    elif isinstance(error, SaescopeError):
        shown = error
    elif isinstance(error, HTTPException):
        known = {
            400: "The body is not JSON.",
            404: "There is nothing here.",
            405: f"{request.method} is not answered here; see /api/docs.",
        }
        shown = SaescopeError(known.get(error.status_code, f"{error.detail}."))
        shown.status, shown.code = error.status_code, {404: "not_found", 405: "method"}.get(error.status_code, "error")
    else:
        told = explain(error)
        if told is None:
            raise error
        shown = told
    headers = dict((error.headers or {}) if isinstance(error, HTTPException) else {})  # Allow, of a wrong method
    if "retry_after" in shown.detail:
        headers["Retry-After"] = str(shown.detail["retry_after"])
    path = request.url.path
    if path.endswith(".json") or path.startswith("/api/") or path in ("/readyz", "/metrics"):
        return JSONResponse(shown.as_json(), status_code=shown.status, headers=headers)
    titles = {
        401: "Sign in",
        403: "Not allowed",
        404: "Not found",
        410: "No longer there",
        413: "Too long",
        429: "Too much at once",
        501: "Not possible here",
        503: "Not available",
    }
    found = re.match(r"/saes/([^/]+)/.", path)
    known_sae = found and shown.code not in ("sae_unknown", "database_unavailable")
    page = ErrorPage(
        status=shown.status,
        title=titles.get(shown.status, "That did not work" if shown.status >= 500 else "Not understood"),
        code=shown.code,
        message=shown.message,
        request=request.state.request_id if shown.status >= 500 and shown.status != 501 else None,
        back=urls.sae(found[1]) if found and known_sae else None,
    )
    if not request.headers.get("hx-request"):
        return HTMLResponse(render_page("error.html", page=page), status_code=shown.status, headers=headers)
    # The fragment takes the place of what it was to be swapped for, so the next request finds its target again.
    _, _, place = request.headers.get("hx-target", "").partition("#")
    fragment = render_page("error_fragment.html", page=page, place=place if place.isidentifier() else "")
    return HTMLResponse(fragment, status_code=shown.status, headers={"hx-push-url": "false"})


async def _gone(request: Request, error: Exception) -> Response:
    """The client left before its body was whole: nobody reads this answer."""
    return Response(status_code=400)


async def _unexpected(request: Request, error: Exception) -> Response:
    """What nobody foresaw: logged with its traceback by the server, one sentence for the reader."""
    response = await _refuse(request, SaescopeError("Something went wrong here; the server's log says what."))
    secure(response.headers)  # this handler runs outside the middleware
    response.headers["x-request-id"] = request.state.request_id
    return response


def _engine(settings: Settings) -> Inference:
    if settings.infer_urls:
        from app.infer.client import Services

        return Services.of(settings)
    from app.infer.local import local_engine  # torch comes with it

    engine = local_engine(settings)
    engine.start()
    return engine


def _hardware(settings: Settings) -> str:
    if settings.infer_urls:
        services = len(settings.infer_urls)
        return "an inference service" if services == 1 else f"{services} inference services"
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_name(0)
    return f"CPU, {os.cpu_count()} cores ({platform.machine()})"
