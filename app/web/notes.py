"""Notes on features: their history, the form that writes one, and the API."""

from typing import Annotated

from fastapi import APIRouter, Body, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from sqlalchemy.ext.asyncio import AsyncConnection

from app import urls
from app.errors import BadRequest, BodyTooLong, LatentOutOfRange, NoteChanged, UnknownSAE
from app.store import notes as store
from app.store import queries as q
from app.web import build
from app.web import list_contexts as c
from app.web.api_examples import NOTE
from app.web.contexts import Note
from app.web.forms import filled, form_fields
from app.web.refusals import refused
from app.web.rendering import render_page
from app.web.routes import html, json_of, state_of, whole

router = APIRouter(tags=["features"], responses=refused(BadRequest, UnknownSAE, LatentOutOfRange))


def note_of(record: store.NoteRecord) -> Note:
    return Note(
        id=record.id, text=record.text, author=record.author, visibility=record.visibility, made=record.made,
        sae=record.slug, revision=record.revision,
    )  # fmt: skip


async def find(db: AsyncConnection, slug: str, index: int) -> q.SAERecord:
    """
    Raises:
        UnknownSAE, LatentOutOfRange.
    """
    sae = await q.get_sae(db, slug)
    if not 0 <= index < sae.n_latents:
        raise build.out_of_range(sae, index)
    return sae


async def load_notes(request: Request, slug: str, index: int) -> c.NotesPage:
    async with state_of(request).database.connect() as db:
        sae = await find(db, slug, index)
        found = await store.history(db, sae, index)
    items = [note_of(one) for one in found]
    return c.NotesPage(sae=sae.slug, revision=sae.revision, address=sae.address, index=index, items=items)


async def write(request: Request, slug: str, index: int, form: c.NoteForm | c.NoteBody) -> None:
    async with state_of(request).database.begin() as db:
        sae = await find(db, slug, index)
        await store.write(db, sae, index, form.text, author=form.author, after=form.after, visibility=form.visibility)


@router.get("/saes/{slug}/features/{index}/notes.json", response_model=c.NotesPage)
async def notes_json(request: Request, slug: str, index: str) -> Response:
    """Every version of a feature's note, the newest first."""
    return json_of(await load_notes(request, slug, whole(index)))


@router.get("/saes/{slug}/features/{index}/notes", response_class=HTMLResponse, include_in_schema=False)
async def notes_page(request: Request, slug: str, index: str) -> Response:
    return html("notes.html", request, page=await load_notes(request, slug, whole(index)), error=None, text=None)


@router.post("/saes/{slug}/features/{index}/notes", response_class=HTMLResponse, include_in_schema=False)
async def post_note(request: Request, slug: str, index: str) -> Response:
    """Where another has written meanwhile, nothing is lost: the page shows both."""
    form = filled(c.NoteForm, await form_fields(request))
    try:
        await write(request, slug, whole(index), form)
    except NoteChanged as error:
        page = await load_notes(request, slug, whole(index))
        shown = render_page("notes.html", request=request, page=page, error=error.message, text=form.text)
        return HTMLResponse(shown, status_code=error.status)
    return RedirectResponse(urls.feature(slug, whole(index)) + "#notes", status_code=303)


@router.post(
    "/api/saes/{slug}/features/{index}/note", response_model=c.NotesPage, responses=refused(NoteChanged, BodyTooLong)
)
async def api_note(
    request: Request, slug: str, index: str, body: Annotated[c.NoteBody, Body(openapi_examples=NOTE)]
) -> Response:
    """Write a feature's note; earlier versions stay in its history."""
    await write(request, slug, whole(index), body)
    return json_of(await load_notes(request, slug, whole(index)))
