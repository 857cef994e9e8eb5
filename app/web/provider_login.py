"""Signing in by an OpenID Connect provider, and linking an account with it."""

from functools import partial
from typing import TYPE_CHECKING

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from sqlalchemy.ext.asyncio import AsyncConnection

from app import urls
from app.errors import BadRequest, LoginRefused, NameTaken, PageNotFound
from app.passwords import hashed
from app.store import accounts as store
from app.store.credentials import of_session
from app.web.account_page import asking
from app.web.attempts import BY_ADDRESS
from app.web.identity import Entry, cookie_name, forget_cookie, set_cookie
from app.web.limits import address_of
from app.web.provider_signins import Pending, Person
from app.web.routes import state_of
from app.web.sharing import absolute
from app.web.signing import here, shown, signed_in

if TYPE_CHECKING:
    from app.web.provider import Provider

router = APIRouter(include_in_schema=False)
MINUTES = 10  # that somebody may take at the provider


def provider_of(request: Request) -> "Provider":
    """
    Raises:
        PageNotFound: there is none here.
    """
    state = state_of(request)
    settings = state.settings
    if not settings.oidc_issuer or not settings.oidc_client_id:
        raise PageNotFound("No provider is set here; sign in by name and password.")
    if state.provider is None:
        from app.web.provider import Provider  # libraries that nobody else needs

        state.provider = Provider(settings)
    return state.provider


async def begun(request: Request, pending: Pending) -> str:
    """Where to go at the provider."""
    back = absolute(request, urls.provider_back())
    provider = provider_of(request)
    state_of(request).attempts.count({f"provider {address_of(request)}": BY_ADDRESS})
    return await provider.ask(partial(provider.begin, back, pending))


def session_digest(request: Request) -> str:
    return hashed(request.cookies.get(cookie_name(request), ""))


@router.get("/login/provider")
async def by_provider(request: Request) -> Response:
    pending = Pending.new(here(request.query_params.get("next", "")))
    response = RedirectResponse(await begun(request, pending), status_code=303)
    set_cookie(request, response, "provider", pending.packed(), MINUTES * 60)
    return response


@router.post("/account/provider/link", response_class=HTMLResponse)
async def begin_link(request: Request) -> Response:
    """A page with a link, since a form may lead nowhere but to this site."""
    pending = Pending.new(urls.account(), session_digest(request))
    url = await begun(request, pending)
    response = shown(request, "provider.html", url=url, provider=state_of(request).settings.oidc_name)
    set_cookie(request, response, "provider", pending.packed(), MINUTES * 60)
    return response


@router.post("/account/provider/unlink")
async def unlink(request: Request) -> Response:
    async with state_of(request).database.begin() as db:
        mine = await store.get(db, asking())
        if mine.password is None:
            raise BadRequest("Set a password first; without it there would be no way to sign in.")
        await store.link_subject(db, mine.id, None, None)
    return RedirectResponse(urls.account(), status_code=303)


@router.get("/login/provider/back", response_class=HTMLResponse)
async def back(request: Request) -> Response:
    pending = Pending.read(request.cookies.get(cookie_name(request, "provider"), ""))
    if pending is None:
        raise LoginRefused("This sign-in was begun in another browser, or too long ago; begin again.")
    given = request.query_params
    if "error" in given or "code" not in given:
        raise LoginRefused(f"The provider says {given.get('error', 'nothing')[:60]!r}; begin again.")
    provider = provider_of(request)
    finish = partial(
        provider.finish, absolute(request, urls.provider_back()), pending, state=given.get("state", ""),
        code=given["code"], issuer=given.get("iss"),
    )  # fmt: skip
    person = await provider.ask(finish)
    response = await (_linked(request, pending, person) if pending.linking else _entered(request, pending, person))
    forget_cookie(request, response, "provider")
    return response


async def _entered(request: Request, pending: Pending, person: Person) -> Response:
    """
    Raises:
        LoginRefused: no account is linked with them, and none may be made; or it is disabled.
    """
    role = state_of(request).settings.oidc_role
    async with state_of(request).database.begin() as db:
        found = await store.find_subject(db, person.issuer, person.subject)
        if found is None and role != "none":
            name = await _free_name(db, person.name)
            made = await store.add(db, name, role, issuer=person.issuer, subject=person.subject)
            found = await store.get(db, made)
    if found is None:
        raise LoginRefused(
            "No account here is linked with this sign-in. Ask an admin for an invitation, then link it on your "
            "account's page."
        )
    if found.disabled:
        raise LoginRefused("This account is disabled; ask an admin.")
    return await signed_in(request, found.id, found.name, pending.then, "signed in by the provider")


async def _free_name(db: AsyncConnection, wanted: str) -> str:
    """
    Raises:
        NameTaken.
    """
    try:
        name = store.checked_name(wanted)[: store.LONGEST_NAME - 4].strip()
    except BadRequest:
        name = "member"
    for number in range(1, 1000):
        tried = name if number == 1 else f"{name} {number}"
        if await store.find(db, tried) is None:
            return tried
    raise NameTaken("Too many accounts here have this name; ask an admin.")


async def _linked(request: Request, pending: Pending, person: Person) -> Response:
    """
    Raises:
        LoginRefused: another is signed in by now. NameTaken: another account is linked with them.
    """
    digest = session_digest(request)
    async with state_of(request).database.begin() as db:
        known = await of_session(db, digest)
        if known is None or digest != pending.linking:
            raise LoginRefused("Somebody else is signed in here by now; begin again.")
        await store.link_subject(db, known.account, person.issuer, person.subject)
    request.state.audit = Entry("linked a provider", person.subject, known.account, known.name)
    return RedirectResponse(urls.account(), status_code=303)
