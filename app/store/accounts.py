"""Accounts: made, found, changed; and the links, used once, that make one or set a password."""

import re
import unicodedata
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import delete, exists, func, insert, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from app.errors import BadRequest, Forbidden, LinkGone, LoginRefused, NameTaken, UnknownAccount
from app.passwords import hashed, new_secret
from app.roles import Role
from app.store import tables as t

LONGEST_NAME = 60
LINK_DAYS = 7
_ALIKE = {"LATIN", "GREEK", "CYRILLIC"}
_UNSEEN = re.compile(  # Default_Ignorable_Code_Point, as far as it is printable, and the empty Braille cell
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2065\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
_a, _k = t.account.c, t.account_link.c


@dataclass(frozen=True)
class AccountRecord:
    id: int
    name: str
    role: Role
    password: str | None
    issuer: str | None
    subject: str | None
    disabled: bool
    made: datetime


@dataclass(frozen=True)
class LinkRecord:
    """role: of the account that an invitation makes; account_id, name: whose password it sets."""

    id: int
    role: Role | None
    account_id: int | None
    made_by: str
    expires: datetime
    name: str | None


_ACCOUNTS = select(*[_a[f.name] for f in fields(AccountRecord)])
_LINKS = select(_k.id, _k.role, _k.account_id, _k.made_by, _k.expires, _a.name).outerjoin(
    t.account, _a.id == _k.account_id
)
_maker = t.account.alias("maker")
_MAY_INVITE = exists().where(_maker.c.id == _k.maker_id, _maker.c.role == "admin", ~_maker.c.disabled)
_OPEN = (_k.used.is_(None), _k.expires > func.now(), or_(_k.maker_id.is_(None), _MAY_INVITE))


def checked_name(given: str) -> str:
    """
    Raises:
        BadRequest: it is empty, too long, holds what cannot be seen, or letters of scripts that look alike.
    """
    name = plain(given)
    if not name or len(name) > LONGEST_NAME or not name.isprintable() or _UNSEEN.search(name):
        raise BadRequest(f"A name has 1 to {LONGEST_NAME} characters that can be seen.", field="name")
    scripts = {unicodedata.name(letter, "").partition(" ")[0] for letter in name if letter.isalpha()}
    if len(scripts & _ALIKE) > 1:
        raise BadRequest(
            "A name has letters of one script; those of Latin, Greek and Cyrillic look alike.", field="name"
        )
    return name


def plain(name: str) -> str:
    """As names are kept."""
    return " ".join(unicodedata.normalize("NFKC", name).split())


def same_for(name: str) -> str:
    """The same for any two names that find one account."""
    return plain(name).casefold().replace("i\u0307", "i")


async def list_accounts(connection: AsyncConnection) -> list[AccountRecord]:
    rows = await connection.execute(_ACCOUNTS.order_by(func.lower(_a.name)))
    return [AccountRecord(*row) for row in rows]


async def find(connection: AsyncConnection, name: str) -> AccountRecord | None:
    """By name; capitals make no difference."""
    if "\0" in name or any("\ud800" <= ch <= "\udfff" for ch in name):
        return None
    wanted = plain(name)
    row = (await connection.execute(_ACCOUNTS.where(func.lower(_a.name) == func.lower(wanted)))).first()
    return None if row is None else AccountRecord(*row)


async def get(connection: AsyncConnection, account: int) -> AccountRecord:
    """
    Raises:
        UnknownAccount.
    """
    row = (await connection.execute(_ACCOUNTS.where(_a.id == account))).first() if account < 2**31 else None
    if row is None:
        raise UnknownAccount(f"There is no account {account}.", account=account)
    return AccountRecord(*row)


async def find_subject(connection: AsyncConnection, issuer: str, subject: str) -> AccountRecord | None:
    """The account that a provider's subject is linked with."""
    row = (await connection.execute(_ACCOUNTS.where(_a.issuer == issuer, _a.subject == subject))).first()
    return None if row is None else AccountRecord(*row)


async def add(
    connection: AsyncConnection,
    name: str,
    role: Role,
    *,
    password: str | None = None,
    issuer: str | None = None,
    subject: str | None = None,
) -> int:
    """A new account; its id. password: its hash.

    Raises:
        BadRequest: no name. NameTaken: another has it, in capitals or not.
    """
    values = {"name": checked_name(name), "role": role, "password": password, "issuer": issuer, "subject": subject}
    try:
        async with connection.begin_nested():
            made = await connection.execute(insert(t.account).values(**values).returning(_a.id))
    except IntegrityError:
        raise NameTaken(f"There is an account {values['name']!r} already; take another name.", name=name) from None
    return int(made.scalar_one())


async def set_password(connection: AsyncConnection, account: int, password: str) -> None:
    """Set its hash, and end the account's sessions and the links that would set another."""
    await connection.execute(update(t.account).where(_a.id == account).values(password=password))
    await connection.execute(delete(t.account_session).where(t.account_session.c.account_id == account))
    links = update(t.account_link).where(_k.account_id == account, _k.used.is_(None))
    await connection.execute(links.values(used=func.now()))


async def rehash(connection: AsyncConnection, account: int, before: str | None, password: str) -> None:
    """Keep the same password's newer hash, unless another password was set meanwhile."""
    same = update(t.account).where(_a.id == account, _a.password == before)
    await connection.execute(same.values(password=password))


async def hold(connection: AsyncConnection, account: int, *, password: str | None = None) -> None:
    """Let nobody change the account until the transaction ends. password: the hash that was verified, if one was.

    Raises:
        UnknownAccount. LoginRefused: it was disabled, or has another password by now.
    """
    await connection.execute(select(_a.id).where(_a.id == account).with_for_update())
    found = await get(connection, account)
    if found.disabled or password not in (None, found.password):
        raise LoginRefused("This account was changed just now; sign in again.")


async def link_subject(connection: AsyncConnection, account: int, issuer: str | None, subject: str | None) -> None:
    """
    Raises:
        NameTaken: another account is linked with that subject.
    """
    try:
        async with connection.begin_nested():
            values = {"issuer": issuer, "subject": subject}
            await connection.execute(update(t.account).where(_a.id == account).values(**values))
    except IntegrityError:
        raise NameTaken("Another account here is linked with that sign-in already.") from None


async def change(connection: AsyncConnection, account: int, **values: Any) -> None:
    """Change role or disabled; of a disabled account sessions and shares end, and tokens and links go; so do the links
    made by whoever is no admin any more.

    Raises:
        UnknownAccount. Forbidden: no admin would be left.
    """
    await connection.execute(select(func.pg_advisory_xact_lock(func.hashtextextended("accounts", 0))))
    before = await get(connection, account)
    await connection.execute(update(t.account).where(_a.id == account).values(**values))
    admins = select(func.count()).where(_a.role == "admin", ~_a.disabled)
    was_admin = before.role == "admin" and not before.disabled
    if was_admin and not (await connection.execute(admins)).scalar_one():
        raise Forbidden("Nobody would be left who can look after this instance; make another account an admin first.")
    if values.get("disabled"):
        for table in (t.account_session, t.share, t.api_token, t.account_link):
            await connection.execute(delete(table).where(table.c.account_id == account))
    if was_admin and (values.get("disabled") or values.get("role", "admin") != "admin"):
        await connection.execute(delete(t.account_link).where(_k.maker_id == account))


async def make_link(
    connection: AsyncConnection,
    *,
    made_by: str,
    maker: int | None = None,
    role: Role | None = None,
    account: int | None = None,
) -> str:
    """A secret for /join/{secret}: an invitation as ``role``, or one to set the password of ``account``. maker: the
    admin with whom the link ends."""
    secret = new_secret()
    values = {"hash": hashed(secret), "role": role, "account_id": account, "made_by": made_by, "maker_id": maker}
    expires = datetime.now(UTC) + timedelta(days=LINK_DAYS)
    await connection.execute(insert(t.account_link).values(**values, expires=expires))
    return secret


async def read_link(connection: AsyncConnection, secret: str, *, use: bool = False) -> LinkRecord:
    """What a link is for; with ``use`` it can be used no more, unless the transaction fails.

    Raises:
        LinkGone: it was used, or taken back, or is too old, or never was, or its maker is no admin any more.
    """
    row = (await connection.execute(_LINKS.where(_k.hash == hashed(secret), *_OPEN))).first()
    if row is not None and use:
        used = update(t.account_link).where(_k.id == row.id, *_OPEN).values(used=func.now()).returning(_k.id)
        row = row if (await connection.execute(used)).first() else None
    if row is None:
        raise LinkGone("This link was used, or is too old; ask whoever sent it for another.")
    return LinkRecord(*row)


async def list_links(connection: AsyncConnection) -> list[LinkRecord]:
    """Those that can still be used."""
    return [LinkRecord(*row) for row in await connection.execute(_LINKS.where(*_OPEN).order_by(_k.id.desc()))]


async def remove_link(connection: AsyncConnection, link: int) -> None:
    await connection.execute(delete(t.account_link).where(_k.id == link))


async def sweep(connection: AsyncConnection) -> None:
    """Remove what has expired a month ago."""
    before = func.now() - func.make_interval(0, 0, 0, 30)
    for table in (t.account_session, t.share, t.account_link):
        await connection.execute(delete(table).where(table.c.expires < before))
