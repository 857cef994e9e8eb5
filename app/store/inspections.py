"""Prompts that were kept, with what was read of them."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime

from sqlalchemy import delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from app.errors import UnknownInspection
from app.roles import Visibility
from app.store import tables as t
from app.store.reader import check_own, owner_of_new, visible

_LETTERS = "23456789abcdefghjkmnpqrstuvwxyz"  # none that look alike
_LENGTH = 10


@dataclass(frozen=True)
class InspectionRecord:
    """slugs and revisions: the SAEs it was read with; data: app.live.packed."""

    id: str
    made: datetime
    subject: str
    text: str
    chat: bool
    slugs: list[str]
    revisions: list[str]
    data: bytes
    owner_id: int | None
    visibility: Visibility


async def keep(
    connection: AsyncConnection, *, subject: str, text: str, chat: bool, saes: list[tuple[str, str]], data: bytes
) -> str:
    """Store a run; its id, which nobody guesses. saes: (slug, revision) each."""
    name = "".join(secrets.choice(_LETTERS) for _ in range(_LENGTH))
    row = {
        "id": name, "subject": subject, "text": text, "chat": chat, "slugs": [slug for slug, _ in saes],
        "revisions": [revision for _, revision in saes], "data": data,
        "owner_id": await owner_of_new(connection, t.inspection),
    }  # fmt: skip
    await connection.execute(insert(t.inspection).values(row))
    return name


async def get(connection: AsyncConnection, name: str) -> InspectionRecord:
    """
    Raises:
        UnknownInspection: there is none of that name.
    """
    return (await get_all(connection, [name]))[name]


async def get_all(connection: AsyncConnection, names: Sequence[str]) -> dict[str, InspectionRecord]:
    """Several runs by name, in one query.

    Raises:
        UnknownInspection: there is none of one of the names.
    """
    if not names:
        return {}
    known = [name for name in names if name.isascii() and name.isalnum()]
    wanted = select(*[t.inspection.c[field.name] for field in fields(InspectionRecord)])
    rows = await connection.execute(wanted.where(t.inspection.c.id.in_(known), visible(t.inspection)))
    found = {row.id: InspectionRecord(*row) for row in rows}
    for name in names:
        if name not in found:
            raise UnknownInspection(f"There is no inspection {name[:30]!r} here.", inspection=name[:30])
    return found


async def show_to(connection: AsyncConnection, name: str, visibility: Visibility) -> None:
    """
    Raises:
        UnknownInspection. Forbidden: it is another's.
    """
    record = await get(connection, name)
    check_own(record.owner_id, "This run")
    await connection.execute(update(t.inspection).where(t.inspection.c.id == name).values(visibility=visibility))


async def remove(connection: AsyncConnection, name: str) -> None:
    """
    Raises:
        UnknownInspection. Forbidden: it is another's.
    """
    record = await get(connection, name)
    check_own(record.owner_id, "This run")
    await connection.execute(delete(t.inspection).where(t.inspection.c.id == name))
