"""Routes for whoever looks after an instance: whether it is up, whether it is ready, and its numbers."""

import asyncio
import contextlib
import hmac
from typing import Literal

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import BaseModel, Field
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from app.errors import DatabaseUnavailable, EngineStopped, MetricsClosed
from app.store.engine import explain
from app.store.migrate import newest, revision
from app.store.run_queries import count_runs
from app.web.exposition import CONTENT_TYPE, exposition
from app.web.guard import is_loopback
from app.web.refusals import refused
from app.web.routes import state_of
from app.web.state import State

PATIENCE_S = 3.0
router = APIRouter(tags=["site"])


class EngineState(BaseModel):
    """Pages that need no model work without it."""

    where: Literal["here", "elsewhere"] = Field(description="Whether the model runs in this process.")
    running: bool = Field(description="Whether it takes requests; of services elsewhere, whether one could be reached.")
    waiting: int = Field(description="Requests that wait for it or are on their way.")


class Ready(BaseModel):
    """What a load balancer asks for."""

    status: Literal["ready"]
    schema_revision: str = Field(description="The database's schema.")
    engine: EngineState


@router.get("/healthz", responses=refused())
async def healthz() -> dict[str, str]:
    """Answers while the process is up."""
    return {"status": "ok"}


@router.get("/readyz", response_model=Ready, responses=refused(EngineStopped))
async def readyz(request: Request) -> Ready:
    """Whether pages are answered: the database is there, and of this version; the engine's state is told beside it."""
    state = state_of(request)
    if state.stopping:
        raise EngineStopped("The server is being stopped; ask another, or this one in a moment.")
    have = await _revision(state.reads)
    if have != newest():
        raise DatabaseUnavailable(
            f"The database's schema is {have or 'missing'} and this saescope's {newest()}; start it again, which "
            "brings the database up to date.",
            schema_revision=have,
        )
    return Ready(status="ready", schema_revision=have, engine=_engine(state))


@router.get(
    "/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}, **refused(MetricsClosed)}
)
async def metrics(request: Request) -> Response:
    """Numbers for Prometheus; from other machines with the token that SAESCOPE_METRICS_TOKEN says."""
    state = state_of(request)
    admit(request, state.settings.metrics_token)
    runs = None
    with contextlib.suppress(SQLAlchemyError, OSError, TimeoutError):
        async with asyncio.timeout(PATIENCE_S), state.reads.connect() as connection:
            runs = await count_runs(connection)
    told = exposition(state.traffic, state.engine.stats(), state.database, runs)
    return Response(told, media_type=CONTENT_TYPE)


def admit(request: Request, token: str | None) -> None:
    """Who is on this machine, and was not passed on by a proxy, needs no token.

    Raises:
        MetricsClosed: everybody else without the right one.
    """
    given = request.headers.get("authorization", "").encode("latin-1")
    if token and hmac.compare_digest(given, f"Bearer {token}".encode()):
        return
    passed_on = "x-forwarded-for" in request.headers or "forwarded" in request.headers
    if request.client is not None and is_loopback(request.client.host) and not passed_on:
        return
    raise MetricsClosed(
        "The numbers are for this machine alone; from elsewhere send the token that SAESCOPE_METRICS_TOKEN says, as "
        "Authorization: Bearer TOKEN."
    )


async def _revision(database: AsyncEngine) -> str | None:
    """
    Raises:
        DatabaseUnavailable: no answer in time.
    """
    try:
        async with asyncio.timeout(PATIENCE_S), database.connect() as connection:
            return await connection.run_sync(revision)
    except TimeoutError:
        raise DatabaseUnavailable(f"The database has not answered for {PATIENCE_S:.0f} seconds.") from None
    except SQLAlchemyError as error:
        raise explain(error) or error from None


def _engine(state: State) -> EngineState:
    stats = state.engine.stats()
    where: Literal["here", "elsewhere"] = "elsewhere" if state.settings.infer_urls else "here"
    return EngineState(where=where, running=stats.running, waiting=stats.waiting)
