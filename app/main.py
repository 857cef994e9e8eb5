"""The application factory: no work at import."""

import asyncio
import contextlib
import os
import platform
from collections.abc import AsyncIterator, Awaitable, Callable

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from fastapi.staticfiles import StaticFiles
from sqlalchemy.exc import SQLAlchemyError

from app import __version__
from app.errors import BadRequest, SaescopeError
from app.harvest.job import read_sae
from app.live.engine import Engine
from app.settings import Settings
from app.store import queries
from app.store.engine import async_engine, database_url, explain, sync_engine
from app.store.migrate import migrate
from app.web.contexts import ErrorPage
from app.web.rendering import ROOT, render_page
from app.web.routes import router
from app.web.state import State, target

_CSP = "default-src 'self'; script-src 'self'; style-src 'self'{plots}; img-src 'self' data:; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'"  # noqa: E501


def create_app(settings: Settings) -> FastAPI:
    """The site over ``settings``: its database is opened (and migrated) when the server starts."""

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        url = await asyncio.to_thread(database_url, settings)
        sync = sync_engine(url)
        await asyncio.to_thread(migrate, sync)
        sync.dispose()
        engine = Engine(
            read_sae,
            dtype=settings.dtype,
            device=settings.device,
            max_tokens=settings.max_prompt_tokens,
            max_chars=settings.max_prompt_chars,
            batch_tokens=settings.batch_tokens,
        )
        engine.start()
        state = State(settings, async_engine(url), engine, _hardware())
        app.state.saescope = state
        warming = asyncio.create_task(_warm(state))
        try:
            yield
        finally:
            warming.cancel()
            await asyncio.gather(warming, return_exceptions=True)  # it may hold a connection
            await asyncio.to_thread(engine.stop)
            await state.database.dispose()

    app = FastAPI(
        title="saescope", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None,
        openapi_url="/api/openapi.json",
    )  # fmt: skip
    app.middleware("http")(_secure)
    app.add_exception_handler(SaescopeError, _refuse)
    app.add_exception_handler(RequestValidationError, _refuse)
    app.add_exception_handler(SQLAlchemyError, _refuse)
    app.add_exception_handler(Exception, _unexpected)
    app.mount("/static", StaticFiles(directory=ROOT / "static"), name="static")
    app.include_router(router)
    return app


async def _warm(state: State) -> None:
    with contextlib.suppress(SaescopeError, SQLAlchemyError):
        async with state.database.connect() as connection:
            saes = await queries.list_saes(connection)
        if saes:
            await state.vocabulary(saes[0])
            await state.engine.warm(target(saes[0]))


async def _secure(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
    response = await call_next(request)
    plots = " 'unsafe-inline'" if response.headers.get("x-saescope-plots") else ""
    response.headers["content-security-policy"] = _CSP.format(plots=plots)
    response.headers["x-content-type-options"] = "nosniff"
    response.headers["referrer-policy"] = "same-origin"
    if request.url.path.startswith("/static/") and "v" in request.query_params:
        response.headers["cache-control"] = "public, max-age=31536000, immutable"
    return response


async def _refuse(request: Request, error: Exception) -> Response:
    """Any refusal as JSON where JSON was asked for, else as a page or, for htmx, a fragment."""
    if isinstance(error, RequestValidationError):
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"][1:]) or "request"
        shown = BadRequest(f"{name} does not fit: {first['msg'].lower()}.", field=name)
    elif isinstance(error, SaescopeError):
        shown = error  # type: ignore[assignment]
    else:
        told = explain(error)
        if told is None:
            raise error
        shown = told  # type: ignore[assignment]
    path = request.url.path
    if path.endswith(".json") or path.startswith("/api/"):
        return JSONResponse(shown.as_json(), status_code=shown.status)
    page = ErrorPage(status=shown.status, code=shown.code, message=shown.message)
    name = "error_fragment.html" if request.headers.get("hx-request") else "error.html"
    return HTMLResponse(render_page(name, page=page), status_code=shown.status)


async def _unexpected(request: Request, error: Exception) -> Response:
    """What nobody foresaw: logged with its traceback by the server, one sentence for the reader."""
    return await _refuse(request, SaescopeError("Something went wrong here; the server's log says what."))


def _hardware() -> str:
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_name(0)
    return f"CPU, {os.cpu_count()} cores ({platform.machine()})"
