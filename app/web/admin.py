"""For admins: accounts, invitations, everybody's tokens and share links, and the audit log."""

import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import asdict, replace
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from app import urls
from app.errors import BadRequest, Forbidden, LoginNeeded
from app.store import accounts as store
from app.store import audit, credentials
from app.store.reader import reader
from app.web import account_contexts as c
from app.web.account_page import number, share_view, token_view
from app.web.forms import filled, form_fields
from app.web.identity import Entry
from app.web.refusals import refused
from app.web.routes import json_of, state_of
from app.web.shared_pages import untitled
from app.web.sharing import absolute
from app.web.signing import shown
from app.web.streamed import Streamed

router = APIRouter(tags=["accounts"], responses=refused(LoginNeeded, Forbidden))
PAGE = 100
Cursor = Annotated[str | None, Query(description="What `next` said, for the page that follows.")]


async def load_admin(request: Request) -> c.AdminPage:
    state = state_of(request)
    async with state.database.connect() as db:
        found = await store.list_accounts(db)
        links = await store.list_links(db)
        tokens = await credentials.list_tokens(db)
        shares = await credentials.list_shares(db)
    return c.AdminPage(
        accounts=[
            c.AccountView(
                id=one.id, name=one.name, role=one.role, has_password=one.password is not None,
                linked=one.subject is not None, disabled=one.disabled, made=one.made,
            )
            for one in found
        ],
        invitations=[
            c.InvitationView(id=one.id, role=one.role, account=one.name, made_by=one.made_by, expires=one.expires)
            for one in links
        ],
        tokens=[token_view(one) for one in tokens],
        shares=[share_view(replace(one, address=untitled(one.address))) for one in shares],
        public_read=state.settings.public_read,
    )  # fmt: skip


@router.get("/admin.json", response_model=c.AdminPage)
async def admin_json(request: Request) -> Response:
    """Accounts, open invitations, tokens and share links."""
    return json_of(await load_admin(request))


@router.get("/admin", response_class=HTMLResponse, include_in_schema=False)
async def admin_page(request: Request) -> Response:
    return shown(
        request, "admin.html", page=await load_admin(request), revoke_token=partial(urls.admin_revoke, "tokens"),
        revoke_share=partial(urls.admin_revoke, "shares"),
    )  # fmt: skip


@router.post("/admin/invitations", response_class=HTMLResponse, include_in_schema=False)
async def invite(request: Request) -> Response:
    form = filled(c.InvitationForm, await form_fields(request))
    async with state_of(request).database.begin() as db:
        secret = await store.make_link(db, made_by=reader.get().name, maker=reader.get().account, role=form.role)
    request.state.audit = Entry(f"invited a new {form.role}")
    link = absolute(request, urls.join(secret))
    return shown(request, "secret.html", what=f"invitation ({form.role})", secret=link, back=urls.admin())


@router.post("/admin/invitations/{invitation}/revoke", include_in_schema=False)
async def revoke_invitation(request: Request, invitation: int) -> Response:
    async with state_of(request).database.begin() as db:
        await store.remove_link(db, number(invitation))
    return RedirectResponse(urls.admin(), status_code=303)


@router.post("/admin/accounts/{account}", include_in_schema=False)
async def change_account(request: Request, account: int) -> Response:
    form, state = filled(c.ChangeForm, await form_fields(request)), state_of(request)
    values = form.model_dump(exclude_none=True)
    if not values:
        raise BadRequest("Say what is to be changed: role, or disabled.")
    async with state.database.begin() as db:
        await store.change(db, number(account), **values)
        name = (await store.get(db, account)).name
    state.known.forget()
    state.shares.forget()
    told = ", ".join(f"{field} {value}" for field, value in values.items())
    request.state.audit = Entry(f"changed an account: {told.lower()}", name)
    return RedirectResponse(urls.admin(), status_code=303)


@router.post("/admin/accounts/{account}/link", response_class=HTMLResponse, include_in_schema=False)
async def password_link(request: Request, account: int) -> Response:
    async with state_of(request).database.begin() as db:
        name = (await store.get(db, number(account))).name
        secret = await store.make_link(db, made_by=reader.get().name, maker=reader.get().account, account=account)
    request.state.audit = Entry("made a password link", name)
    link = absolute(request, urls.join(secret))
    return shown(request, "secret.html", what=f"link to set {name}'s password", secret=link, back=urls.admin())


@router.post("/admin/tokens/{token}/revoke", include_in_schema=False)
async def revoke_token(request: Request, token: int) -> Response:
    async with state_of(request).database.begin() as db:
        await credentials.revoke_token(db, number(token))
    state_of(request).known.forget()
    return RedirectResponse(urls.admin(), status_code=303)


@router.post("/admin/shares/{share}/revoke", include_in_schema=False)
async def revoke_share(request: Request, share: int) -> Response:
    async with state_of(request).database.begin() as db:
        await credentials.revoke_share(db, number(share))
    state_of(request).shares.forget()
    return RedirectResponse(urls.admin(), status_code=303)


def view(record: audit.AuditRecord) -> c.AuditView:
    return c.AuditView(**asdict(record))


async def load_audit(request: Request, cursor: str | None) -> c.AuditPage:
    async with state_of(request).database.connect() as db:
        found, following = await audit.list_entries(db, cursor=cursor or None, limit=PAGE)
    return c.AuditPage(items=[view(one) for one in found], next=following, cursor=cursor or None)


@router.get("/admin/audit.json", response_model=c.AuditPage, responses=refused(BadRequest))
async def audit_json(request: Request, cursor: Cursor = None) -> Response:
    """What was changed here, by whom and when, the newest first."""
    return json_of(await load_audit(request, cursor))


@router.get("/admin/audit.jsonl", response_class=Response)
async def audit_export(request: Request) -> Response:
    """The whole audit log, a line of JSON an entry, the oldest first."""
    state = state_of(request)

    async def lines() -> AsyncGenerator[str, None]:
        async with state.exports, state.database.connect() as db, aclosing(audit.every_entry(db)) as entries:
            async for one in entries:
                yield json.dumps(view(one).model_dump(mode="json")) + "\n"

    request.state.cache = "private, no-store"
    headers = {"content-disposition": 'attachment; filename="audit.jsonl"'}
    return Streamed(lines(), media_type="application/x-ndjson", headers=headers)


@router.get("/admin/audit", response_class=HTMLResponse, include_in_schema=False)
async def audit_page(request: Request, cursor: Cursor = None) -> Response:
    return shown(request, "audit.html", page=await load_audit(request, cursor))
