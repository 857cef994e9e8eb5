"""Lists by JSON: made, changed and removed."""

from typing import Annotated

from fastapi import APIRouter, Body, Request
from fastapi.responses import Response

from app import urls
from app.errors import BadRequest, BodyTooLong, TooLarge, UnknownItem, UnknownList
from app.store import lists as store
from app.web import list_contexts as c
from app.web.api_examples import ITEM_EDIT, ITEMS, LIST, LIST_EDIT
from app.web.identity import Entry
from app.web.list_items import drafts
from app.web.lists import change_item, load_list, number
from app.web.refusals import refused
from app.web.routes import json_of, state_of

router = APIRouter(tags=["lists"], responses=refused(BadRequest, UnknownList, TooLarge, BodyTooLong))


async def create(request: Request, body: c.ListBody, places: list[str] | None = None) -> str:
    """A new list with its items, or none at all; its name."""
    async with state_of(request).database.begin() as db:
        items = await drafts(db, body.items, places or ())
        about = body.model_dump(include={"title", "description", "tags", "author", "visibility"})
        name = await store.create(db, store.ListDraft(**about), items)
    request.state.audit = Entry("", urls.list_page(name))
    return name


@router.post("/api/lists", response_model=c.ListPage)
async def api_create(request: Request, body: Annotated[c.ListBody, Body(openapi_examples=LIST)]) -> Response:
    """Make a list; one that was exported as JSON is taken as it is."""
    return json_of(await load_list(request, await create(request, body), None))


@router.post("/api/lists/{name}/edit", response_model=c.ListPage)
async def api_edit(
    request: Request, name: str, body: Annotated[c.ListEdit, Body(openapi_examples=LIST_EDIT)]
) -> Response:
    """Change a list's title, description, tags or author; its address stays."""
    before, values = await load_list(request, name, None), body.model_dump(exclude_none=True)
    async with state_of(request).database.begin() as db:
        await store.edit(db, name, **values)
    try:
        return json_of(await load_list(request, name, None))
    except UnknownList:  # hidden from whoever changed it, too
        return json_of(before.model_copy(update=values))


@router.post("/api/lists/{name}/items", response_model=c.ListPage)
async def api_add(request: Request, name: str, body: Annotated[c.ItemsBody, Body(openapi_examples=ITEMS)]) -> Response:
    """Add items to the end of a list; those it has already stay as they are."""
    async with state_of(request).database.begin() as db:
        await store.add(db, name, await drafts(db, body.items))
    return json_of(await load_list(request, name, None))


@router.post(
    "/api/lists/{name}/items/{item}/edit", response_model=c.ListPage, responses=refused(UnknownList, UnknownItem)
)
async def api_edit_item(
    request: Request, name: str, item: str, body: Annotated[c.ItemEdit, Body(openapi_examples=ITEM_EDIT)]
) -> Response:
    """Change an item's comment or tags, or its place in the list."""
    await change_item(request, name, number(item), body)
    return json_of(await load_list(request, name, None))


@router.post(
    "/api/lists/{name}/items/{item}/remove", response_model=c.ListPage, responses=refused(UnknownList, UnknownItem)
)
async def api_remove_item(request: Request, name: str, item: str) -> Response:
    """Take an item out of a list."""
    async with state_of(request).database.begin() as db:
        await store.remove_item(db, name, number(item))
    return json_of(await load_list(request, name, None))


@router.post("/api/lists/{name}/delete", response_model=c.ListPage)
async def api_delete(request: Request, name: str) -> Response:
    """Remove a list for good, and show it a last time."""
    last = await load_list(request, name, None)
    async with state_of(request).database.begin() as db:
        await store.remove(db, name)
    return json_of(last)
