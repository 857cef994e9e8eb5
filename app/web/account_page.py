"""One's own account: password, API tokens, share links."""

import asyncio
from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Body, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from sqlalchemy.ext.asyncio import AsyncConnection

from app import urls
from app.errors import (
    BadRequest,
    Forbidden,
    LinkGone,
    LoginNeeded,
    LoginRefused,
    UnknownInspection,
    UnknownList,
    UnknownSAE,
)
from app.passwords import hashed, verify
from app.store import accounts as store
from app.store import credentials, inspections
from app.store import lists as list_store
from app.store import queries as q
from app.store.reader import reader
from app.web import account_contexts as c
from app.web.account_examples import SHARE
from app.web.forms import filled, form_fields
from app.web.identity import MOST_SHARES as OPEN_AT_ONCE
from app.web.identity import Entry, cookie_name, set_cookie
from app.web.limits import address_of
from app.web.refusals import refused
from app.web.routes import json_of, state_of
from app.web.shared_pages import Shared, shared_page
from app.web.sharing import absolute
from app.web.signing import new_password, shown, signed_in

router = APIRouter(tags=["accounts"], responses=refused(LoginNeeded, Forbidden))


def asking() -> int:
    """The account that asks; the table of access has let nobody else through.

    Raises:
        LoginNeeded.
    """
    account = reader.get().account
    if account is None:
        raise LoginNeeded("Sign in for that.")
    return account


def token_view(record: credentials.TokenRecord) -> c.TokenView:
    return c.TokenView(**asdict(record))


def share_view(record: credentials.ShareRecord) -> c.ShareView:
    return c.ShareView(**asdict(record))


async def load_account(request: Request) -> c.AccountPage:
    state, account = state_of(request), asking()
    async with state.database.connect() as db:
        mine = await store.get(db, account)
        tokens = await credentials.list_tokens(db, account)
        shares = await credentials.list_shares(db, account)
    return c.AccountPage(
        name=mine.name,
        role=mine.role,
        has_password=mine.password is not None,
        provider=state.settings.oidc_name if state.settings.oidc_issuer else None,
        provider_subject=mine.subject if mine.issuer == state.settings.oidc_issuer else None,
        tokens=[token_view(one) for one in tokens],
        shares=[share_view(one) for one in shares],
    )


@router.get("/account.json", response_model=c.AccountPage)
async def account_json(request: Request) -> Response:
    """The account that asks, with its tokens and share links."""
    return json_of(await load_account(request))


@router.get("/account", response_class=HTMLResponse, include_in_schema=False)
async def account_page(request: Request) -> Response:
    return shown(request, "account.html", page=await load_account(request))


@router.post("/account/password", include_in_schema=False)
async def change_password(request: Request) -> Response:
    """Every session of the account ends, and this browser has a new one."""
    form, state, account = filled(c.PasswordForm, await form_fields(request)), state_of(request), asking()
    async with state.database.connect() as db:
        mine = await store.get(db, account)
    if mine.password is not None:
        session = f"session {account} {hashed(request.cookies.get(cookie_name(request), ''))}"
        state.attempts.begin(mine.name, address_of(request), session)
        async with state.hashing:
            fits, _ = await asyncio.to_thread(verify, form.now, mine.password)
        if not fits:
            raise LoginRefused("The password you have now is another; nothing was changed.")
        state.attempts.succeeded(mine.name, address_of(request), session)
    password = await new_password(request, form.password, form.again)
    async with state.database.begin() as db:
        await store.hold(db, account, password=mine.password)
        await store.set_password(db, account, password)
    return await signed_in(request, account, mine.name, urls.account(), "changed the password", password=password)


@router.post("/account/sessions/end", include_in_schema=False)
async def end_sessions(request: Request) -> Response:
    async with state_of(request).database.begin() as db:
        await credentials.end_sessions(db, asking())
    state_of(request).known.forget()
    return RedirectResponse(urls.login(), status_code=303)


@router.post("/account/tokens", response_class=HTMLResponse, include_in_schema=False)
async def make_token(request: Request) -> Response:
    form = filled(c.TokenForm, {name: given for name, given in (await form_fields(request)).items() if given != [""]})
    async with state_of(request).database.begin() as db:
        secret = await credentials.make_token(db, asking(), form.name, form.scope, days=form.days)
    request.state.audit = Entry("made an API token", f"{form.name} ({form.scope})")
    return shown(request, "secret.html", what="API token", secret=secret, back=urls.account())


@router.post("/account/tokens/{token}/revoke", include_in_schema=False)
async def revoke_token(request: Request, token: int) -> Response:
    state = state_of(request)
    async with state.database.begin() as db:
        await credentials.revoke_token(db, number(token), asking())
    state.known.forget()
    return RedirectResponse(urls.account(), status_code=303)


def number(given: int) -> int:
    """
    Raises:
        BadRequest: no row has such a number.
    """
    if not 0 < given < 2**31:
        raise BadRequest(f"{str(given)[:40]} is none of the numbers here.")
    return given


async def _there(db: AsyncConnection, page: Shared) -> None:
    """That whoever shares a page can see it.

    Raises:
        UnknownList, UnknownInspection, UnknownSAE.
    """
    match page.kind:
        case "list":
            await list_store.get_list(db, page.name)
        case "run":
            await inspections.get(db, page.name)
        case _:
            await q.get_sae(db, page.path.split("/")[2])


async def share(request: Request, form: c.ShareForm) -> c.ShareMade:
    page = shared_page(form.address)
    async with state_of(request).database.begin() as db:
        await _there(db, page)
        secret = await credentials.make_share(db, asking(), page.path, form.days)
    request.state.audit = Entry("made a share link", page.path)
    return c.ShareMade(url=absolute(request, urls.share(secret)), address=page.path, days=form.days)


@router.post("/shares", response_class=HTMLResponse, include_in_schema=False)
async def post_share(request: Request) -> Response:
    made = await share(request, filled(c.ShareForm, await form_fields(request)))
    return shown(request, "secret.html", what="share link", secret=made.url, back=made.address)


@router.post(
    "/api/shares", response_model=c.ShareMade, responses=refused(BadRequest, UnknownList, UnknownInspection, UnknownSAE)
)
async def api_share(request: Request, body: Annotated[c.ShareForm, Body(openapi_examples=SHARE)]) -> Response:
    """Make a link that opens one page without an account, until it expires or is revoked."""
    return json_of(await share(request, body))


@router.post("/shares/{share}/revoke", include_in_schema=False)
async def revoke_share(request: Request, share: int) -> Response:
    state = state_of(request)
    async with state.database.begin() as db:
        await credentials.revoke_share(db, number(share), asking())
    state.shares.forget()
    return RedirectResponse(urls.account(), status_code=303)


@router.get("/share/{secret}", include_in_schema=False)
async def open_share(request: Request, secret: str) -> Response:
    """To the page; a cookie lets this browser read it, and what belongs to it."""
    async with state_of(request).database.connect() as db:
        found = await credentials.of_share(db, hashed(secret))
    if found is None:
        raise LinkGone("This link has expired or was revoked; ask whoever sent it for another.")
    before = request.cookies.get(cookie_name(request, "shares"), "").split(".")
    kept = list(dict.fromkeys([secret, *filter(None, before)]))[:OPEN_AT_ONCE]
    response = RedirectResponse(found[0], status_code=303)
    set_cookie(request, response, "shares", ".".join(kept), 30 * 86400)
    return response


@router.post("/inspect/{run}/visibility", include_in_schema=False)
async def show_run_to(request: Request, run: str) -> Response:
    form = filled(c.VisibilityForm, await form_fields(request))
    async with state_of(request).database.begin() as db:
        await inspections.show_to(db, run, form.visibility)
    return RedirectResponse(urls.inspect(run), status_code=303)
