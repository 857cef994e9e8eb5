"""What a browser or a program shows to be known: sessions, API tokens, share links."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import Row, Select, delete, func, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from app.errors import BadRequest
from app.passwords import hashed, new_secret
from app.roles import ROLES, Role, Scope
from app.store import tables as t
from app.store.reader import one_at_a_time

SESSION_DAYS = 14
TOKEN_PREFIX = "sae_"
MOST_TOKENS, MOST_SHARES = 50, 500  # of an account
_MOST: dict[str, Role] = {"read": "viewer", "write": "editor", "admin": "admin"}
_a, _s, _o, _h = t.account.c, t.account_session.c, t.api_token.c, t.share.c


@dataclass(frozen=True)
class Known:
    """Whom a session or a token stands for. token: its id; None of a session. reads_only: its scope is to read."""

    account: int
    name: str
    role: Role
    expires: datetime | None
    token: int | None = None
    reads_only: bool = False


@dataclass(frozen=True)
class TokenRecord:
    id: int
    account: str
    name: str
    scope: Scope
    made: datetime
    expires: datetime | None
    used: datetime | None


@dataclass(frozen=True)
class ShareRecord:
    id: int
    account: str
    address: str
    made: datetime
    expires: datetime


async def start_session(connection: AsyncConnection, account: int) -> str:
    """A new session's secret."""
    secret = new_secret()
    expires = datetime.now(UTC) + timedelta(days=SESSION_DAYS)
    values = {"hash": hashed(secret), "account_id": account, "expires": expires}
    await connection.execute(insert(t.account_session).values(**values))
    return secret


async def end_session(connection: AsyncConnection, secret: str) -> None:
    await connection.execute(delete(t.account_session).where(_s.hash == hashed(secret)))


async def end_sessions(connection: AsyncConnection, account: int) -> None:
    """All of an account's."""
    await connection.execute(delete(t.account_session).where(_s.account_id == account))


async def of_session(connection: AsyncConnection, digest: str) -> Known | None:
    """digest: the secret's hash."""
    query = select(_a.id, _a.name, _a.role, _s.expires).select_from(t.account_session.join(t.account))
    row = (await connection.execute(query.where(_s.hash == digest, _s.expires > func.now(), ~_a.disabled))).first()
    return None if row is None else Known(*row)


async def of_token(connection: AsyncConnection, digest: str) -> Known | None:
    """Its account, with no more than its scope; that it was used is written down once a minute at most."""
    query = select(_a.id, _a.name, _a.role, _o.expires, _o.id.label("token"), _o.scope, _o.used)
    query = query.select_from(t.api_token.join(t.account))
    live = or_(_o.expires.is_(None), _o.expires > func.now())
    row: Row[*tuple[object, ...]] | None = (
        await connection.execute(query.where(_o.hash == digest, live, ~_a.disabled))
    ).first()
    if row is None:
        return None
    since = datetime.now(UTC) - timedelta(minutes=1)
    if row.used is None or row.used < since:
        await connection.execute(update(t.api_token).where(_o.id == row.token).values(used=func.now()))
    role = min(row.role, _MOST[row.scope], key=ROLES.index)
    return Known(row.id, row.name, role, row.expires, row.token, row.scope == "read")


async def make_token(
    connection: AsyncConnection, account: int, name: str, scope: Scope, *, days: int | None = None
) -> str:
    """A new token, to be shown once.

    Raises:
        BadRequest: the account has too many.
    """
    await one_at_a_time(connection, account)
    await _room(connection, select(func.count()).where(_o.account_id == account), MOST_TOKENS, "API tokens")
    secret = new_secret(TOKEN_PREFIX)
    expires = None if days is None else datetime.now(UTC) + timedelta(days=days)
    values = {"hash": hashed(secret), "account_id": account, "name": name, "scope": scope, "expires": expires}
    await connection.execute(insert(t.api_token).values(**values))
    return secret


async def list_tokens(connection: AsyncConnection, account: int | None = None) -> list[TokenRecord]:
    """An account's, or everybody's."""
    query = select(_o.id, _a.name, _o.name, _o.scope, _o.made, _o.expires, _o.used)
    query = query.select_from(t.api_token.join(t.account)).order_by(_o.id.desc())
    mine = query if account is None else query.where(_o.account_id == account)
    return [TokenRecord(*row) for row in await connection.execute(mine)]


async def revoke_token(connection: AsyncConnection, token: int, account: int | None = None) -> None:
    """An account's, or, by an admin, anybody's."""
    mine = () if account is None else (_o.account_id == account,)
    await connection.execute(delete(t.api_token).where(_o.id == token, *mine))


async def make_share(connection: AsyncConnection, account: int, address: str, days: int) -> str:
    """The secret of a link to the page at ``address``.

    Raises:
        BadRequest: the account has too many.
    """
    await one_at_a_time(connection, account)
    await _room(connection, select(func.count()).where(_h.account_id == account), MOST_SHARES, "share links")
    secret = new_secret()
    expires = datetime.now(UTC) + timedelta(days=days)
    values = {"hash": hashed(secret), "account_id": account, "address": address, "expires": expires}
    await connection.execute(insert(t.share).values(**values))
    return secret


async def of_share(connection: AsyncConnection, digest: str) -> tuple[str, datetime, int] | None:
    """The address it shows, until when, and whose it is; none of an account that was disabled or may share no more."""
    query = select(_h.address, _h.expires, _h.account_id).select_from(t.share.join(t.account))
    live = (_h.expires > func.now(), ~_a.disabled, _a.role != "viewer")
    row = (await connection.execute(query.where(_h.hash == digest, *live))).first()
    return None if row is None else (row.address, row.expires, row.account_id)


async def list_shares(connection: AsyncConnection, account: int | None = None) -> list[ShareRecord]:
    """Those that can still be used: an account's, or everybody's."""
    query = select(_h.id, _a.name, _h.address, _h.made, _h.expires).select_from(t.share.join(t.account))
    query = query.where(_h.expires > func.now()).order_by(_h.id.desc())
    mine = query if account is None else query.where(_h.account_id == account)
    return [ShareRecord(*row) for row in await connection.execute(mine)]


async def revoke_share(connection: AsyncConnection, share: int, account: int | None = None) -> None:
    """An account's, or, by an admin, anybody's."""
    mine = () if account is None else (_h.account_id == account,)
    await connection.execute(delete(t.share).where(_h.id == share, *mine))


async def _room(connection: AsyncConnection, count: Select[int], most: int, what: str) -> None:
    if (await connection.execute(count)).scalar_one() >= most:
        raise BadRequest(f"You have {most} {what}, which is as many as there may be; revoke some first.")
