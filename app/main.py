"""The application factory: no work at import."""

import asyncio
import contextlib
import os
import platform
import re
from collections.abc import AsyncIterator

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import HTTPException
from starlette.middleware.gzip import DEFAULT_EXCLUDED_CONTENT_TYPES, GZipMiddleware
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Receive, Scope, Send

from app import __version__, urls
from app.errors import BadRequest, SaescopeError
from app.harvest.job import in_dtype, read_sae
from app.harvest.subjects import HASHES
from app.jobs import Harvests
from app.live.engine import Engine
from app.live.residents import Residents
from app.settings import Settings
from app.store import queries
from app.store.engine import async_engine, database_url, explain, sync_engine
from app.store.migrate import migrate
from app.web.attribution import router as attribution
from app.web.browse import router as browse
from app.web.compare import router as compare
from app.web.contexts import ErrorPage
from app.web.example_page import router as example_page
from app.web.exports import router as exports
from app.web.features import router as features
from app.web.freshness import NotModified, not_modified, site_version
from app.web.guard import Guard
from app.web.headers import Headers, secure
from app.web.inspection import router as inspection
from app.web.intervention import router as intervention
from app.web.maps import router as maps
from app.web.patterns import router as patterns
from app.web.previews import router as previews
from app.web.rendering import ROOT, render_page
from app.web.routes import fallback, router
from app.web.runs import router as runs
from app.web.state import State, target
from app.web.static_files import CompressedStaticFiles

# Parquet holds compressed columns; a map's tiles shrink little.
_AS_IT_IS = (*DEFAULT_EXCLUDED_CONTENT_TYPES, "application/vnd.apache.parquet", "application/octet-stream")


def create_app(settings: Settings) -> FastAPI:
    """The site over ``settings``: its database is opened (and migrated) when the server starts."""

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        url = await asyncio.to_thread(database_url, settings)
        sync = sync_engine(url)
        await asyncio.to_thread(migrate, sync)
        sync.dispose()
        residents = Residents(
            lambda path: in_dtype(read_sae(path), settings.sae_dtype),
            dtype=settings.dtype,
            device=settings.device,
            budget=None if settings.engine_gb is None else int(settings.engine_gb * 1e9),
            hashes=settings.home / HASHES,
        )
        engine = Engine(
            residents,
            max_tokens=settings.max_prompt_tokens,
            max_chars=settings.max_prompt_chars,
            batch_tokens=settings.batch_tokens,
            waiting=settings.engine_waiting,
        )
        engine.start()
        database = async_engine(url)
        harvests = Harvests(settings, url, database)
        state = State(settings, database, engine, harvests, _hardware())
        app.state.saescope = state
        warming = asyncio.create_task(_warm(state))
        if settings.worker:
            await harvests.open()
        try:
            yield
        finally:
            warming.cancel()
            await asyncio.gather(warming, return_exceptions=True)  # it may hold a connection
            await harvests.close()
            await asyncio.to_thread(engine.stop)
            await database.dispose()

    app = FastAPI(
        title="saescope", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None,
        openapi_url="/api/openapi.json",
    )  # fmt: skip
    app.add_middleware(Guard, settings=settings, refuse=_refuse)
    app.add_middleware(Headers)
    app.add_middleware(GZipMiddleware, minimum_size=1000, compresslevel=4, exclude_content_types=_AS_IT_IS)
    app.add_middleware(Heads)
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
        browse,
        exports,
        compare,
        features,
        example_page,
        previews,
        inspection,
        intervention,
        attribution,
        maps,
        runs,
        patterns,
        fallback,
    ):
        app.include_router(routes)
    return app


async def _warm(state: State) -> None:
    await asyncio.to_thread(site_version)
    with contextlib.suppress(SaescopeError, SQLAlchemyError):
        async with state.database.connect() as connection:
            saes = await queries.list_saes(connection)
        if saes:
            await state.vocabulary(saes[0])
            await state.engine.warm(target(saes[0], state.settings.home))


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
    if path.endswith(".json") or path.startswith("/api/"):
        return JSONResponse(shown.as_json(), status_code=shown.status, headers=headers)
    titles = {404: "Not found", 413: "Too long", 503: "Not available"}
    found = re.match(r"/saes/([^/]+)/.", path)
    known_sae = found and shown.code not in ("sae_unknown", "database_unavailable")
    page = ErrorPage(
        status=shown.status,
        title=titles.get(shown.status, "That did not work" if shown.status >= 500 else "Not understood"),
        code=shown.code,
        message=shown.message,
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
    return response


def _hardware() -> str:
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_name(0)
    return f"CPU, {os.cpu_count()} cores ({platform.machine()})"
