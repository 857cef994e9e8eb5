"""Ways into a list: what is added to one, a list that an address holds, and files."""

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException

from app import urls
from app.errors import BadRequest, SaescopeError
from app.store import lists as store
from app.store.references import Reference, link, linked, parse
from app.web import list_contexts as c
from app.web.api_examples import DEMO
from app.web.forms import filled, form_fields
from app.web.list_api import create
from app.web.list_build import shown, summary
from app.web.list_files import read
from app.web.list_items import plain_drafts
from app.web.lists import load_lists
from app.web.refusals import refused
from app.web.rendering import render_block, render_page
from app.web.routes import html, json_of, state_of

router = APIRouter(tags=["lists"], responses=refused(BadRequest))
CHOICES = 50
Items = Annotated[
    str,
    Query(
        description="SAE@REVISION/NUMBER,NUMBER~run/NAME~SAE@REVISION/map/VERSION/LEVEL/NUMBER, in order.",
        examples=[f"{DEMO}/830,2934"],
    ),
]
Title = Annotated[str, Query(max_length=200, description="What the list is called.")]


def fragment(request: Request) -> bool:
    return bool(request.headers.get("hx-request")) and not request.headers.get("hx-history-restore-request")


def asked(request: Request) -> list[Reference]:
    """What the address of /lists/add names.

    Raises:
        BadRequest: nothing, or what no list can hold.
    """
    given = request.query_params
    sae = given.get("sae", "")
    if given.get("items"):
        return linked(given["items"])
    if given.get("run"):
        return [parse(f"run/{given['run']}")]
    if given.get("map"):
        return [parse(f"{sae}/map/{given['map']}/{given.get('level', '0')}/{given.get('region', '')}")]
    indices = [part.strip() for text in given.getlist("index") for part in text.split(",") if part.strip()]
    if not indices:
        raise BadRequest("Nothing is selected to be added; tick features in the table, or open one.", field="index")
    return [parse(f"{sae}/{index}") for index in dict.fromkeys(indices)]


async def read_items(request: Request, wanted: list[Reference]) -> tuple[list[c.Listed], str]:
    """The items as pages show them, and as an address holds them.

    Raises:
        BadRequest: one does not fit, or together they are too long for an address.
    """
    state = state_of(request)
    async with state.database.connect() as db:
        kept = await plain_drafts(db, wanted)
        records = [store.ItemRecord(0, place, one.reference, one.label, "", [], None) for place, one in enumerate(kept)]
        found = await shown(state.vocabulary, db, records)
    text = link(parse(one.reference) for one in kept)
    if text is None:
        raise BadRequest(f"These are {len(kept):,} items, too many to be added at once; select fewer.", field="items")
    return found, text


async def load_add(request: Request) -> c.AddPage:
    items, given = await read_items(request, asked(request))
    async with state_of(request).database.connect() as db:
        lists, _ = await store.list_lists(db, limit=CHOICES)
    return c.AddPage(items=items, given=given, lists=[c.ListSummary(**summary(one)) for one in lists])


@router.get("/lists/add", response_class=HTMLResponse, include_in_schema=False)
async def add(request: Request) -> Response:
    page = await load_add(request)
    if fragment(request):
        return HTMLResponse(render_block("list_add.html", "adding", page=page))
    return html("list_add.html", request, page=page)


@router.post("/lists/add", include_in_schema=False)
async def post_add(request: Request) -> Response:
    form = filled(c.AddForm, await form_fields(request))
    wanted = linked(form.items)
    if not form.list and not form.title:
        raise BadRequest("Choose a list, or give a new one a title.", field="title")
    async with state_of(request).database.begin() as db:
        items = await plain_drafts(db, wanted, form.comment)
        name = await store.create(db, store.ListDraft(form.title)) if form.title else form.list
        new = await store.add(db, name, items)
        record = await store.get_list(db, name)
    if fragment(request):
        added = c.ListSummary(**summary(record))
        return HTMLResponse(render_block("list_add.html", "added", page=added, new=len(new), items=len(items)))
    return RedirectResponse(urls.list_page(name), status_code=303)


async def load_shared(request: Request, items: str, title: str) -> c.SharedPage:
    found, given = await read_items(request, linked(items))
    return c.SharedPage(title=title, items=found, given=given)


@router.get("/lists/shared.json", response_model=c.SharedPage)
async def shared_json(request: Request, items: Items = "", title: Title = "") -> Response:
    """A list that is kept nowhere but in its address."""
    return json_of(await load_shared(request, items, title))


@router.get("/lists/shared", response_class=HTMLResponse, include_in_schema=False)
async def shared(request: Request, items: Items = "", title: Title = "") -> Response:
    return html("list_shared.html", request, page=await load_shared(request, items, title))


@router.post("/lists/import", response_class=HTMLResponse, include_in_schema=False)
async def import_list(request: Request) -> Response:
    """A file, or what was pasted; where it does not fit, the page says so and keeps what was pasted."""
    text, title = "", ""
    try:
        async with request.form(max_files=1, max_fields=10, max_part_size=1 << 21) as form:
            text, title = str(form.get("text") or ""), str(form.get("title") or "").strip()
            file = form.get("file")
            data = await file.read() if isinstance(file, UploadFile) else b""
        body, places = read(data or text, title)
        name = await create(request, body, places)
    except (SaescopeError, HTTPException) as error:
        told = error if isinstance(error, SaescopeError) else BadRequest("The form cannot be read: it is no form.")
        if told.status >= 500:
            raise
        page = await load_lists(request, "", "", None)
        again = render_page("lists.html", request=request, page=page, error=told.message, title=title, text=text)
        return HTMLResponse(again, status_code=told.status)
    return RedirectResponse(urls.list_page(name), status_code=303)
