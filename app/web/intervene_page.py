"""The intervene page, its form, and its twin."""

from collections.abc import AsyncGenerator
from typing import Annotated, Any, Literal, get_args

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from pydantic import ValidationError

from app import urls
from app.errors import BadRequest, SaescopeError
from app.live.edit import Kind
from app.store import inspections
from app.store import queries as q
from app.web import intervene_contexts as c
from app.web.forms import filled, form_fields
from app.web.inspection import LONGEST_URL, keep, tidy
from app.web.intervention import check_new, prepared, run_effect, run_generate
from app.web.presets import preset
from app.web.refusals import EDITING, refused
from app.web.rendering import render_block, render_parts
from app.web.routes import json_of, state_of
from app.web.streamed import Streamed

router = APIRouter(tags=["live"], responses=refused(*EDITING))


def _positions(text: str) -> Literal["all", "generated"] | list[int]:
    """
    Raises:
        BadRequest: neither a word that is known nor places.
    """
    match text.strip():
        case "" | "all":
            return "all"
        case "generated":
            return "generated"
    places = text.replace(",", " ").split()
    if not all(place.isascii() and place.isdigit() and len(place) <= 9 for place in places):
        raise BadRequest(f"{text[:40]!r} is no place; write all, generated, or places such as 3 5.", where=text[:40])
    return [int(place) for place in places]


def edits_of(query: c.InterveneQuery) -> list[c.EditBody]:
    """
    Raises:
        BadRequest: a kind, a strength or a place that is none.
    """

    def given(values: list[str], number: int, otherwise: str) -> str:
        return values[number] if number < len(values) and values[number] else otherwise

    out = []
    for number, feature in enumerate(query.feature):
        if not feature.strip():
            continue
        kind, strength = given(query.kind, number, "add"), given(query.strength, number, "1")
        positions = _positions(given(query.where, number, "all"))
        if kind not in get_args(Kind):
            raise BadRequest(
                f"{kind[:30]!r} is no kind of edit; it is one of {', '.join(get_args(Kind))}.", kind=kind[:30]
            )
        try:
            out.append(c.EditBody(feature=feature, kind=kind, strength=float(strength), positions=positions))
        except (ValueError, ValidationError):
            raise BadRequest(
                f"The strength {strength[:30]!r} is no number from -1,000 to 1,000.", strength=strength[:30]
            ) from None
    return out


async def load_intervene(request: Request, query: c.InterveneQuery, *, go_on: bool = True) -> c.IntervenePage:
    """``go_on``: with the texts that are made, which take longest."""
    check_new(request, query.max_new)
    bodies = edits_of(query)
    async with state_of(request).database.connect() as db:
        known = await q.list_saes(db)
        record = await inspections.get(db, query.run) if query.run and query.text is None else None
    text, chat = (query.text, query.chat) if record is None else (record.text, record.chat)
    given = await prepared(request, bodies) if bodies else None
    page = c.IntervenePage(
        query=query, text=text or "", chat=chat, edits=given.named if given else [], saes=[sae.slug for sae in known],
        generated=None, effect=None,
    )  # fmt: skip
    if text is not None and given is not None:
        page.effect = await run_effect(request, c.EffectBody(text=text, chat=chat), given)
        page.generated = await goes_on(request, query, page) if go_on else None
    return page


async def goes_on(request: Request, query: c.InterveneQuery, page: c.IntervenePage) -> c.GenerateResult:
    """The texts that a page's address asks for."""
    bodies = edits_of(query)
    asked = c.GenerateBody(
        text=page.text, chat=page.chat, edits=bodies, max_new=query.max_new, temperature=query.temperature,
        top_p=query.top_p, seed=query.seed,
    )  # fmt: skip
    return await run_generate(request, asked, await prepared(request, bodies))


@router.get("/intervene.json", response_model=c.IntervenePage)
async def intervene_json(request: Request, query: Annotated[c.InterveneQuery, Query()]) -> Response:
    """A text with some latents edited: how it goes on, and what changes in the subject's predictions."""
    return json_of(await load_intervene(request, query))


@router.get("/intervene", response_class=HTMLResponse, include_in_schema=False)
async def intervene(request: Request, query: Annotated[c.InterveneQuery, Query()]) -> Response:
    """The page, at once; the texts follow in the same answer when they are made, which may take seconds."""
    page = await load_intervene(request, query, go_on=False)
    later: dict[str, Any] = {"awaited": page.effect is not None, "refusal": None}
    parts = render_parts("intervene.html", request=request, page=page, kinds=get_args(Kind), later=later)

    async def sent() -> AsyncGenerator[str, None]:
        yield next(parts)
        if later["awaited"]:
            try:
                page.generated = await goes_on(request, query, page)
            except SaescopeError as error:
                later["refusal"] = str(error)
            yield next(parts)

    return Streamed(sent(), media_type="text/html")


@router.get("/intervene/effect", response_class=HTMLResponse, include_in_schema=False)
async def intervene_effect(request: Request, query: Annotated[c.InterveneQuery, Query()]) -> Response:
    """What follows a stream: the edits' effect on the text itself."""
    page = await load_intervene(request, query, go_on=False)
    return HTMLResponse(render_block("intervene.html", "effect", page=page, request=request))


@router.post("/intervene", include_in_schema=False)
async def post_intervene(request: Request) -> Response:
    """The form: to the address that holds all of it, a long text as a run that is kept. A preset's button, which says
    its row, fills that row first."""
    fields = await form_fields(request, empty=True)
    _fill(fields)
    query = filled(c.InterveneQuery, fields)
    named = [number for number, feature in enumerate(query.feature) if feature.strip()]
    rows = {name: getattr(query, name) for name in ("feature", "kind", "strength", "where")}
    shown = {name: [values[n] if n < len(values) else "" for n in named] for name, values in rows.items()}
    query = query.model_copy(update={**shown, "text": query.text or None, "run": None})
    url = urls.intervene(**tidy(query))
    if len(url) > LONGEST_URL and query.text is not None:
        run = await _kept_text(request, query, (fields.get("run") or [""])[-1])
        url = urls.intervene(**tidy(query.model_copy(update={"text": None, "chat": False, "run": run})))
    return RedirectResponse(url, status_code=303)


def _fill(fields: dict[str, list[str]]) -> None:
    row, _, name = fields.pop("preset", [""])[-1].partition(":")
    one = preset(name)
    if one is None or not row.isascii() or not row.isdigit() or len(row) > 3:
        return
    for field, value in (("kind", one.kind), ("strength", one.strength)):
        if int(row) < len(fields.get(field, [])):
            fields[field][int(row)] = value


async def _kept_text(request: Request, query: c.InterveneQuery, before: str) -> str:
    """The run that holds the text: the one it came from, if it has not changed, else a new one."""
    text = query.text or ""
    if before:
        async with state_of(request).database.connect() as db:
            record = await inspections.get(db, before)
        if record.chat == query.chat and record.text.splitlines() == text.splitlines():
            return before
    saes = (await prepared(request, edits_of(query))).saes
    return (await keep(request, saes, text, chat=query.chat, predict=False))[0]
