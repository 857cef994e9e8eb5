"""One stored context on a page of its own: the whole sequence around it and every value, to read or to link to."""

import re

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, Response
from pydantic import BaseModel

from app.errors import BadRequest, LatentOutOfRange, PageNotFound, UnknownSAE
from app.store import queries as q
from app.store import tables as t
from app.web import build
from app.web import contexts as c
from app.web.examples import Look, readings
from app.web.found import find_latent
from app.web.heat import SPECIAL
from app.web.refusals import refused
from app.web.routes import html, json_of, state_of, whole

router = APIRouter(tags=["features"], responses=refused(BadRequest, UnknownSAE, LatentOutOfRange, PageNotFound))
KINDS = {"top": t.TOP, "random": t.RANDOM, "near": t.NEAR, **{f"interval-{tenth}": tenth for tenth in range(10)}}


class ExamplePage(BaseModel):
    """/saes/{sae}/features/{i}/examples/{kind}/{rank} and its twin: one stored context and what stands around it."""

    sae: str
    revision: str
    address: str  # slug, or slug@revision on a pinned page: what stands for the SAE in URLs
    index: int
    label: str
    max: float
    min: float
    title: str
    example: c.Example
    before: str
    after: str


async def load_example(request: Request, slug: str, index: int, kind: str, rank: str) -> ExamplePage:
    state = state_of(request)
    sign, name = (-1, kind.removeprefix("negative-")) if kind.startswith("negative-") else (1, kind)
    async with state.database.connect() as db:
        sae, latent = await find_latent(request, db, slug, index)
        found = None
        if name in KINDS and re.fullmatch("[0-9]{1,4}", rank):
            found = await q.get_example(db, sae, index, sign, KINDS[name], int(rank))
    if found is None:
        raise PageNotFound(
            f"Feature {index} of {sae.slug} has no example {kind[:30]}/{rank[:10]}; its page lists those it has.",
            index=index,
        )
    record, token_ids = found
    vocabulary = await state.vocabulary(sae)
    example = build.example(record, vocabulary)
    end = record.start + len(record.token_ids)
    return ExamplePage(
        sae=sae.slug,
        revision=sae.revision,
        address=sae.address,
        index=index,
        label=latent.label,
        max=latent.maximum,
        min=latent.minimum,
        title=build.title(example.interval, sign),
        example=example,
        before="".join(vocabulary.pieces(token_ids[: record.start])),
        after="".join(vocabulary.pieces(token_ids[end:])),
    )


@router.get("/saes/{slug}/features/{index}/examples/{kind}/{rank}.json", response_model=ExamplePage)
async def example_json(request: Request, slug: str, index: str, kind: str, rank: str) -> Response:
    """One stored context: ``kind`` is ``top``, ``interval-0`` to ``interval-9``, ``near`` or ``random``, with
    ``negative-`` before it where a signed latent is negative."""
    return json_of(await load_example(request, slug, whole(index), kind, rank))


@router.get(
    "/saes/{slug}/features/{index}/examples/{kind}/{rank}", response_class=HTMLResponse, include_in_schema=False
)
async def example(request: Request, slug: str, index: str, kind: str, rank: str) -> Response:
    page = await load_example(request, slug, whole(index), kind, rank)
    begin = SPECIAL.match(page.before)
    before = page.before[begin.end() :] if begin else page.before
    text = before + "".join(page.example.tokens) + page.after
    if not page.before and (first := SPECIAL.match(text)):
        text = text[first.end() :]
    return html(
        "example.html", request, page=page, look=Look("full"), read=readings(page.example), text=text, before=before,
        begin=begin and begin[0],
    )  # fmt: skip
