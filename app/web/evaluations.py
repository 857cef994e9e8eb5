"""An SAE's evaluations, with how each number is computed."""

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, Response

from app.errors import BadRequest, UnknownSAE
from app.store import queries as q
from app.store.evaluations import list_evaluations
from app.web import evaluation_build
from app.web import evaluation_contexts as c
from app.web.freshness import unless_known
from app.web.refusals import refused
from app.web.routes import html, json_of, state_of

router = APIRouter(tags=["features"], responses=refused(UnknownSAE, BadRequest))


async def load_evaluations(request: Request, slug: str) -> c.EvaluationsPage:
    async with state_of(request).database.connect() as db:
        sae = await q.get_sae(db, slug)
        unless_known(request, sae)
        return evaluation_build.page(sae, await list_evaluations(db, sae))


@router.get("/saes/{slug}/evaluations.json", response_model=c.EvaluationsPage)
async def evaluations_json(request: Request, slug: str) -> Response:
    """What was measured of an SAE, and what was imported: values, charts and where they come from."""
    return json_of(await load_evaluations(request, slug))


@router.get("/saes/{slug}/evaluations", response_class=HTMLResponse, include_in_schema=False)
async def evaluations_page(request: Request, slug: str) -> Response:
    page = await load_evaluations(request, slug)
    return html("evaluations.html", request, page=page)
