"""Two prompts side by side, and the texts of two sides: pages, twins and endpoints."""

import re
from typing import Annotated, Any

from fastapi import APIRouter, Body, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from app import urls
from app.errors import BadRequest, EmptyText, UnknownInspection
from app.store import queries as q
from app.web import build
from app.web import differences_contexts as c
from app.web.api_examples import COMPARE, CONTRAST
from app.web.differences_build import contrasted, two_prompts
from app.web.forms import filled, form_fields
from app.web.inspection import LONGEST_URL, fragment, tidy, unpinned
from app.web.refusals import READING, refused
from app.web.rendering import render_block
from app.web.routes import html, json_of, state_of
from app.web.together import Together, Wanted, keep_all, kept_records, read_together

router = APIRouter(tags=["live"], responses=refused(*READING, UnknownInspection))
TwoAsked = Annotated[c.TwoPromptsQuery, Query()]
ContrastAsked = Annotated[c.ContrastQuery, Query()]
SIDES = "The first text", "The second text"


def _two(query: c.TwoPromptsQuery | c.TwoPromptsBody) -> list[Wanted] | None:
    """Both texts; None where one is missing."""
    pairs = (query.text, query.run), (query.other, query.other_run)
    if any(text is None and run is None for text, run in pairs):
        return None
    return [Wanted(name, text, run if text is None else None) for name, (text, run) in zip(SIDES, pairs, strict=True)]


def _names(asked: str | list[str] | None) -> list[str]:
    return [asked] if isinstance(asked, str) else asked or []


async def load_two(request: Request, query: c.TwoPromptsQuery) -> c.TwoPromptsPage:
    state = state_of(request)
    wanted = _two(query)
    if wanted is None:
        records = await kept_records(request, [run for run in (query.run, query.other_run) if run])
        async with state.database.connect() as db:
            known = await q.list_saes(db)
        texts = query.text or "", query.other or ""
        runs = query.run, query.other_run
        first, second = (text or (records[run].text if run else "") for text, run in zip(texts, runs, strict=True))
        named = [f"{s}@{r}" for record in records.values() for s, r in zip(record.slugs, record.revisions, strict=True)]
        chosen = query.sae or named or [sae.slug for sae in known[:1]]
        return _two_page(request, query, [build.card(s) for s in known], chosen, (first, second), None)
    found = await read_together(request, wanted, query.sae, chat=query.chat)
    async with state.database.connect() as db:
        shown = await two_prompts(state, db, found, query)
    texts = found.sources[0].text, found.sources[1].text
    return _two_page(
        request, query, [build.card(s) for s in found.known], [s.address for s in found.saes], texts, shown
    )


def _two_page(
    request: Request, query: c.TwoPromptsQuery, saes: list[Any], chosen: list[str], texts: tuple[str, str],
    result: c.TwoPromptsResult | None,
) -> c.TwoPromptsPage:  # fmt: skip
    settings = state_of(request).settings
    return c.TwoPromptsPage(
        saes=saes, chosen=chosen, query=query, texts=texts, limit_tokens=settings.max_prompt_tokens - 1,
        limit_characters=settings.max_prompt_chars, result=result,
    )  # fmt: skip


@router.get("/inspect/compare.json", response_model=c.TwoPromptsPage)
async def two_json(request: Request, query: TwoAsked) -> Response:
    """Two prompts side by side: their tokens lined up, and the features that fire on one and not on the other."""
    return json_of(await load_two(request, query))


@router.get("/inspect/compare", response_class=HTMLResponse, include_in_schema=False)
async def two_page(request: Request, query: TwoAsked) -> Response:
    if unpinned(request, query) and not fragment(request):
        return RedirectResponse(urls.compare_prompts(**tidy(query)), status_code=303)
    page = await load_two(request, query)
    if fragment(request):
        block = render_block("two_prompts.html", "two_result", page=page, request=request)
        return HTMLResponse(block, headers={"hx-push-url": urls.compare_prompts(**tidy(query))})
    return html("two_prompts.html", request, page=page)


@router.post("/inspect/compare", include_in_schema=False)
@router.post("/inspect/compare/keep", include_in_schema=False)
async def post_two(request: Request) -> Response:
    """The form: short texts go to an address that holds them, long ones, or those to be kept, to that of kept runs."""
    query = filled(c.TwoPromptsQuery, await form_fields(request))
    if query.text is None or query.other is None:
        raise EmptyText(f"There is no {'first' if query.text is None else 'second'} text; paste at least one word.")
    records = await kept_records(request, [run for run in (query.run, query.other_run) if run])
    # A text that came from a run, and was not changed, is that run, unless another SAE is asked for.
    for text, run in (("text", "run"), ("other", "other_run")):
        record = records.get(getattr(query, run) or "")
        addresses = set() if record is None else set(map("@".join, zip(record.slugs, record.revisions, strict=True)))
        same = record is not None and addresses.issuperset(query.sae) and record.chat == query.chat
        same = same and record is not None and _lines(record.text) == _lines(getattr(query, text))
        setattr(query, text if same else run, None)
    url = urls.compare_prompts(**tidy(query))
    wanted = _two(query)
    if wanted is not None and (request.url.path == urls.keep_compared() or len(url) > LONGEST_URL):
        found = await read_together(request, wanted, query.sae, chat=query.chat)
        query = await _kept_two(request, query, found)
    return RedirectResponse(urls.compare_prompts(**tidy(query)), status_code=303)


async def _kept_two(request: Request, query: c.TwoPromptsQuery, found: Together) -> c.TwoPromptsQuery:
    run, other = await keep_all(request, found)
    pins = [_pinned(found, pin) for pin in query.pin]
    saes = [f"{s.slug}@{s.revision}" for s in found.saes] if query.sae else []
    kept = {"run": run, "other_run": other, "text": None, "other": None, "chat": False, "pin": pins, "sae": saes}
    return query.model_copy(update=kept)


def _pinned(found: Together, pin: str) -> str:
    """The pin as kept runs name it, which hold on to revisions."""
    name, _, number = pin.rpartition("/")
    for sae in found.saes:
        if name in ("", sae.slug):
            return f"{sae.slug}@{sae.revision}/{number}"
    return pin


def _lines(text: str) -> list[str]:
    """A text's lines, whichever way they end: browsers post line breaks as CR LF."""
    return re.split(r"\r\n|\r|\n", text)


async def _one_sae(request: Request, names: list[str], runs: list[str | None]) -> None:
    if not names and not any(runs):
        async with state_of(request).database.connect() as db:
            if len(await q.list_saes(db)) != 1:
                raise BadRequest("Say which SAE with 'sae'; there is not exactly one here.")


@router.post("/api/inspect/compare", response_model=c.TwoPromptsResult)
async def api_two(request: Request, body: Annotated[c.TwoPromptsBody, Body(openapi_examples=COMPARE)]) -> Response:
    """Read two prompts with one or more SAEs: what fires on one and not on the other, and what changes most."""
    wanted = _two(body)
    if wanted is None:
        raise BadRequest("Give both texts: 'text' or 'run', and 'other' or 'other_run'.")
    await _one_sae(request, _names(body.sae), [body.run, body.other_run])
    found = await read_together(request, wanted, _names(body.sae), chat=body.chat)
    state = state_of(request)
    async with state.database.connect() as db:
        return json_of(await two_prompts(state, db, found, body))


def _sides(here: list[str], there: list[str], query: c.ContrastQuery | c.ContrastBody) -> tuple[list[Wanted], int]:
    """Every text, and how many are of the first side.

    Raises:
        EmptyText, BadRequest: there is none on the first side, or too many.
    """
    sides = []
    for side, texts, runs in (("first", here, query.here_run), ("second", there, query.there_run)):
        if len(texts) + len(runs) > c.MOST_TEXTS:
            raise BadRequest(f"The {side} side has {len(texts) + len(runs)} texts; the limit is {c.MOST_TEXTS}.")
        wanted = [Wanted("", text) for text in texts] + [Wanted("", None, run) for run in runs]
        sides.append([w._replace(name=f"Text {n} of the {side} side") for n, w in enumerate(wanted, 1)])
    if not sides[0]:
        raise EmptyText("The first side has no text; give at least one, one a line.")
    return [*sides[0], *sides[1]], len(sides[0])


def _texts(values: list[str]) -> list[str]:
    return [line.strip() for value in values for line in _lines(value) if line.strip()]


async def load_contrast(request: Request, query: c.ContrastQuery) -> c.ContrastPage:
    state = state_of(request)
    here, there = _texts(query.here), _texts(query.there)
    shown = None
    if here or there or query.here_run or query.there_run:
        wanted, n_here = _sides(here, there, query)
        found = await read_together(request, wanted, query.sae, chat=query.chat)
        known, chosen = found.known, [sae.address for sae in found.saes]
        async with state.database.connect() as db:
            shown = await contrasted(state, db, found, n_here, query)
        here, there = ([one.text for one in side] for side in (shown.here, shown.there))
    else:
        async with state.database.connect() as db:
            known = await q.list_saes(db)
        chosen = query.sae or [sae.slug for sae in known[:1]]
    return c.ContrastPage(
        saes=[build.card(s) for s in known], chosen=chosen, query=query, here="\n".join(here), there="\n".join(there),
        limit_tokens=state.settings.max_prompt_tokens - 1, limit_texts=c.MOST_TEXTS, result=shown,
    )  # fmt: skip


@router.get("/inspect/contrast.json", response_model=c.ContrastPage)
async def contrast_json(request: Request, query: ContrastAsked) -> Response:
    """Features that fire on the texts of one side and on none of the other."""
    return json_of(await load_contrast(request, query))


@router.get("/inspect/contrast", response_class=HTMLResponse, include_in_schema=False)
async def contrast_page(request: Request, query: ContrastAsked) -> Response:
    return html("contrast.html", request, page=await load_contrast(request, query))


@router.post("/inspect/contrast", include_in_schema=False)
async def post_contrast(request: Request) -> Response:
    """The form: short texts go to an address that holds them, long ones to that of kept runs."""
    query = filled(c.ContrastQuery, await form_fields(request))
    query.here, query.there = (
        ["\n".join(texts)] if (texts := _texts(side)) else [] for side in (query.here, query.there)
    )
    url = urls.contrast(**tidy(query))
    if len(url) > LONGEST_URL:
        wanted, n_here = _sides(_texts(query.here), _texts(query.there), query)
        names = await keep_all(request, await read_together(request, wanted, query.sae, chat=query.chat))
        kept = {"here": [], "there": [], "here_run": names[:n_here], "there_run": names[n_here:], "chat": False}
        url = urls.contrast(**tidy(query.model_copy(update=kept | {"sae": []})))
    return RedirectResponse(url, status_code=303)


@router.post("/api/inspect/contrast", response_model=c.ContrastResult)
async def api_contrast(request: Request, body: Annotated[c.ContrastBody, Body(openapi_examples=CONTRAST)]) -> Response:
    """Search by contrast: features that fire on every text (or any) of one side and on none of the other."""
    wanted, n_here = _sides(body.here, body.there, body)
    await _one_sae(request, _names(body.sae), [*body.here_run, *body.there_run])
    found = await read_together(request, wanted, _names(body.sae), chat=body.chat)
    state = state_of(request)
    async with state.database.connect() as db:
        return json_of(await contrasted(state, db, found, n_here, body))
