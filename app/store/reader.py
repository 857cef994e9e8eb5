"""Who asks, and which rows of lists, notes and kept runs that shows.

Each request has its reader in a context variable, so that no query can be written that forgets to hand it on; where
nobody asks, on the command line and in local mode, everything is shown.
"""

from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Boolean, ColumnElement, FromClause, Integer, Text, bindparam, func, literal, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.types import TypeEngine

from app.errors import Forbidden, LoginNeeded, QuotaReached
from app.roles import ROLES, Role


@dataclass(frozen=True)
class Reader:
    """role: what may be done, None without an account; a token's scope has been taken off it already. token: the
    API token asked with; reads_only: that one changes nothing. quota: how many lists, and how many runs, may be kept.
    shared: where a share link was used, the kind and name of what it shows, and whose link it is."""

    account: int | None = None
    name: str = ""
    role: Role | None = None
    token: int | None = None
    quota: int | None = None
    shared: tuple[str, str, int] | None = None
    reads_only: bool = False
    everything: bool = False

    @property
    def key(self) -> str:
        """Of two readers who may be shown different things it differs; empty in local mode."""
        return "" if self.everything else f"{self.account} {self.name} {self.role} {self.shared}"

    def owns(self, owner: int | None) -> bool:
        """Whether a row of ``owner`` is this reader's to remove or to hide."""
        return self.everything or self.role == "admin" or (owner is not None and owner == self.account)


EVERYTHING, NOBODY = Reader(everything=True), Reader()
reader: ContextVar[Reader] = ContextVar("reader", default=EVERYTHING)


def _asked(name: str, kind: TypeEngine[Any], of: Callable[[Reader], object]) -> ColumnElement[Any]:
    return bindparam(f"reader_{name}", type_=kind, callable_=lambda: of(reader.get()))


_EVERYTHING = _asked("everything", Boolean(), lambda one: one.everything)
_SIGNED_IN = _asked("signed_in", Boolean(), lambda one: one.role is not None)
_ADMIN = _asked("admin", Boolean(), lambda one: one.role == "admin")
_ACCOUNT = _asked("account", Integer(), lambda one: one.account)
_LIST = _asked("list", Text(), lambda one: one.shared[1] if one.shared and one.shared[0] == "list" else None)
_RUN = _asked("run", Text(), lambda one: one.shared[1] if one.shared and one.shared[0] == "run" else None)
_SHARER = _asked("sharer", Integer(), lambda one: one.shared[2] if one.shared else None)


def inside() -> ColumnElement[bool]:
    """Whether whoever asks has an account, or needs none."""
    return or_(_EVERYTHING, _SIGNED_IN)


def visible(rows: FromClause) -> ColumnElement[bool]:
    """Those rows of list, note or inspection that whoever asks may see; every query of them has this condition."""
    c = rows.c
    mine = (c.visibility == literal("team")) & _SIGNED_IN
    named = {"slug": _LIST} if "title" in c else {"id": _RUN} if "chat" in c else {}
    whose = (c.visibility != literal("private")) | (c.owner_id == _SHARER)
    shared = ((c[name] == wanted) & whose for name, wanted in named.items())
    nobodys = c.owner_id.is_(None) & _ADMIN
    return or_(_EVERYTHING, c.visibility == literal("public"), mine, c.owner_id == _ACCOUNT, nobodys, *shared)


def signed(given: str) -> str:
    """Who wrote something: whoever is signed in, whatever they gave; in local mode what was given."""
    who = reader.get()
    return who.name if who.account is not None else given


async def owner_of_new(connection: AsyncConnection, rows: FromClause) -> int | None:
    """Whose a new list or run is.

    Raises:
        LoginNeeded: nobody is signed in. QuotaReached: they have as many as they may.
    """
    mine, quota = owner(), reader.get().quota
    if mine is not None and quota is not None:
        await one_at_a_time(connection, mine)
        query = select(func.count()).select_from(rows).where(rows.c.owner_id == mine)
        if (await connection.execute(query)).scalar_one() >= quota:
            raise QuotaReached(f"You keep {quota:,} of these here already, which is as many as one account may.")
    return mine


async def one_at_a_time(connection: AsyncConnection, account: int) -> None:
    """What the account keeps is counted, and more of it kept, by one transaction after another."""
    await connection.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(f"kept {account}", 0))))


def owner() -> int | None:
    """Whose a new row is.

    Raises:
        LoginNeeded: nobody is signed in, and this is no local instance. Forbidden: by a token that only reads.
    """
    who = reader.get()
    if who.reads_only:
        raise Forbidden("This API token may only read; make one that may write.")
    if who.account is None and not who.everything:
        raise LoginNeeded("Sign in to keep something here.")
    return who.account


def may(role: Role) -> bool:
    """Whether whoever asks has at least that role, so that pages offer what will be done."""
    who = reader.get()
    return who.everything or (who.role is not None and ROLES.index(who.role) >= ROLES.index(role))


def check_own(owner_id: int | None, what: str) -> None:
    """
    Raises:
        Forbidden: it is another's.
    """
    if not reader.get().owns(owner_id):
        raise Forbidden(f"{what} belongs to someone else; its owner or an admin can do this.")
