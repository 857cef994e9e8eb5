"""Attribution graphs: kept, found, listed and removed."""

import secrets
from dataclasses import dataclass, fields
from datetime import datetime

from sqlalchemy import Insert, delete, insert, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from app.errors import BadRequest, UnknownGraph
from app.store import tables as t

PAGE = 50
_LETTERS = "23456789abcdefghjkmnpqrstuvwxyz"  # none that look alike
_g = t.graph.c


@dataclass(frozen=True)
class GraphRecord:
    """A graph without its nodes."""

    id: str
    made: datetime
    title: str
    scan: str
    prompt: str
    nodes: int
    links: int


_ABOUT = [_g[field.name] for field in fields(GraphRecord)]


def keeping(title: str, scan: str, prompt: str, nodes: int, links: int, data: bytes) -> tuple[str, Insert]:
    """A name that nobody guesses, and the statement that keeps a graph under it."""
    name = "".join(secrets.choice(_LETTERS) for _ in range(10))
    values = {"id": name, "title": title, "scan": scan, "prompt": prompt, "nodes": nodes, "links": links, "data": data}
    return name, insert(t.graph).values(values)


async def get_graph(connection: AsyncConnection, name: str) -> tuple[GraphRecord, bytes]:
    """
    Raises:
        UnknownGraph: there is none of that name.
    """
    if name.isascii() and name.isalnum():
        row = (await connection.execute(select(*_ABOUT, _g.data).where(_g.id == name))).first()
        if row is not None:
            return GraphRecord(*row[:-1]), row.data
    raise UnknownGraph(f"There is no graph {name[:30]!r} here.", graph=name[:30])


async def list_graphs(connection: AsyncConnection, cursor: str | None) -> tuple[list[GraphRecord], str | None]:
    """The newest first, and where the next page begins.

    Raises:
        BadRequest: the cursor is none.
    """
    query = select(*_ABOUT).order_by(_g.made.desc(), _g.id.desc()).limit(PAGE + 1)
    if cursor:
        made, _, name = cursor.partition("_")
        try:
            after = datetime.fromisoformat(made)
        except ValueError:
            after = None
        if after is None or after.tzinfo is None or not name.isascii() or not name.isalnum():
            raise BadRequest("cursor is none of this server's; start from the first page.", field="cursor")
        query = query.where(tuple_(_g.made, _g.id) < tuple_(after, name))
    rows = [GraphRecord(*row) for row in await connection.execute(query)]
    last = rows[PAGE - 1] if len(rows) > PAGE else None
    return rows[:PAGE], f"{last.made.isoformat()}_{last.id}" if last else None


async def remove_graph(connection: AsyncConnection, name: str) -> None:
    await get_graph(connection, name)
    await connection.execute(delete(t.graph).where(_g.id == name))
