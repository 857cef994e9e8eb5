"""The pages of explanations: what a score was made on."""

import re

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, Response

from app.errors import LatentOutOfRange, PageNotFound, UnknownSAE
from app.store import explanations as x
from app.web.explain_build import KIND_NAMES, score_page
from app.web.explain_contexts import ScorePage
from app.web.found import find_latent
from app.web.refusals import refused
from app.web.routes import html, json_of, state_of, whole

router = APIRouter(tags=["explanations"], responses=refused(UnknownSAE, LatentOutOfRange, PageNotFound))


async def load_score(request: Request, slug: str, index: int, score: str) -> ScorePage:
    state = state_of(request)
    async with state.reads.connect() as db:
        sae, latent = await find_latent(request, db, slug, index)
        record = await x.get_score(db, sae.id, index, int(score)) if re.fullmatch("[0-9]{1,18}", score) else None
        if record is None:
            raise PageNotFound(
                f"Feature {index} of {sae.slug} has no score {score[:20]} with examples; its page lists those it has.",
                index=index,
            )
        windows = await x.get_windows(db, sae, record)
    return score_page(sae, latent, record, windows, await state.vocabulary(sae))


@router.get("/saes/{slug}/features/{index}/scores/{score}.json", response_model=ScorePage)
async def score_json(request: Request, slug: str, index: str, score: str) -> Response:
    """A score's examples: what the explanation said of each, and what was so."""
    return json_of(await load_score(request, slug, whole(index), score))


@router.get("/saes/{slug}/features/{index}/scores/{score}", response_class=HTMLResponse, include_in_schema=False)
async def score_html(request: Request, slug: str, index: str, score: str) -> Response:
    page = await load_score(request, slug, whole(index), score)
    return html("score.html", request, page=page, kinds=KIND_NAMES)
