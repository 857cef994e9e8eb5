"""Lists: their pages, their twins, and the forms that change them."""

import re
from typing import Annotated, get_args

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from app import urls
from app.errors import BadRequest, UnknownItem, UnknownList
from app.store import lists as store
from app.store.reader import reader
from app.store.references import MOST_IN_LINK, link, parse
from app.web import list_contexts as c
from app.web.fields import Label
from app.web.forms import filled, form_fields
from app.web.list_build import labelled, shown, summary
from app.web.list_files import as_csv, as_json
from app.web.refusals import refused
from app.web.routes import html, json_of, state_of

router = APIRouter(tags=["lists"], responses=refused(BadRequest, UnknownList))
PAGE, ITEMS = 30, 50
Cursor = Annotated[str | None, Query(description="What `next` said, for the page that follows.")]
Text = Annotated[Label, Query(max_length=100, description="Text that title, description or a comment holds.")]
Tag = Annotated[Label, Query(max_length=c.LONGEST_TAG, description="A tag of the list.")]
_MOVES = get_args(store.Way)


async def load_lists(request: Request, q: str, tag: str, cursor: str | None) -> c.ListsPage:
    async with state_of(request).database.connect() as db:
        found, following = await store.list_lists(db, text=q, tag=tag.lower(), cursor=cursor or None, limit=PAGE)
        tags = await store.tags_in_use(db)
    items = [c.ListSummary(**summary(one)) for one in found]
    return c.ListsPage(items=items, next=following, tags=tags, q=q, tag=tag.lower(), cursor=cursor or None)


async def load_list(request: Request, name: str, cursor: str | None) -> c.ListPage:
    state = state_of(request)
    async with state.database.connect() as db:
        record = await store.get_list(db, name)
        items, following = await store.get_items(db, record.id, cursor=cursor or None, limit=ITEMS)
        listed = await shown(state.vocabulary, db, items)
    opened = reader.get().shared is not None and reader.get().role is None  # by a link, which opens nothing else
    share = urls.change_list(name, "link") if 0 < record.count <= MOST_IN_LINK and not opened else None
    return c.ListPage(**summary(record), items=listed, next=following, cursor=cursor or None, share=share)


@router.get("/lists.json", response_model=c.ListsPage)
async def lists_json(request: Request, q: Text = "", tag: Tag = "", cursor: Cursor = None) -> Response:
    """Lists, the last changed first."""
    return json_of(await load_lists(request, q, tag, cursor))


@router.get("/lists", response_class=HTMLResponse, include_in_schema=False)
async def lists(request: Request, q: Text = "", tag: Tag = "", cursor: Cursor = None) -> Response:
    return html("lists.html", request, page=await load_lists(request, q, tag, cursor))


@router.post("/lists", include_in_schema=False)
async def start_list(request: Request) -> Response:
    form = filled(c.ListForm, await form_fields(request))
    async with state_of(request).database.begin() as db:
        name = await store.create(db, store.ListDraft(**form.model_dump(exclude_none=True)))
    return RedirectResponse(urls.list_page(name), status_code=303)


@router.get("/lists/{name}.json", response_model=c.ListPage)
async def list_json(request: Request, name: str, cursor: Cursor = None) -> Response:
    """A list with a page of its items: each with its label, or why it is not here."""
    return json_of(await load_list(request, name, cursor))


@router.get("/lists/{name}", response_class=HTMLResponse, include_in_schema=False)
async def list_page(request: Request, name: str, cursor: Cursor = None) -> Response:
    return html("list.html", request, page=await load_list(request, name, cursor))


async def whole(request: Request, name: str) -> tuple[store.ListRecord, list[store.ItemRecord]]:
    async with state_of(request).database.connect() as db:
        record = await store.get_list(db, name)
        items, _ = await store.get_items(db, record.id)
        return record, await labelled(db, items)


@router.get("/lists/{name}/link", include_in_schema=False)
async def link_list(request: Request, name: str) -> Response:
    """To the address that holds the list itself, without comments and tags."""
    record, items = await whole(request, name)
    held = link(parse(one.reference) for one in items)
    if not held:
        raise BadRequest("This list is empty, or too long for an address; export it as a file.", list=name)
    return RedirectResponse(urls.shared_list(held, record.title), status_code=303)


def download(name: str, ending: str) -> dict[str, str]:
    return {"content-disposition": f'attachment; filename="{name}.{ending}"', "cache-control": "private, no-store"}


@router.get("/lists/{name}/export.json", response_model=c.ListBody)
async def export_json(request: Request, name: str) -> Response:
    """A whole list as a file; POST /api/lists takes it, here or elsewhere."""
    record, items = await whole(request, name)
    return Response(as_json(record, items), media_type="application/json", headers=download(name, "json"))


@router.get("/lists/{name}/export.csv", response_class=Response)
async def export_csv(request: Request, name: str) -> Response:
    """A whole list as CSV, a line an item."""
    record, items = await whole(request, name)
    return Response(as_csv(items), media_type="text/csv; charset=utf-8", headers=download(record.slug, "csv"))


@router.post("/lists/{name}/edit", include_in_schema=False)
async def edit_list(request: Request, name: str) -> Response:
    form = filled(c.ListForm, await form_fields(request))
    async with state_of(request).database.begin() as db:
        await store.edit(db, name, **form.model_dump(exclude_none=True))
    return RedirectResponse(urls.list_page(name), status_code=303)


@router.get("/lists/{name}/delete", response_class=HTMLResponse, include_in_schema=False)
async def ask_delete(request: Request, name: str) -> Response:
    async with state_of(request).database.connect() as db:
        record = await store.get_list(db, name)
    return html("list_delete.html", request, page=c.ListSummary(**summary(record)))


@router.post("/lists/{name}/delete", include_in_schema=False)
async def delete_list(request: Request, name: str) -> Response:
    async with state_of(request).database.begin() as db:
        await store.remove(db, name)
    return RedirectResponse(urls.lists(), status_code=303)


def number(text: str) -> int:
    """
    Raises:
        UnknownItem: no item has such a number.
    """
    if not re.fullmatch(r"[0-9]{1,18}", text):
        raise UnknownItem(f"{text[:40]!r} is no item's number.", item=text[:40])
    return int(text)


async def change_item(request: Request, name: str, item: int, edit: c.ItemEdit) -> None:
    """
    Raises:
        UnknownList, UnknownItem.
    """
    values = edit.model_dump(exclude_none=True, include={"comment", "tags"})
    async with state_of(request).database.begin() as db:
        if values or edit.move is None:
            await store.edit_item(db, name, item, **values)
        if edit.move:
            await store.move_item(db, name, item, edit.move)


@router.post("/lists/{name}/items/{item}/{what}", include_in_schema=False)
async def post_item(request: Request, name: str, item: str, what: str) -> Response:
    fields = await form_fields(request)
    cursor, this = fields.get("cursor", [None])[-1], number(item)
    if what == "remove":
        async with state_of(request).database.begin() as db:
            await store.remove_item(db, name, this)
        return RedirectResponse(urls.list_page(name, cursor=cursor), status_code=303)
    if what == "edit":
        await change_item(request, name, this, c.ItemEdit(**filled(c.ItemForm, fields).model_dump()))
    elif what in _MOVES:
        await change_item(request, name, this, c.ItemEdit(move=what))
    else:
        raise BadRequest(f"An item cannot be {what[:40]!r}; it is edit, remove or {', '.join(_MOVES)}.")
    return RedirectResponse(urls.list_page(name, cursor=cursor, item=this), status_code=303)
