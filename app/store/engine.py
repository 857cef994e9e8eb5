"""Connections: one URL, a synchronous engine for bulk work and an asynchronous one for the web."""

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from sqlalchemy import Engine, create_engine, make_url
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError, DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from app.errors import DatabaseUnavailable, DiskFull, SaescopeError
from app.settings import Settings
from app.store.embedded import start_embedded


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
    return create_engine(url, connect_args={"connect_timeout": 5}, pool_pre_ping=True)


def async_engine(url: URL) -> AsyncEngine:
    return create_async_engine(
        url,
        connect_args={"connect_timeout": 5},
        pool_size=10,
        max_overflow=10,
        pool_timeout=5,
        pool_pre_ping=True,
    )


def explain(error: Exception) -> SaescopeError | None:
    """The user's error for a database failure, None if ``error`` is something else."""
    original = error.orig if isinstance(error, DBAPIError) else error
    if isinstance(original, psycopg.errors.DiskFull):
        return DiskFull("The database's disk is full; free some space and try again.")
    if isinstance(error, PoolTimeout):
        return DatabaseUnavailable("The server is busy with other requests; try again in a moment.")
    if isinstance(original, psycopg.ProgrammingError) and not isinstance(error, DBAPIError):
        return DatabaseUnavailable(f"The database's URL is not understood: {str(original).strip().splitlines()[0]}")
    if isinstance(original, psycopg.ProgrammingError) and "connection" in str(original):
        return DatabaseUnavailable(f"The database's URL is not understood: {str(original).strip().splitlines()[0]}")
    if isinstance(error, OperationalError) or isinstance(original, psycopg.OperationalError):
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
