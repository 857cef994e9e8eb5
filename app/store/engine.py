"""Connections: one URL, a synchronous engine for bulk work and an asynchronous one for the web."""

import math
import select
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from sqlalchemy import Engine, create_engine, event, make_url
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError, DBAPIError, DisconnectionError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from app.errors import DatabaseUnavailable, DiskFull, QueryTooLong, SaescopeError
from app.settings import Settings
from app.store.embedded import start_embedded

# What a network that swallows packets is noticed by; a server on a Unix socket passes over it.
_CONNECTING: dict[str, int | str] = {
    "connect_timeout": 5, "keepalives_idle": 30, "keepalives_interval": 5, "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
}  # fmt: skip
_SERVING = {"pool_size": 10, "max_overflow": 10, "pool_timeout": 5}
_BESIDE = 4  # connections for all that work that holds one each asks for beside it


def database_url(settings: Settings) -> URL:
    """The server of the settings, or the embedded one, which this starts."""
    text = settings.database_url or start_embedded(settings.home)
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        raise DatabaseUnavailable(
            "SAESCOPE_DATABASE_URL is not a database URL; wanted postgresql://user@host:port/database."
        ) from None
    if not url.drivername.startswith("postgres"):
        raise DatabaseUnavailable(
            f"SAESCOPE_DATABASE_URL names {url.drivername!r}; saescope needs PostgreSQL with pgvector.",
            driver=url.drivername,
        )
    return url.set(drivername="postgresql+psycopg")


def sync_engine(url: URL) -> Engine:
    return create_engine(url, connect_args=_CONNECTING, pool_pre_ping=True, hide_parameters=True)


def async_engine(url: URL, seconds: float = 0, holding: int = 0) -> AsyncEngine:
    """seconds: how long a statement may take, 0 any. holding: connections that a job holds on to while it asks for
    others, which it then gets in turn, however slow the database is; whoever waits for a page is told after 5 s."""
    connecting = dict(_CONNECTING)
    if seconds:
        options = (url.query.get("options", ""), f"-c statement_timeout={math.ceil(1000 * seconds)}")
        connecting["options"] = " ".join(filter(None, map(str, options)))
    pool = {"pool_size": holding + _BESIDE, "max_overflow": 0, "pool_timeout": 600} if holding else _SERVING
    engine = create_async_engine(url, connect_args=connecting, hide_parameters=True, **pool)
    event.listen(engine.sync_engine, "checkout", _still_there)
    return engine


def _still_there(connection: Any, *_: object) -> None:
    """Look at the socket of a connection before it is used again: there is something to read on an idle one only when
    the server has said goodbye, or is gone. That costs a microsecond where a question costs a round trip.

    Raises:
        DisconnectionError: it is gone; the pool makes a new one.
    """
    link = connection.driver_connection
    looked = select.poll()
    if not link.closed:
        looked.register(link.fileno(), select.POLLIN)
    if link.closed or looked.poll(0):
        raise DisconnectionError("the server has closed this connection")


def explain(error: Exception) -> SaescopeError | None:
    """The user's error for a database failure, None if ``error`` is something else."""
    original = error.orig if isinstance(error, DBAPIError) else error
    if isinstance(original, psycopg.errors.DiskFull):
        return DiskFull("The database's disk is full; free some space and try again.")
    if isinstance(original, psycopg.errors.QueryCanceled):
        return QueryTooLong("The database took too long over this; ask for less, such as one SAE or a rarer word.")
    if isinstance(error, PoolTimeout):
        return DatabaseUnavailable("The server is busy with other requests; try again in a moment.")
    if isinstance(original, psycopg.ProgrammingError) and not isinstance(error, DBAPIError):
        return DatabaseUnavailable(f"The database's URL is not understood: {str(original).strip().splitlines()[0]}")
    if isinstance(original, psycopg.ProgrammingError) and "connection" in str(original):
        return DatabaseUnavailable(f"The database's URL is not understood: {str(original).strip().splitlines()[0]}")
    if isinstance(error, OperationalError) or isinstance(
        original, psycopg.OperationalError | psycopg.InterfaceError
    ):  # the latter of a connection that was closed while it was used
        lines = str(original).strip().splitlines()
        reason = lines[0] if lines else "no answer"
        return DatabaseUnavailable(
            f"The database does not answer: {reason.rstrip('.')}. Start it again; the embedded one starts with "
            "saescope.",
            reason=reason,
        )
    return None


@contextmanager
def explained() -> Iterator[None]:
    """Turn database failures inside the block into the errors users meet."""
    try:
        yield
    except Exception as error:
        told = explain(error)
        if told is None:
            raise
        raise told from error
