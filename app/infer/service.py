"""The engine behind HTTP, for the site's own processes: no database, no pages."""

import asyncio
import contextlib
import hmac
import os
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Scope

from app import tracing
from app.errors import BadRequest, EngineStopped, PathRefused, SaescopeError, TextTooLong, TokenWrong
from app.infer import wire
from app.live.engine import Engine
from app.live.prompt import Target
from app.settings import Settings
from app.web.exposition import CONTENT_TYPE, exposition
from app.web.gone import while_there
from app.web.guard import Guard
from app.web.operations import admit
from app.web.streamed import Streamed
from app.web.traffic import Counted, Traffic

_PATHS = ("/healthz", "/readyz", "/metrics", "/read", "/run")


def service(engine: Engine, settings: Settings) -> Starlette:
    """``settings`` say the home, the token, and the address it listens on."""
    traffic = Traffic()
    asks = _Asks(engine, settings, traffic)

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        engine.start()
        yield
        await engine.close()
        await asyncio.to_thread(tracing.flush)

    app = Starlette(
        routes=[
            Route("/healthz", _healthz),
            Route("/readyz", asks.readyz),
            Route("/metrics", asks.metrics),
            Route("/read", asks.read, methods=["POST"]),
            Route("/run", asks.run, methods=["POST"]),
            Route("/embed", asks.embed, methods=["POST"]),
        ],
        lifespan=lifespan,
        exception_handlers={
            SaescopeError: refused, HTTPException: refused, ClientDisconnect: _gone, Exception: refused,
        },
    )  # fmt: skip
    app.add_middleware(Guard, settings=settings, refuse=refused)
    app.add_middleware(Counted, traffic=traffic, route=_route)
    return app


async def refused(request: Request, error: Exception) -> Response:
    """Any refusal as JSON; what nobody foresaw is logged with its traceback by the server."""
    if isinstance(error, SaescopeError):
        shown = error
    elif isinstance(error, HTTPException):
        shown = SaescopeError("There is nothing here; this is an inference service, whose pages are elsewhere.")
        shown.status, shown.code = error.status_code, {404: "not_found", 405: "method"}.get(error.status_code, "error")
    else:
        shown = SaescopeError("Something went wrong in the inference service; its log says what.")
    headers = {"Retry-After": str(shown.detail["retry_after"])} if "retry_after" in shown.detail else {}
    headers["X-Request-ID"] = request.state.request_id
    return JSONResponse(wire.error_json(shown), status_code=shown.status, headers=headers)


def _route(scope: Scope) -> str:
    return str(scope["path"]) if scope["path"] in _PATHS else "none"


async def _gone(request: Request, error: Exception) -> Response:
    return Response(status_code=400)


async def _healthz(request: Request) -> Response:
    return JSONResponse({"status": "ok"})


class _Asks:
    """What is asked of the engine, once it is let in."""

    def __init__(self, engine: Engine, settings: Settings, traffic: Traffic) -> None:
        self._engine, self._token, self._traffic = engine, settings.infer_token, traffic
        self._metrics_token = settings.metrics_token
        self._longest = (1 << 20) + 12 * settings.max_prompt_chars  # as JSON escapes them
        self._folders = [settings.home.resolve(), *(folder.resolve() for folder in settings.infer_folder_list)]

    async def readyz(self, request: Request) -> Response:
        if not self._engine.running:
            raise EngineStopped("The service is being stopped; try again in a moment.")
        return JSONResponse({"status": "ready", "pending": self._engine.pending, "process": os.getpid()})

    async def metrics(self, request: Request) -> Response:
        admit(request, self._metrics_token)
        return Response(exposition(self._traffic, self._engine.stats()), media_type=CONTENT_TYPE)

    async def read(self, request: Request) -> Response:
        ask = wire.asked(wire.ReadAsk, await self._body(request))
        targets = [self._target(place) for place in ask.targets]
        work = self._engine.read(targets, ask.text, chat=ask.chat, predict=ask.predict)
        run = await while_there(request, work)
        readings = {p.revision: run.readings[t.revision] for p, t in zip(ask.targets, targets, strict=True)}
        run = replace(run, readings=readings, predictions=run.predictions if ask.predict else None)
        return Response(wire.run_written(run), media_type=wire.OCTETS)

    async def run(self, request: Request) -> Response:
        ask = wire.asked(wire.RunAsk, await self._body(request))
        answers: AsyncGenerator[Any, None] = self._engine.run([self._target(p) for p in ask.targets], ask.job)

        async def begin() -> Any:
            return await anext(answers, None)

        first = await while_there(request, begin())  # so that a refusal has its status

        async def lines() -> AsyncGenerator[bytes, None]:
            try:
                if first is not None:
                    yield wire.answer_line(first)
                async for answer in answers:
                    yield wire.answer_line(answer)
                yield b'{"done": true}\n'
            except SaescopeError as error:
                yield wire.error_line(error)
            finally:
                await answers.aclose()

        return Streamed(lines(), media_type=wire.LINES)

    async def embed(self, request: Request) -> Response:
        ask = wire.asked(wire.EmbedAsk, await self._body(request))
        return JSONResponse(wire.embedded_json(await while_there(request, self._engine.embed(ask.texts))))

    async def _body(self, request: Request) -> bytes:
        """
        Raises:
            TokenWrong, BadRequest, TextTooLong: it is not let in, is no JSON, or too long.
        """
        given = request.headers.get("authorization", "").encode("latin-1")  # its bytes as they came
        if self._token is not None and not hmac.compare_digest(given, f"Bearer {self._token}".encode()):
            raise TokenWrong("The token is not this service's; SAESCOPE_INFER_TOKEN must be the same on both sides.")
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            raise BadRequest("Send the body as JSON, with the header Content-Type: application/json.", field="body")
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > self._longest:
                raise TextTooLong(f"The request is longer than {self._longest >> 10} KiB.", limit=self._longest)
        return bytes(body)

    def _target(self, place: wire.Place) -> Target:
        """With the weights' hash in the revision, so that what was read with some is not taken for what others give."""
        return Target(
            f"{place.revision}/{place.sae_sha256}", place.subject, self._inside(place.subject_path),
            self._inside(place.sae_path), place.subject_sha256, place.sae_sha256,
        )  # fmt: skip

    def _inside(self, asked: str) -> Path:
        """
        Raises:
            PathRefused: it leads out of the home and the folders that may be read.
        """
        try:
            path = (self._folders[0] / asked).resolve()
        except (OSError, ValueError, RuntimeError):
            path = Path()
        if not any(path.is_relative_to(folder) for folder in self._folders):
            raise PathRefused(
                f"{asked} is outside the folders that the inference service reads; name its folder in "
                "SAESCOPE_INFER_FOLDERS there.",
                path=asked,
            )
        return path
