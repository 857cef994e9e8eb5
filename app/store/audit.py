"""What was changed, by whom."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from app.errors import BadRequest
from app.store import tables as t
from app.store.plain import storable

_c = t.audit.c


@dataclass(frozen=True)
class AuditRecord:
    """action: the request's method and route; address: what was asked for, with, in ``detail``, ``to``, where that
    led, such as to what was made."""

    id: int
    at: datetime
    who: str
    client: str
    action: str
    address: str
    detail: dict[str, Any]


_ROWS = select(*[_c[f.name] for f in fields(AuditRecord)]).order_by(_c.id.desc())


async def record(
    connection: AsyncConnection,
    *,
    account: int | None,
    who: str,
    action: str,
    address: str = "",
    client: str = "",
    **detail: Any,
) -> None:
    values = {"account_id": account, "who": who, "client": client, "action": action}
    await connection.execute(insert(t.audit).values(**values, address=storable(address)[:500], detail=detail))


async def list_entries(
    connection: AsyncConnection, *, cursor: str | None, limit: int
) -> tuple[list[AuditRecord], str | None]:
    """A page, the newest first, and the cursor of the next.

    Raises:
        BadRequest: the cursor is none of this list.
    """
    query = _ROWS.limit(limit + 1)
    if cursor:
        if not (cursor.isascii() and cursor.isdigit() and len(cursor) < 19):
            raise BadRequest(f"Cursor {cursor[:40]!r} does not belong to this list; start again without a cursor.")
        query = query.where(_c.id < int(cursor))
    rows = [AuditRecord(*row) for row in await connection.execute(query)]
    return rows[:limit], str(rows[limit - 1].id) if len(rows) > limit else None


async def every_entry(connection: AsyncConnection) -> AsyncGenerator[AuditRecord, None]:
    """The oldest first."""
    rows = await connection.stream(_ROWS.order_by(None).order_by(_c.id))
    try:
        async for row in rows:
            yield AuditRecord(*row)
    finally:
        await rows.close()
