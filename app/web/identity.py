"""Who asks, in team mode: by session, API token or share link; what they may; and what they changed."""

import logging
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import NamedTuple
from urllib.parse import quote

from fastapi import Request
from fastapi.responses import RedirectResponse, Response
from sqlalchemy.exc import SQLAlchemyError
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app import urls
from app.errors import LoginNeeded, SaescopeError, TokenWrong
from app.passwords import hashed
from app.settings import Settings
from app.store import audit, credentials
from app.store.reader import NOBODY, Reader, reader
from app.web import access
from app.web.guard import Refuse
from app.web.limits import address_of
from app.web.shared_pages import opens, shared_page, untitled
from app.web.state import State

MOST_SHARES = 8  # that one browser has open
_log = logging.getLogger(__name__)


class Entry(NamedTuple):
    """What a route says of itself for the audit log, in ``request.state.audit``; without an action that is method and
    route."""

    action: str
    address: str = ""
    account: int | None = None
    who: str = ""


def secure(request: Request) -> bool:
    return request.url.scheme == "https"


def cookie_name(request: Request, what: str = "session") -> str:
    """Behind TLS with a prefix by which browsers take it from this very host alone."""
    return f"__Host-saescope-{what}" if secure(request) else f"saescope-{what}"


def set_cookie(request: Request, response: Response, what: str, value: str, seconds: int) -> None:
    response.set_cookie(
        cookie_name(request, what), value, max_age=seconds, path="/", secure=secure(request), httponly=True,
        samesite="lax",
    )  # fmt: skip


def forget_cookie(request: Request, response: Response, what: str = "session") -> None:
    set_cookie(request, response, what, "", 0)


class Identity:
    """ASGI middleware. Everything behind it is asked by the reader it has set, and only what the table of
    app.web.access lets through."""

    def __init__(self, app: ASGIApp, settings: Settings, refuse: Refuse) -> None:
        self._app = app
        self._public, self._quota = settings.public_read, settings.account_kept
        self._refuse = refuse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":  # there are none
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request, before = Request(scope, receive), reader.set(NOBODY)
        try:
            try:
                who = await self._admitted(request)
            except (SaescopeError, SQLAlchemyError) as error:
                await (await self._turned_away(request, error))(scope, receive, send)
                return
            reader.set(who)
            await self._app(scope, receive, self._noted(request, who, send))
        finally:
            reader.reset(before)

    async def _admitted(self, request: Request) -> Reader:
        """
        Raises:
            PageNotFound, LoginNeeded, Forbidden, TokenWrong.
        """
        path, method = request.scope["path"], request.method
        if access.needed(path, method) is access.ANYBODY:
            return NOBODY
        shared = await self._shared(request)
        who = replace(await self._known(request), shared=shared)
        reader.set(who)
        try:
            access.check(path, method, who, public_read=self._public)
        except LoginNeeded:
            if shared is None:
                raise
        return who

    async def _known(self, request: Request) -> Reader:
        """
        Raises:
            TokenWrong: an API token that is none, or none any more.
        """
        state: State = request.app.state.saescope
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            digest = hashed(given.strip())
            found = await state.known.get(f"token {digest}", partial(_token, state, digest))
            if found is None:
                raise TokenWrong("This API token is none of this server, was revoked, or is too old.")
        else:
            secret = request.cookies.get(cookie_name(request), "")
            digest = hashed(secret)
            found = await state.known.get(f"session {digest}", partial(_session, state, digest)) if secret else None
        if found is None:
            return NOBODY
        return Reader(found.account, found.name, found.role, found.token, self._quota, reads_only=found.reads_only)

    async def _shared(self, request: Request) -> tuple[str, str, int] | None:
        """What a share link that this browser has opened shows at this very address."""
        state: State = request.app.state.saescope
        given = request.cookies.get(cookie_name(request, "shares"), "")
        if not given or request.method != "GET":
            return None
        for digest in map(hashed, given.split(".")[:MOST_SHARES]):
            found = await state.shares.get(digest, partial(_share, state, digest))
            if found is not None and opens(page := shared_page(found[0]), request.scope["path"]):
                return page.kind, page.name, found[2]
        return None

    async def _turned_away(self, request: Request, error: Exception) -> Response:
        """Who reads pages is led to the login and from there back; everybody else is told."""
        path = request.scope["path"]
        if not isinstance(error, LoginNeeded | TokenWrong):
            return await self._refuse(request, error)
        if request.method == "GET" and isinstance(error, LoginNeeded) and not access.for_programs(path):
            asked = quote(path) + (f"?{request.url.query}" if request.url.query else "")
            if not request.headers.get("hx-request"):
                return RedirectResponse(urls.login(asked), status_code=303)
            response = await self._refuse(request, error)
            response.headers["hx-redirect"] = urls.login()
            return response
        response = await self._refuse(request, error)
        response.headers["www-authenticate"] = "Bearer"
        return response

    def _noted(self, request: Request, who: Reader, send: Send) -> Send:
        """Writes down what was changed before the answer goes out."""
        level = access.needed(request.scope["path"], request.method)
        watched = request.method not in ("GET", "HEAD", "OPTIONS") and level is not None
        by_itself = watched and level in (access.VIEWER, access.EDITOR, access.ADMIN)

        async def noted(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] < 400:
                entry = getattr(request.state, "audit", None)
                if entry is None and by_itself:
                    entry = Entry("", request.scope["path"])
                if entry is not None:
                    await _record(request, who, entry, Headers(scope=message).get("location", ""))
            await send(message)

        return noted


async def _record(request: Request, who: Reader, entry: Entry, location: str) -> None:
    state: State = request.app.state.saescope
    route = str(getattr(request.scope.get("route"), "path", ""))
    detail: dict[str, object] = (
        {"to": untitled(location.partition("?")[0][:500])} if location and location != entry.address else {}
    )
    if who.token is not None:
        detail["token"] = who.token
    try:
        async with state.database.begin() as db:
            await audit.record(
                db, account=entry.account or who.account, who=entry.who or who.name,
                action=entry.action or f"{request.method} {route}", address=untitled(entry.address),
                client=address_of(request),
                **detail,
            )  # fmt: skip
    except SQLAlchemyError as error:
        _log.error("A change by %s was not written down: %s", entry.who or who.name, type(error).__name__)


async def _session(state: State, digest: str) -> credentials.Known | None:
    async with state.reads.connect() as db:
        return await credentials.of_session(db, digest)


async def _token(state: State, digest: str) -> credentials.Known | None:
    async with state.reads.connect() as db:
        return await credentials.of_token(db, digest)


async def _share(state: State, digest: str) -> tuple[str, datetime, int] | None:
    async with state.reads.connect() as db:
        return await credentials.of_share(db, digest)
