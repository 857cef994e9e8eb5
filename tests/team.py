"""An instance in team mode: its accounts, browsers that are signed in, and programs with tokens."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from fastapi.testclient import TestClient
from sqlalchemy import delete

from app.passwords import hashed_password
from app.store import accounts, credentials
from app.store import tables as t
from app.store.engine import async_engine, database_url

PASSWORD = "correct horse battery"
ROLES = ("viewer", "editor", "admin")
HASH = hashed_password(PASSWORD)


def done(settings, work):
    """What ``work`` gives of a connection, in a transaction of its own."""

    async def run():
        engine = async_engine(database_url(settings))
        try:
            async with engine.begin() as db:
                return await work(db)
        finally:
            await engine.dispose()

    with ThreadPoolExecutor(1) as apart:  # a browser in this thread has a loop of its own
        return apart.submit(lambda: asyncio.run(run())).result()


def team(settings, **given):
    """The same in team mode, without accounts."""

    async def work(db):
        await db.execute(delete(t.account))

    done(settings, work)
    return settings.model_copy(update={"mode": "team", **given})


def make_account(settings, name, role="viewer"):
    """Its id; it is what it was made as, however often."""

    async def work(db):
        found = await accounts.find(db, name)
        return found.id if found else await accounts.add(db, name, role, password=HASH)

    return done(settings, work)


def keep_cookie(client, secret):
    """As the server would have set it."""
    client.cookies.set("saescope-session", secret, domain="testserver.local", path="/")


@contextmanager
def browser(site, settings, name=None, role="viewer", **options):
    """A client of ``site`` of its own, signed in as ``name``; its headers are a browser's."""
    options.setdefault("base_url", "http://testserver")
    client = TestClient(site.app, follow_redirects=False, headers={"sec-fetch-site": "same-origin"}, **options)
    if name is not None:
        account = make_account(settings, name, role)
        secret = done(settings, lambda db: credentials.start_session(db, account))
        keep_cookie(client, secret)
    yield client
    client.close()


def make_token(settings, name, role, scope):
    account = make_account(settings, name, role)
    return done(settings, lambda db: credentials.make_token(db, account, "a script", scope))
