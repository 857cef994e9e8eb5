"""The prompt inspector: its page, runs that were kept, their twins, and POST /api/inspect."""

import asyncio
from dataclasses import replace
from typing import Annotated, Any, Protocol

from fastapi import APIRouter, Body, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from pydantic import BaseModel
from sqlalchemy.ext.asyncio import AsyncConnection
from starlette.requests import ClientDisconnect

from app import urls
from app.errors import BadRequest, SaescopeError, UnknownInspection, UnknownSAE
from app.live.packed import pack, unpack
from app.live.prompt import PromptRun
from app.store import inspections
from app.store import queries as q
from app.store.plain import storable
from app.store.reader import reader
from app.web import build
from app.web import contexts as page_contexts
from app.web import inspect_contexts as c
from app.web.api_examples import INSPECT
from app.web.forms import filled, form_fields
from app.web.gone import while_there
from app.web.identity import Entry
from app.web.inspect_build import Read, result
from app.web.limits import about_tokens, client_of
from app.web.refusals import READING, refused
from app.web.rendering import render_block
from app.web.routes import html, json_of, state_of
from app.web.state import State, target

router = APIRouter(tags=["live"])
Asked = Annotated[c.InspectQuery, Query()]
Shown = Annotated[c.InspectState, Query()]
ASKED_FOR = 256  # choices of SAEs that are remembered, those asked for last
LONGEST_URL = 4000  # beyond, a prompt is kept and its address names it


def check_unicode(text: str) -> None:
    """Refuse what no tokenizer and no database can take: half of a surrogate pair."""
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise BadRequest("The text is not valid Unicode: it holds half of a surrogate pair.")


async def chosen(db: AsyncConnection, asked: list[str], known: list[q.SAERecord]) -> list[q.SAERecord]:
    """The SAEs asked for, or the first there is.

    Raises:
        UnknownSAE: one is not here.
        BadRequest: they read different subjects.
    """
    newest = {sae.slug: sae for sae in known}
    names = list(dict.fromkeys(name for name in asked if name))
    if not names:
        return known[:1]
    addresses = [name.partition("@") for name in names if name == storable(name)]
    pinned = [(slug, revision) for slug, at, revision in addresses if at]
    there = {f"{slug}@{r}": sae for (slug, r), sae in (await q.find_revisions(db, pinned)).items()} if pinned else {}
    return of_one_subject([there.get(name) or newest.get(name) or await q.get_sae(db, name) for name in names])


async def named(state: State, names: list[str]) -> list[q.SAERecord]:
    """The SAEs asked for, or the only one there is.

    Raises:
        UnknownSAE: one is not here.
        BadRequest: they read different subjects, or none is named and there is not exactly one.
    """
    if not names:
        async with state.reads.connect() as db:
            known = await q.list_saes(db)
        if len(known) != 1:
            raise BadRequest("Say which SAE with 'sae'; there is not exactly one here.")
        return known
    told = await state.saes.get(names)
    found = []
    for name in dict.fromkeys(names):
        if isinstance(sae := told[name], UnknownSAE):
            raise sae
        found.append(sae)
    state.asked_for[tuple(names)] = of_one_subject(found)
    state.asked_for.move_to_end(tuple(names))
    if len(state.asked_for) > ASKED_FOR:
        state.asked_for.popitem(last=False)
    return found


def of_one_subject(found: list[q.SAERecord]) -> list[q.SAERecord]:
    if len({(sae.subject_path, sae.subject_sha256) for sae in found}) > 1:
        told = ", ".join(f"{sae.slug} reads {sae.subject}" for sae in found)
        raise BadRequest(f"SAEs that are inspected together must read one subject; {told}.")
    return found


async def read(request: Request, saes: list[q.SAERecord], text: str, *, chat: bool, predict: bool) -> PromptRun:
    """No database connection is held while the engine works, so that prompts in the queue keep no page from being
    read."""
    state = state_of(request)
    check_unicode(text)
    targets = [target(sae, state.settings.home) for sae in saes]
    run = state.engine.known(targets, text, chat=chat, predict=predict)
    if run is None:
        with state.limits.request(client_of(request)) as spend, state.engine.expecting():
            try:
                run = await while_there(request, state.engine.read(targets, text, chat=chat, predict=predict))
            except ClientDisconnect:
                spend(about_tokens(text))
                raise
            spend(len(run.token_ids))
    wanted = {name: run.readings[name] for name in (sae.revision for sae in saes)}  # more may be known of this text
    return replace(run, readings=wanted, predictions=run.predictions if predict else None)


def _same(saes: list[q.SAERecord], guessed: list[q.SAERecord]) -> bool:
    """Whether they are the same SAEs, read by the same weights, and none of their latents' rows has changed."""
    told = [
        [(s.id, s.revision, s.path, s.sha256, s.subject_path, s.subject_sha256, s.edition) for s in some]
        for some in (saes, guessed)
    ]
    return told[0] == told[1]


async def inspected(request: Request, names: list[str], body: c.InspectBody) -> c.InspectResult:
    """What ``named`` SAEs read. They are taken for what they were when they were last asked for; the database is asked
    what they are now when the model is done, for beside it that would take the model's cores, and together with the
    labels that are not known. Should they have changed, all is done again."""
    state = state_of(request)
    guessed = state.asked_for.get(tuple(names))
    if guessed is not None:
        there = None
        try:
            run = await read(request, guessed, body.text, chat=body.chat, predict=body.predict)
            there = asyncio.ensure_future(named(state, names))
            shown = await answered(request, guessed, run, body, body.text, chat=body.chat)
            if _same(await there, guessed):
                return shown
        except SaescopeError:
            if _same(await (there or named(state, names)), guessed):
                raise
        finally:
            if there is not None:
                there.cancel()
                await asyncio.gather(there, return_exceptions=True)
    saes = await named(state, names)
    run = await read(request, saes, body.text, chat=body.chat, predict=body.predict)
    return await answered(request, saes, run, body, body.text, chat=body.chat)


async def run_test(request: Request, sae: q.SAERecord, index: int, peak: float, text: str) -> page_contexts.FeatureTest:
    """One latent's activations on ``text``; ``peak`` is its max|a| in the harvest."""
    run = await read(request, [sae], text, chat=False, predict=False)
    reading, values = run.readings[sae.revision], [0.0] * len(run.pieces)
    mine = reading.latent == index
    for place, value in zip(reading.position[mine], reading.value[mine], strict=True):
        values[int(place)] = float(value)
    position = max(range(len(values)), key=lambda place: abs(values[place]))
    strongest = values[position]
    return page_contexts.FeatureTest(
        text=text,
        tokens=run.pieces,
        activations=values,
        strongest=strongest,
        position=position if strongest else None,
        share=abs(strongest) / peak if peak else float(bool(strongest)),
    )


async def answered(
    request: Request, saes: list[q.SAERecord], run: PromptRun, query: c.InspectState, text: str, *, chat: bool,
    kept: str | None = None,
) -> c.InspectResult:  # fmt: skip
    state = state_of(request)
    reads = [Read(sae.slug, sae.revision, sae, sae.pinned) for sae in saes]
    vocabulary = await state.vocabulary(saes[0])
    return await result(
        state, run, reads, query, text, chat=chat, subject=saes[0].subject, kept=kept, vocabulary=vocabulary
    )


async def load_inspect(request: Request, query: c.InspectQuery) -> c.InspectPage:
    state, run, shown = state_of(request), None, None
    with state.engine.expecting():
        async with state.database.connect() as db:
            known = await q.list_saes(db)
            saes = await chosen(db, query.sae, known)
    if query.text is not None and saes:
        run = await read(request, saes, query.text, chat=query.chat, predict=query.predict)
    if run is not None and query.text is not None:
        shown = await answered(request, saes, run, query, query.text, chat=query.chat)
    return page(request, known, [sae.address for sae in saes], query, shown)


def page(
    request: Request, known: list[q.SAERecord], saes: list[str], query: c.InspectQuery,
    shown: c.InspectResult | None, made: str | None = None,
) -> c.InspectPage:  # fmt: skip
    settings = state_of(request).settings
    return c.InspectPage(
        saes=[build.card(s) for s in known],
        chosen=saes,
        query=query,
        run=shown.run if shown else None,
        made=made,
        limit_tokens=settings.max_prompt_tokens - 1,
        limit_characters=settings.max_prompt_chars,
        result=shown,
    )


async def load_run(request: Request, name: str, query: c.InspectState) -> c.InspectPage:
    """A run that was kept. Nothing of it is read anew, so the engine need not be there."""
    state = state_of(request)
    async with state.database.connect() as db:
        record = await inspections.get(db, name)
        run = await asyncio.to_thread(unpack, record.data)
        known = await q.list_saes(db)
        named = list(zip(record.slugs, record.revisions, strict=True))
        there = await q.find_revisions(db, named)
        saes = [Read(slug, revision, there.get((slug, revision)), True) for slug, revision in named]
        first = next((sae.record for sae in saes if sae.record is not None), None)
        vocabulary = None
        if first is not None:
            try:
                vocabulary = await state.vocabulary(first)
            except SaescopeError:  # the subject's files are gone; what was kept is shown all the same
                vocabulary = None
    if (who := reader.get()).shared is not None and who.role is None:  # the link tells of this run alone
        known = [sae for sae in known if sae.slug in record.slugs]
    shown = await result(
        state, run, saes, query, record.text, chat=record.chat, subject=record.subject, kept=name, vocabulary=vocabulary
    )
    asked = c.InspectQuery(
        **query.model_dump(), sae=[sae.address for sae in saes], text=record.text, chat=record.chat,
        predict=run.predictions is not None,
    )  # fmt: skip
    return page(request, known, [sae.address for sae in saes], asked, shown, record.made.isoformat(timespec="seconds"))


def check_keepable(text: str) -> None:
    if "\0" in text:
        raise BadRequest("The text holds a NUL character, so it cannot be kept; take it out, or do not keep it.")


async def keep(
    request: Request, saes: list[q.SAERecord], text: str, *, chat: bool, predict: bool
) -> tuple[str, PromptRun]:
    """Read the text and store what was read; its name.

    Raises:
        BadRequest: the text holds a NUL, which the database cannot.
    """
    check_keepable(text)
    run = await read(request, saes, text, chat=chat, predict=predict)
    data = await asyncio.to_thread(pack, run)
    async with state_of(request).database.begin() as db:
        name = await inspections.keep(
            db, subject=saes[0].subject, text=text, chat=chat,
            saes=[(sae.slug, sae.revision) for sae in saes], data=data,
        )  # fmt: skip
    request.state.audit = Entry("kept a prompt run", urls.inspect(name))
    return name, run


def fragment(request: Request) -> bool:
    return bool(request.headers.get("hx-request")) and not request.headers.get("hx-history-restore-request")


def shown_as(request: Request, page: c.InspectPage) -> Response:
    if fragment(request):
        asked = page.query if page.run is None else c.InspectState(**page.query.model_dump())
        url = urls.inspect(page.run, **tidy(asked))
        block = render_block("inspect.html", "inspect_result", page=page, request=request)
        return HTMLResponse(block, headers={"hx-push-url": url})
    return html("inspect.html", request, page=page)


def tidy(query: BaseModel) -> dict[str, Any]:
    """The state as a URL writes it: what is not the default, and pins without those that were taken out."""
    given = query.model_dump(exclude_defaults=True)
    return {name: int(value) if isinstance(value, bool) else value for name, value in given.items()}


class Pinned(Protocol):
    pin: list[str]


def unpinned(request: Request, query: Pinned) -> bool:
    """Take out the pin that a button of the page names; whether there was one."""
    taken = set(request.query_params.getlist("unpin"))
    kept = [pin for pin in dict.fromkeys(query.pin) if pin not in taken]
    changed = bool(taken) or kept != query.pin
    query.pin = kept
    return changed


@router.get("/inspect.json", response_model=c.InspectPage, responses=refused(*READING))
async def inspect_json(request: Request, query: Asked) -> Response:
    """The inspect page: a prompt and the features that fire on it."""
    return json_of(await load_inspect(request, query))


@router.get("/inspect", response_class=HTMLResponse, include_in_schema=False)
async def inspect(request: Request, query: Asked) -> Response:
    if unpinned(request, query) and not fragment(request):
        return RedirectResponse(urls.inspect(**tidy(query)), status_code=303)
    return shown_as(request, await load_inspect(request, query))


@router.post("/inspect", include_in_schema=False)
@router.post("/inspect/keep", include_in_schema=False)
async def post_inspect(request: Request) -> Response:
    """The form: a short prompt goes to an address that holds it, a long one, or one to be kept, to a kept run's."""
    query = await read_form(request)
    url = urls.inspect(**tidy(query))
    if not request.url.path.endswith("/keep") and len(url) <= LONGEST_URL:
        return RedirectResponse(url, status_code=303)
    async with state_of(request).database.connect() as db:
        saes = await chosen(db, query.sae, await q.list_saes(db))
    if not saes:
        raise BadRequest("There is no SAE here to read it with; harvest one first.")
    name, _ = await keep(request, saes, query.text or "", chat=query.chat, predict=query.predict)
    shown = tidy(c.InspectState(**query.model_dump()))
    if "pin" in shown:
        shown["pin"] = [_pinned(saes, pin) for pin in query.pin]
    if request.query_params.get("then") == "list":
        return RedirectResponse(urls.add_to_list(run=name), status_code=303)
    return RedirectResponse(urls.inspect(name, **shown), status_code=303)


def _pinned(saes: list[q.SAERecord], pin: str) -> str:
    """The pin as a kept run names it, which holds on to revisions."""
    name, _, number = pin.rpartition("/")
    for sae in saes:
        if name in ("", sae.slug, f"{sae.slug}@{sae.revision}"):
            return f"{sae.slug}@{sae.revision}/{number}"
    return pin


async def read_form(request: Request) -> c.InspectQuery:
    """
    Raises:
        TextTooLong, BadRequest: the body is too long, or no form of this kind.
    """
    fields = await form_fields(request)
    query = filled(c.InspectQuery, fields)
    taken = set(fields.get("unpin", []))
    query.pin = [pin for pin in dict.fromkeys(query.pin) if pin not in taken]
    return query


@router.get("/inspect/{run}.json", response_model=c.InspectPage, responses=refused(BadRequest, UnknownInspection))
async def run_json(request: Request, run: str, query: Shown) -> Response:
    """A prompt's run that was kept, as it was read then."""
    return json_of(await load_run(request, run, query))


@router.get("/inspect/{run}", response_class=HTMLResponse, include_in_schema=False)
async def run_page(request: Request, run: str, query: Shown) -> Response:
    if unpinned(request, query) and not fragment(request):
        return RedirectResponse(urls.inspect(run, **tidy(query)), status_code=303)
    return shown_as(request, await load_run(request, run, query))


@router.post("/inspect/{run}/delete", include_in_schema=False)
async def delete_run(request: Request, run: str) -> Response:
    async with state_of(request).database.begin() as db:
        await inspections.remove(db, run)
    return RedirectResponse(urls.inspect(), status_code=303)


@router.post("/api/inspect", response_model=c.InspectResult, responses=refused(*READING))
async def api_inspect(request: Request, body: Annotated[c.InspectBody, Body(openapi_examples=INSPECT)]) -> Response:
    """Read a prompt with one or more SAEs: its tokens and the strongest features."""
    names = [body.sae] if isinstance(body.sae, str) else body.sae or []
    if not body.keep:
        return json_of(await inspected(request, names, body))
    saes = await named(state_of(request), names)
    name, run = await keep(request, saes, body.text, chat=body.chat, predict=body.predict)
    return json_of(await answered(request, saes, run, body, body.text, chat=body.chat, kept=name))
