"""A feature seen from elsewhere: hover cards, pictures for link previews, embeds and oEmbed."""

import asyncio
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse, Response

from app import urls
from app.errors import BadRequest, LatentOutOfRange, PageNotFound, UnknownSAE, UnsupportedFormat
from app.store import queries as q
from app.store.glimpses import get_company
from app.store.overviews import Overview
from app.web import build
from app.web.charts import activation_chart
from app.web.examples import Look
from app.web.features import load_feature
from app.web.found import find_latent
from app.web.freshness import unless_known
from app.web.picture import HEIGHT, WIDTH, feature_picture, sae_picture
from app.web.preview_contexts import FeatureCard, OEmbed, Panels
from app.web.refusals import refused
from app.web.rendering import render_page
from app.web.routes import html, json_of, state_of, whole
from app.web.sharing import EMBED_HEIGHT, EMBED_WIDTH, absolute, feature_of, frame

router = APIRouter(
    tags=["features"], responses=refused(BadRequest, UnknownSAE, LatentOutOfRange, PageNotFound, UnsupportedFormat)
)


async def load_card(request: Request, slug: str, index: int) -> FeatureCard:
    state = state_of(request)
    async with state.database.connect() as db:
        sae, latent = await find_latent(request, db, slug, index)
        strongest = (await get_company(db, sae, [index]))[index].strongest
    vocabulary = await state.vocabulary(sae)
    return FeatureCard(
        sae=sae.slug,
        revision=sae.revision,
        address=sae.address,
        index=index,
        label=latent.label,
        label_source=latent.label_source,
        label_score=latent.label_score,
        density=latent.density,
        max=latent.maximum,
        min=latent.minimum,
        promoted=[vocabulary.text(i) for i in latent.promoted_ids[:5]],
        example=None if strongest is None else build.glimpse(strongest, latent, vocabulary),
        url=urls.feature(sae.address, index),
    )


@router.get("/saes/{slug}/features/{index}/card.json", response_model=FeatureCard)
async def card_json(request: Request, slug: str, index: str) -> Response:
    """A feature in a few lines: label, density, maximum, the middle of its strongest context."""
    return json_of(await load_card(request, slug, whole(index)))


@router.get("/saes/{slug}/features/{index}/card", response_class=HTMLResponse, include_in_schema=False)
async def card(request: Request, slug: str, index: str) -> Response:
    return HTMLResponse(render_page("card.html", card=await load_card(request, slug, whole(index))))


@router.get("/saes/{slug}/features/{index}/og.png", include_in_schema=False)
async def picture(request: Request, slug: str, index: str) -> Response:
    shown = await load_card(request, slug, whole(index))
    return Response(await asyncio.to_thread(feature_picture, shown), media_type="image/png")


@router.get("/saes/{slug}/og.png", include_in_schema=False)
async def picture_of_sae(request: Request, slug: str) -> Response:
    async with state_of(request).database.connect() as db:
        sae = await q.get_sae(db, slug)
    unless_known(request, sae)
    return Response(await asyncio.to_thread(sae_picture, build.sae_page(sae, Overview([], []))), media_type="image/png")


@router.get("/saes/{slug}/features/{index}/embed", response_class=HTMLResponse, include_in_schema=False)
async def embed(
    request: Request, slug: str, index: str, stats: bool = True,
    examples: Annotated[int, Query(ge=0, le=50)] = 3, histogram: bool = True, logits: bool = False,
    tokens: bool = False, neighbours: bool = False, coactive: bool = False,
    theme: Literal["system", "light", "dark"] = "system",
) -> Response:  # fmt: skip
    request.state.embedded = True
    page = await load_feature(request, slug, whole(index), None)
    panels = Panels(
        stats=stats, examples=examples, histogram=histogram, logits=logits, tokens=tokens, neighbours=neighbours,
        coactive=coactive, theme=theme,
    )  # fmt: skip
    strongest = [e for e in page.examples if e.interval == "top"][:examples]
    chart = activation_chart(page.histogram, page.max, page.min, set())
    return html("embed.html", request, page=page, panels=panels, strongest=strongest, chart=chart, look=Look())


@router.get("/oembed", response_model=OEmbed)
async def oembed(
    request: Request, url: str, kind: Annotated[str, Query(alias="format")] = "json",
    maxwidth: Annotated[int | None, Query(ge=1)] = None, maxheight: Annotated[int | None, Query(ge=1)] = None,
) -> Response:  # fmt: skip
    """How to embed the feature page at ``url`` (https://oembed.com), in JSON alone."""
    if kind != "json":
        raise UnsupportedFormat(f"oEmbed is answered as json here, not as {kind[:20]!r}.", format=kind[:20])
    slug, index = feature_of(request, url)
    shown = await load_card(request, slug, index)
    width, height = min(EMBED_WIDTH, maxwidth or EMBED_WIDTH), min(EMBED_HEIGHT, maxheight or EMBED_HEIGHT)
    title = f"{shown.label} · feature {shown.index} of {shown.sae}"
    return json_of(
        OEmbed(
            title=title,
            provider_url=absolute(request, urls.home()),
            html=frame(absolute(request, urls.embed(shown.address, index)), title, width, height),
            width=width,
            height=height,
            thumbnail_url=absolute(request, urls.og_image(shown.address, index)),
            thumbnail_width=WIDTH,
            thumbnail_height=HEIGHT,
        )
    )
