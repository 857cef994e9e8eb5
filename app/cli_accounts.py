"""Commands for accounts: the first admin is made here."""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from app.roles import Role
from app.settings import Settings, load_settings

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

T = TypeVar("T")
Home = Annotated[Path | None, typer.Option(help="Folder for the database, models and SAEs.")]
Name = Annotated[str, typer.Argument(help="The account's name.")]
Url = Annotated[str | None, typer.Option(help="Where the site is, for the link: https://saescope.example.org.")]
accounts = typer.Typer(no_args_is_help=True, help="Accounts of an instance in team mode.", rich_markup_mode=None)


@accounts.command()
def add(
    name: Name,
    role: Annotated[Role, typer.Option(help="viewer, editor or admin.")] = "viewer",
    link: Annotated[bool, typer.Option("--link", help="Do not ask for a password, print a link to set it.")] = False,
    url: Url = None,
    home: Home = None,
) -> None:
    """Make an account; its password is asked for, or, without a terminal, set by the link that is printed."""
    from app.passwords import hashed_password
    from app.store import accounts as store

    settings = load_settings(home=home)
    password = None
    if not link and sys.stdin.isatty():
        password = hashed_password(typer.prompt("Password", hide_input=True, confirmation_prompt=True, err=True))

    async def work(db: "AsyncConnection") -> str | None:
        account = await store.add(db, name, role, password=password)
        await _noted(db, account, f"made an account: {role}", name)
        return None if password else await store.make_link(db, made_by="the command line", account=account)

    secret = _done(settings, work)
    typer.echo(f"{name} is an account now, as {role}.")
    if secret:
        _tell(settings, secret, url)


@accounts.command("list")
def list_accounts(home: Home = None) -> None:
    """Every account: its role, and what it signs in by."""
    from app.store import accounts as store

    for one in _done(load_settings(home=home), store.list_accounts):
        by = ", ".join(what for what, has in (("password", one.password), ("provider", one.subject)) if has)
        typer.echo(f"{one.name}  {one.role}  {'disabled' if one.disabled else by or 'no password yet'}")


@accounts.command("link")
def password_link(name: Name, url: Url = None, home: Home = None) -> None:
    """A link by which an account's password is set anew, once."""
    from app.store import accounts as store

    settings = load_settings(home=home)

    async def work(db: "AsyncConnection") -> str:
        found = await _named(db, name)
        await _noted(db, found, "made a password link", name)
        return await store.make_link(db, made_by="the command line", account=found)

    _tell(settings, _done(settings, work), url)


@accounts.command("set")
def change(
    name: Name,
    role: Annotated[Role | None, typer.Option(help="viewer, editor or admin.")] = None,
    disabled: Annotated[bool | None, typer.Option("--disable/--enable", help="Whether it may not sign in.")] = None,
    home: Home = None,
) -> None:
    """Change an account's role, or whether it may sign in; disabled, its sessions, tokens and links end."""
    from app.errors import BadRequest
    from app.store import accounts as store

    values = {field: value for field, value in (("role", role), ("disabled", disabled)) if value is not None}
    if not values:
        raise BadRequest("Say what is to be changed: --role, --disable or --enable.")

    async def work(db: "AsyncConnection") -> None:
        found = await _named(db, name)
        await store.change(db, found, **values)
        told = ", ".join(f"{field} {value}" for field, value in values.items())
        await _noted(db, found, f"changed an account: {told.lower()}", name)

    _done(load_settings(home=home), work)
    typer.echo(f"{name} is changed; a server that runs knows it within five seconds.")


async def _named(db: "AsyncConnection", name: str) -> int:
    from app.errors import UnknownAccount
    from app.store import accounts as store

    found = await store.find(db, name)
    if found is None:
        raise UnknownAccount(f"There is no account {name!r}; saescope account list names those there are.", name=name)
    return found.id


async def _noted(db: "AsyncConnection", account: int, action: str, name: str) -> None:
    from app.store import audit

    await audit.record(db, account=account, who="the command line", action=action, address=name)


def _done(settings: Settings, work: "Callable[[AsyncConnection], Awaitable[T]]") -> T:
    """What ``work`` gives in a transaction of its own."""
    from app.store.engine import async_engine, database_url, explained
    from app.store.migrate import migrated

    with migrated(settings):
        pass

    async def run() -> T:
        engine = async_engine(database_url(settings))
        try:
            async with engine.begin() as db:
                return await work(db)
        finally:
            await engine.dispose()

    with explained():
        return asyncio.run(run())


def _tell(settings: Settings, secret: str, url: str | None) -> None:
    from app import urls

    public = next((name.strip() for name in settings.allowed_hosts.split(",") if name.strip()), None)
    base = url or (f"https://{public}" if public else f"http://127.0.0.1:{settings.port}")
    typer.echo(f"To set the password, once, within a week: {base.rstrip('/')}{urls.join(secret)}")
