"""Signing in and out, and the links that make an account or set a password."""

import asyncio
from dataclasses import replace
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from app import urls
from app.errors import BadRequest, LoginRefused, NameTaken, SaescopeError
from app.passwords import check_password, hashed_password, verify
from app.store import accounts as store
from app.store.credentials import SESSION_DAYS, end_session, start_session
from app.web import account_contexts as c
from app.web import devices
from app.web.forms import filled, form_fields
from app.web.freshness import KEEP_NOTHING
from app.web.identity import Entry, cookie_name, forget_cookie, set_cookie
from app.web.limits import address_of
from app.web.rendering import render_page
from app.web.routes import state_of

router = APIRouter(include_in_schema=False)


def here(given: str) -> str:
    """Where to go after signing in: an address of this site, whatever was given."""
    plain = given.startswith("/") and given[1:2] not in ("/", "\\") and given.isprintable() and "\\" not in given
    return given if plain and not given.startswith(("/login", "/logout", "/join")) else urls.home()


def shown(request: Request, template: str, status: int = 200, /, **context: object) -> HTMLResponse:
    """A page that is kept nowhere."""
    request.state.cache = KEEP_NOTHING
    return HTMLResponse(render_page(template, request=request, **context), status_code=status)


def login_page(request: Request, then: str, error: SaescopeError | None = None, name: str = "") -> Response:
    settings = state_of(request).settings
    provider = settings.oidc_name if settings.oidc_issuer else None
    page = shown(
        request, "login.html", error.status if error else 200, then=here(then), name=name, provider=provider,
        error=error.message if error else None,
    )  # fmt: skip
    if error is not None and "retry_after" in error.detail:
        page.headers["retry-after"] = str(error.detail["retry_after"])
    return page


@router.get("/login", response_class=HTMLResponse)
async def ask_login(request: Request, then: Annotated[str, Query(alias="next")] = "") -> Response:
    return login_page(request, then)


async def checked(request: Request, name: str, password: str) -> store.AccountRecord:
    """The account, if it may sign in by this password. Of one there is not, or that may not, the answer is the same,
    and takes as long.

    Raises:
        LoginThrottled: too many have been tried. LoginRefused: they do not fit.
    """
    state, address = state_of(request), address_of(request)
    device, found = request.cookies.get(cookie_name(request, "device"), ""), None
    if device:
        async with state.database.connect() as db:
            found = await store.find(db, name)
    own = f"device {device}" if found is not None and devices.of(device, found) else ""
    state.attempts.begin(name, address, own)
    if found is None:
        async with state.database.connect() as db:
            found = await store.find(db, name)
    known = found.password if found is not None and not found.disabled else None
    async with state.hashing:
        fits, anew = await asyncio.to_thread(verify, password, known)
    if found is None or not fits:
        raise LoginRefused("This name and this password do not fit together.")
    state.attempts.succeeded(name, address, own)
    if anew is not None:
        async with state.database.begin() as db:
            await store.rehash(db, found.id, known, anew)
        found = replace(found, password=anew)
    return found


async def signed_in(
    request: Request, account: int, name: str, then: str, how: str, *, password: str | None = None
) -> Response:
    """A session of its own for this browser; the one it had ends. password: the hash of the one it is begun with.

    Raises:
        LoginRefused: the account was disabled, or has another password by now.
    """
    state = state_of(request)
    async with state.database.begin() as db:
        await store.hold(db, account, password=password)
        await end_session(db, request.cookies.get(cookie_name(request), ""))
        secret = await start_session(db, account)
        await store.sweep(db)
    state.known.forget()
    request.state.audit = Entry(how, account=account, who=name)
    response = RedirectResponse(here(then), status_code=303)
    set_cookie(request, response, "session", secret, SESSION_DAYS * 86400)
    if password is not None:
        set_cookie(request, response, "device", devices.made(account, password), devices.DAYS * 86400)
    return response


@router.post("/login", response_class=HTMLResponse)
async def login(request: Request) -> Response:
    form = filled(c.LoginForm, await form_fields(request))
    try:
        found = await checked(request, form.name, form.password)
        return await signed_in(request, found.id, found.name, form.next, "signed in", password=found.password)
    except SaescopeError as error:
        if error.status >= 500:
            raise
        return login_page(request, form.next, error, form.name)


@router.post("/logout")
async def logout(request: Request) -> Response:
    state = state_of(request)
    async with state.database.begin() as db:
        await end_session(db, request.cookies.get(cookie_name(request), ""))
    state.known.forget()
    response = RedirectResponse(urls.login(), status_code=303)
    forget_cookie(request, response)
    return response


@router.get("/join/{secret}", response_class=HTMLResponse)
async def ask_join(request: Request, secret: str) -> Response:
    async with state_of(request).database.connect() as db:
        link = await store.read_link(db, secret)
    return shown(request, "join.html", secret=secret, link=link, error=None, name="")


@router.post("/join/{secret}", response_class=HTMLResponse)
async def join(request: Request, secret: str) -> Response:
    """A new account, or a new password; the link is used up by it, not by what did not fit."""
    form, state = filled(c.JoinForm, await form_fields(request)), state_of(request)
    async with state.database.connect() as db:
        link = await store.read_link(db, secret)
    try:
        password = await new_password(request, form.password, form.again)
        async with state.database.begin() as db:
            link = await store.read_link(db, secret, use=True)
            account, name = link.account_id, link.name or store.checked_name(form.name)
            if account is not None:
                await store.set_password(db, account, password)
            elif link.role is not None:
                account = await store.add(db, name, link.role, password=password)
    except (BadRequest, NameTaken) as error:
        return shown(request, "join.html", error.status, secret=secret, link=link, error=error.message, name=form.name)
    if account is None:
        raise BadRequest("This link is for nothing.")
    how = "set a password by link" if link.account_id is not None else f"joined as {link.role}"
    return await signed_in(request, account, name, urls.home(), how, password=password)


async def new_password(request: Request, password: str, again: str) -> str:
    """Its hash.

    Raises:
        BadRequest: the two are not the same, or too short or too long.
    """
    check_password(password)
    if password != again:
        raise BadRequest("The two passwords are not the same; type them again.", field="again")
    async with state_of(request).hashing:
        return await asyncio.to_thread(hashed_password, password)
