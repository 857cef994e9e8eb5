"""Lists: reading them by page, and every change of one. A change holds its list's row until its transaction ends."""

import re
import secrets
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from sqlalchemy import Row, Select, case, delete, func, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from app.errors import BadRequest, TooLarge, UnknownItem, UnknownList
from app.roles import Visibility
from app.store import tables as t
from app.store.reader import check_own, owner, owner_of_new, signed, visible

MOST_ITEMS = 1000
Way = Literal["up", "down", "first", "last"]
_LETTERS = "23456789abcdefghjkmnpqrstuvwxyz"  # none that look alike
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_l, _i = t.list_.c, t.list_item.c


@dataclass(frozen=True)
class ListRecord:
    """A list without its items; ``count`` is how many it has, and ``changed`` includes what was done to them."""

    id: int
    slug: str
    title: str
    description: str
    tags: list[str]
    author: str
    owner_id: int | None
    visibility: Visibility
    made: datetime
    changed: datetime
    count: int


@dataclass(frozen=True)
class ItemRecord:
    """reference: app.store.references; label: what it was called when it was added; added: None where only an address
    holds it."""

    id: int
    position: int
    reference: str
    label: str
    comment: str
    tags: list[str]
    added: datetime | None


@dataclass(frozen=True)
class ItemDraft:
    reference: str
    label: str = ""
    comment: str = ""
    tags: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class ListDraft:
    title: str
    description: str = ""
    tags: list[str] = field(default_factory=list)
    author: str = ""
    visibility: Visibility = "team"


_COUNT = select(func.count()).where(_i.list_id == _l.id).correlate(t.list_).scalar_subquery().label("count")
_LISTS: Select[Any] = select(*[_l[f.name] for f in fields(ListRecord)[:-1]], _COUNT).where(visible(t.list_))
_ITEMS: Select[Any] = select(*[_i[f.name] for f in fields(ItemRecord)])


async def list_lists(
    connection: AsyncConnection, *, text: str = "", tag: str = "", cursor: str | None = None, limit: int
) -> tuple[list[ListRecord], str | None]:
    """One page, the last changed first, and the cursor of the next. text: what title, description or a comment holds.

    Raises:
        BadRequest: the cursor is none of this list.
    """
    query = _LISTS.order_by(_l.changed.desc(), _l.id.desc()).limit(limit + 1)
    if text:
        commented = select(_i.id).where(_i.list_id == _l.id, _i.comment.icontains(text, autoescape=True))
        holds = (column.icontains(text, autoescape=True) for column in (_l.title, _l.description))
        query = query.where(or_(*holds, commented.correlate(t.list_).exists()))
    if tag:
        query = query.where(_l.tags.contains([tag]))
    if cursor:
        found = re.fullmatch(r"([0-9]{1,17})-([0-9]{1,9})", cursor)
        if found is None:
            raise BadRequest(f"Cursor {cursor[:40]!r} does not belong to this list; start again without a cursor.")
        after = _EPOCH + timedelta(microseconds=int(found[1]))
        query = query.where(or_(_l.changed < after, (_l.changed == after) & (_l.id < int(found[2]))))
    rows = [ListRecord(*row) for row in await connection.execute(query)]
    return rows[:limit], _cursor(rows[limit - 1]) if len(rows) > limit else None


def _cursor(record: ListRecord) -> str:
    return f"{(record.changed - _EPOCH) // timedelta(microseconds=1)}-{record.id}"


async def tags_in_use(connection: AsyncConnection, most: int = 50) -> list[str]:
    """The tags of lists, the most used first."""
    tag = func.unnest(_l.tags).label("tag")
    every = select(tag).where(visible(t.list_)).subquery()
    query = select(every.c.tag).group_by(every.c.tag).order_by(func.count().desc(), every.c.tag).limit(most)
    return list((await connection.execute(query)).scalars())


async def get_list(connection: AsyncConnection, slug: str, *, lock: bool = False) -> ListRecord:
    """One list; with ``lock``, nobody else changes it until the transaction ends.

    Raises:
        UnknownList: there is none of that name.
    """
    row = None
    if re.fullmatch(r"[a-z0-9-]{1,80}", slug):
        query = _LISTS.where(_l.slug == slug)
        row = (await connection.execute(query.with_for_update(of=t.list_) if lock else query)).first()
    if row is None:
        raise UnknownList(f"There is no list {slug[:80]!r} here.", list=slug[:80])
    return ListRecord(*row)


async def get_items(
    connection: AsyncConnection, list_id: int, *, cursor: str | None = None, limit: int = MOST_ITEMS
) -> tuple[list[ItemRecord], str | None]:
    """A page of a list's items in their order, and the cursor of the next.

    Raises:
        BadRequest: the cursor is none of this list.
    """
    query = _ITEMS.where(_i.list_id == list_id).order_by(_i.position).limit(limit + 1)
    if cursor:
        if not re.fullmatch(r"-?[0-9]{1,9}", cursor):
            raise BadRequest(f"Cursor {cursor[:40]!r} does not belong to this list; start again without a cursor.")
        query = query.where(_i.position > int(cursor))
    rows = [ItemRecord(*row) for row in await connection.execute(query)]
    return rows[:limit], str(rows[limit - 1].position) if len(rows) > limit else None


async def create(connection: AsyncConnection, draft: ListDraft, items: Sequence[ItemDraft] = ()) -> str:
    """A new list; what it is called in URLs: its first title, and five letters that nobody guesses.

    Raises:
        TooLarge: it has more items than a list holds.
    """
    plain = unicodedata.normalize("NFKD", draft.title).encode("ascii", "ignore").decode().lower()
    beginning = re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:40].strip("-") or "list"
    slug = f"{beginning}-{''.join(secrets.choice(_LETTERS) for _ in range(5))}"
    values = {f.name: getattr(draft, f.name) for f in fields(ListDraft)}
    values |= {"author": signed(draft.author), "owner_id": await owner_of_new(connection, t.list_)}
    await connection.execute(insert(t.list_).values(slug=slug, **values))
    if items:
        await add(connection, slug, items)
    return slug


async def edit(connection: AsyncConnection, slug: str, **values: Any) -> None:
    """Change title, description, tags, author or who may see it; its address stays.

    Raises:
        Forbidden: who may see it is its owner's to say.
    """
    record = await get_list(connection, slug, lock=True)
    if values.get("visibility", record.visibility) != record.visibility:
        check_own(record.owner_id, "This list")
    if "author" in values:
        values["author"] = record.author if owner() is not None else values["author"]
    await connection.execute(update(t.list_).where(_l.id == record.id).values(**values, changed=func.now()))


async def remove(connection: AsyncConnection, slug: str) -> None:
    """
    Raises:
        Forbidden: it is another's.
    """
    record = await get_list(connection, slug, lock=True)
    check_own(record.owner_id, "This list")
    await connection.execute(delete(t.list_).where(_l.id == record.id))


async def add(connection: AsyncConnection, slug: str, items: Sequence[ItemDraft]) -> list[int]:
    """Put items at the end, in their order; those that are in the list already stay as they are. The new ones' ids.

    Raises:
        UnknownList. TooLarge: the list would hold too many.
    """
    record = await get_list(connection, slug, lock=True)
    there = set((await connection.execute(select(_i.reference).where(_i.list_id == record.id))).scalars())
    new = {item.reference: item for item in reversed(items) if item.reference not in there}
    wanted = [new[one] for one in dict.fromkeys(item.reference for item in items) if one in new]
    if len(there) + len(wanted) > MOST_ITEMS:
        raise TooLarge(
            f"A list holds at most {MOST_ITEMS:,} items; with these it would hold {len(there) + len(wanted):,}.",
            most=MOST_ITEMS,
        )
    if not wanted:
        return []
    last = (await connection.execute(select(func.max(_i.position)).where(_i.list_id == record.id))).scalar() or 0
    rows = [
        {"list_id": record.id, "position": last + number, **{f.name: getattr(item, f.name) for f in fields(ItemDraft)}}
        for number, item in enumerate(wanted, 1)
    ]
    made = await connection.execute(insert(t.list_item).values(rows).returning(_i.id, _i.position))
    await _touch(connection, record.id)
    return [row.id for row in sorted(made, key=lambda row: row.position)]


async def edit_item(connection: AsyncConnection, slug: str, item: int, **values: Any) -> None:
    """Change an item's comment or tags."""
    found = await _item(connection, slug, item)
    if values:
        await connection.execute(update(t.list_item).where(_i.id == found.id).values(**values))
    await _touch(connection, found.list_id)


async def remove_item(connection: AsyncConnection, slug: str, item: int) -> None:
    found = await _item(connection, slug, item)
    await connection.execute(delete(t.list_item).where(_i.id == found.id))
    await _touch(connection, found.list_id)


async def move_item(connection: AsyncConnection, slug: str, item: int, way: Way) -> None:
    """Change places with the item above or below, or go to an end; at that end already, nothing happens."""
    found = await _item(connection, slug, item)
    up = way in ("up", "first")
    beside = _i.position < found.position if up else _i.position > found.position
    query = select(_i.id, _i.position).where(_i.list_id == found.list_id, beside)
    near = way in ("up", "down")
    query = query.order_by(_i.position.desc() if up == near else _i.position.asc()).limit(1)
    other = (await connection.execute(query)).first()
    if other is None:
        return
    if near:
        places = {found.id: other.position, other.id: found.position}
    else:
        places = {found.id: other.position + (-1 if up else 1)}
    moved = update(t.list_item).where(_i.id.in_(places)).values(position=case(places, value=_i.id))
    await connection.execute(moved)
    await _touch(connection, found.list_id)


async def _item(connection: AsyncConnection, slug: str, item: int) -> Row[int, int, int]:
    """
    Raises:
        UnknownList, UnknownItem.
    """
    record = await get_list(connection, slug, lock=True)
    query = select(_i.id, _i.list_id, _i.position).where(_i.list_id == record.id, _i.id == item)
    row = (await connection.execute(query)).first()
    if row is None:
        raise UnknownItem(f"List {slug!r} has no item {item} (any more).", list=slug, item=item)
    return row


async def _touch(connection: AsyncConnection, list_id: int) -> None:
    await connection.execute(update(t.list_).where(_l.id == list_id).values(changed=func.now()))
