"""A feature's page and its twin."""

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, Response

from app import urls
from app.store import queries as q
from app.web import build
from app.web import contexts as c
from app.web.inspection import run_test
from app.web.routes import html, json_of, state_of, whole

router = APIRouter()


async def load_feature(request: Request, slug: str, index: int, text: str | None) -> c.FeaturePage:
    state = state_of(request)
    async with state.database.connect() as db:
        sae = await q.get_sae(db, slug)
        if not 0 <= index < sae.n_latents:
            raise build.out_of_range(sae, index)
        latent = await q.get_latent(db, sae.id, index)
        if latent is None:
            raise build.out_of_range(sae, index)
        examples = await q.get_examples(db, sae, index)
        neighbours = await q.get_summaries(db, sae.id, latent.neighbour_ids)
    page = build.feature_page(sae, latent, examples, neighbours, await state.vocabulary(sae))
    return page if text is None else page.model_copy(update={"test": await run_test(request, slug, index, text)})


@router.get("/saes/{slug}/features/{index}.json", response_model=c.FeaturePage)
async def feature_json(request: Request, slug: str, index: str, text: str | None = None) -> Response:
    """One feature with its examples; with ``text``, also its activations on that."""
    return json_of(await load_feature(request, slug, whole(index), text))


@router.get("/saes/{slug}/features/{index}", response_class=HTMLResponse, include_in_schema=False)
async def feature(request: Request, slug: str, index: str, text: str | None = None) -> Response:
    page = await load_feature(request, slug, whole(index), text)
    i = page.index
    return html(
        "feature.html", request, plots=True, page=page, groups=build.groups(page),
        previous=urls.feature(slug, i - 1) if i else None,
        next=urls.feature(slug, i + 1) if i + 1 < page.n_latents else None,
    )  # fmt: skip
