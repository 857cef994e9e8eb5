"""Statements sent together, answered in one round trip to the database, by psycopg's pipeline.

Rows are psycopg's own tuples. In those of the statements here SQLAlchemy would change nothing, and it takes as long
over them as the database does.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import SimpleNamespace
from typing import Any, Generic, TypeVar

import psycopg
from sqlalchemy import ClauseElement, Connection, Dialect
from sqlalchemy.engine.interfaces import Compiled
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

A = TypeVar("A")
Rows = list[tuple[Any, ...]]
# What tables are partitioned by. With these as parameters PostgreSQL plans a prepared statement anew each time, since a
# plan that fits every partition looks dearer; planning takes longer than the answer does.
PARTITIONED = ("sae", "corpus")


@dataclass(frozen=True)
class Asked(Generic[A]):
    """A statement that is a module's constant, for it is compiled once, parameters that psycopg takes as they are, and
    what is to be made of the rows."""

    statement: ClauseElement
    parameters: Mapping[str, Any]
    read: Callable[[Rows], A]


async def ask(connection: AsyncConnection, asked: Asked[A]) -> A:
    """What the database answers to one.

    Raises:
        DBAPIError: as any statement does.
    """
    (found,) = await at_once(connection, asked)
    return found  # type: ignore[no-any-return]


async def at_once(connection: AsyncConnection, *asked: Asked[Any]) -> list[Any]:
    """The answers to several, in their order. The engine's listeners hear of each statement as of any other.

    Raises:
        DBAPIError: as any statement does.
    """
    sync = connection.sync_connection
    assert sync is not None
    link: Any = (await connection.get_raw_connection()).driver_connection
    ready = [(one.read, *_ready(one, sync.dialect), SimpleNamespace()) for one in asked]
    for _, statement, parameters, context in ready:
        _tell(sync, "before_cursor_execute", statement, parameters, context)
    try:
        async with link.pipeline():
            cursors = [await link.execute(statement, parameters) for _, statement, parameters, _ in ready]
            rows = [await cursor.fetchall() for cursor in cursors]
    except psycopg.Error as error:
        if link.closed:
            await connection.invalidate(error)
        raise _as_ever(error, sync) from error
    finally:
        for _, statement, parameters, context in ready:
            _tell(sync, "after_cursor_execute", statement, parameters, context)
    return [one.read(found) for one, found in zip(asked, rows, strict=True)]


def _ready(asked: Asked[Any], dialect: Dialect) -> tuple[str, dict[str, Any]]:
    """The statement and its parameters, but for those of PARTITIONED, which it names."""
    compiled = _compiled(asked.statement, dialect)
    parameters = dict(compiled.construct_params(dict(asked.parameters)) or {})
    named = tuple((key, int(parameters.pop(key))) for key in PARTITIONED if key in parameters)
    return _naming(str(compiled), named), parameters


@lru_cache(maxsize=256)
def _naming(statement: str, named: tuple[tuple[str, int], ...]) -> str:
    for key, value in named:
        statement = statement.replace(f"%({key})s", str(value))
    return statement


@lru_cache(maxsize=64)
def _compiled(statement: ClauseElement, dialect: Dialect) -> Compiled:
    return statement.compile(dialect=dialect)


def _tell(sync: Connection, event: str, statement: str, parameters: object, context: SimpleNamespace) -> None:
    for listener in getattr(sync.dispatch, event):
        listener(sync, None, statement, parameters, context, False)


def _as_ever(error: psycopg.Error, sync: Connection) -> BaseException:
    """The error as SQLAlchemy would have raised it, without the parameters."""
    return DBAPIError.instance(None, None, error, psycopg.Error, hide_parameters=True, dialect=sync.dialect)
