"""Search over every SAE's features: by meaning, tokens, a text, examples and direction."""

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from app import errors as e
from app import urls
from app.store import queries as q
from app.store.embeddings import Standing, standing
from app.web import search_form as form
from app.web.build import layer_of
from app.web.forms import filled, form_fields
from app.web.inspection import LONGEST_URL, fragment
from app.web.limits import client_of
from app.web.refusals import READING, refused
from app.web.rendering import render_block
from app.web.routes import html, json_of, state_of
from app.web.search_contexts import SearchPage, SearchQuery, SearchResult
from app.web.search_meaning import find_meaning
from app.web.search_modes import Scope, find_direction, find_phrase, find_text, find_tokens

router = APIRouter(tags=["features"], responses=refused(*READING, e.DecoderUnavailable, e.EngineUnavailable))
Asked = Annotated[SearchQuery, Query()]


async def _fill(scope: Scope, page: SearchPage) -> None:
    """Put the results into the page; where what is asked does not fit, it says so in their place."""
    if not scope.query.q.strip():
        return
    try:
        page.result = await _found(scope)
    except e.SaescopeError as error:
        if error.status >= 500:
            raise
        page.error, page.status = error.message, error.status


async def _scope(request: Request, query: SearchQuery) -> tuple[Scope, SearchPage]:
    async with state_of(request).database.connect() as db:
        known = await q.list_saes(db)
        chosen = known
        if query.sae:
            chosen = [sae for sae in known if query.sae in (sae.slug, f"{sae.slug}@{sae.revision}")]
            chosen = chosen or [await q.get_sae(db, query.sae)]
        told: dict[int, Standing] = await standing(db, [sae.id for sae in chosen])
    layers = {layer for sae in known for read in sae.reads if (layer := layer_of(read)) is not None}
    saes = form.of_layer(chosen, query.layer)
    listed = [sae.slug for sae in known]
    page = SearchPage(
        query=query,
        saes=listed if not query.sae or query.sae in listed else [query.sae, *listed],
        layers=sorted(layers),
        methods=sorted({method for one in told.values() for method in one.methods}),
        signed=any(sae.signed for sae in chosen),
        jumps=form.jumps(query.q, saes) if query.mode == "meaning" else [],
        result=None,
    )
    return Scope(request, query, saes, known, told), page


async def _found(scope: Scope) -> SearchResult:
    """
    Raises:
        BadRequest: it does not fit. And as the engine refuses texts.
    """
    if not scope.saes:
        return SearchResult(found=0, more=False, notes=["No SAE here is of that kind."], items=[], next=None)
    with state_of(scope.request).searches.request(client_of(scope.request)):
        return await _by_mode(scope)


async def _by_mode(scope: Scope) -> SearchResult:
    match scope.query.mode:
        case "meaning":
            return await find_meaning(scope)
        case "tokens":
            return await find_tokens(scope)
        case "text":
            return await find_text(scope)
        case "examples":
            return await find_phrase(scope)
        case "vector":
            return await find_direction(scope)


def _shown(request: Request, page: SearchPage) -> Response:
    url = urls.search(**form.given(page.query))
    if fragment(request):
        block = render_block("search.html", "search_results", page=page, request=request)
        push = {"hx-push-url": url} if len(url) <= LONGEST_URL else {}
        return HTMLResponse(block, status_code=page.status, headers=push)
    answer = html("search.html", request, page=page)
    answer.status_code = page.status
    return answer


@router.get("/search.json", response_model=SearchPage)
async def search_json(request: Request, query: Asked) -> Response:
    """Features found by meaning, tokens, a text, examples or direction, and why each was."""
    scope, page = await _scope(request, query)
    if query.q.strip():
        page.result = await _found(scope)
    return json_of(page)


@router.get("/search", response_class=HTMLResponse, include_in_schema=False)
async def search(request: Request, query: Asked) -> Response:
    if not fragment(request) and any(not value for _, value in request.query_params.multi_items()):
        return RedirectResponse(urls.search(**form.given(query)), status_code=303)
    scope, page = await _scope(request, query)
    if len(page.jumps) == 1 and not fragment(request):
        return RedirectResponse(page.jumps[0].url, status_code=303)
    await _fill(scope, page)
    return _shown(request, page)


@router.post("/search", include_in_schema=False)
async def post_search(request: Request) -> Response:
    """The form of what may be long: a short one goes to its address, a long one is answered as it is."""
    query = filled(SearchQuery, await form_fields(request))
    url = urls.search(**form.given(query))
    if len(url) <= LONGEST_URL:
        return RedirectResponse(url, status_code=303)
    scope, page = await _scope(request, query)
    await _fill(scope, page)
    return _shown(request, page)
