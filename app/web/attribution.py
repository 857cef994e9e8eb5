"""Which latents a prediction hangs on."""

from typing import Annotated

from fastapi import APIRouter, Body, Query, Request
from fastapi.responses import HTMLResponse, Response

from app import urls
from app.errors import BadRequest
from app.live.jobs import AttributeAnswer, Attributed, AttributeJob
from app.store import queries as q
from app.web import intervene_contexts as c
from app.web.api_examples import ATTRIBUTE
from app.web.inspect_build import on_attention
from app.web.inspection import check_unicode, chosen
from app.web.intervention import first_of
from app.web.refusals import ATTRIBUTING, refused
from app.web.routes import html, json_of, state_of

router = APIRouter(tags=["live"], responses=refused(*ATTRIBUTING))


async def run_attribute(request: Request, saes: list[q.SAERecord], body: c.AttributeBody) -> c.AttributeResult:
    for given in (body.text, body.token, body.against):
        if isinstance(given, str):
            check_unicode(given)

    job = AttributeJob(body.text, body.chat, body.position, body.token, body.against, body.kind, body.top)
    found = await first_of(request, saes, job, _cost)
    vocabulary = await state_of(request).vocabulary(saes[0])
    async with state_of(request).database.connect() as db:
        rows = await q.get_summaries_of(db, [(saes[x.sae].id, x.latent) for x in found.top])
    return c.AttributeResult(
        tokens=found.tokens,
        position=found.position,
        token=vocabulary.text(found.token),
        token_id=found.token,
        against=None if found.against is None else vocabulary.text(found.against),
        against_id=found.against,
        kind=body.kind,
        metric=found.metric,
        latents=[_attributed(x, saes[x.sae], rows) for x in found.top],
        saes=[
            c.AttributedSAE(
                sae=sae.address, latents=one.latents, error=one.error, bias=one.bias,
                exact_latents=one.exact_latents, exact_all=one.exact_all,
            )
            for sae, one in zip(saes, found.saes, strict=True)
        ],
    )  # fmt: skip


def _cost(done: AttributeAnswer) -> int:
    """The text is read once forward, once back, and once more for every latent ablated by itself."""
    return len(done.tokens) * (2 + len(done.top))


def _attributed(
    x: Attributed, sae: q.SAERecord, rows: dict[tuple[int, int], q.LatentSummary]
) -> c.AttributedLatent:  # fmt: skip
    return c.AttributedLatent(
        sae=sae.address, index=x.latent, label=rows[sae.id, x.latent].label, url=urls.feature(sae.address, x.latent),
        act_grad=x.act_grad, exact=x.exact, direct=x.direct, places=x.places, attention=on_attention(sae.reads),
    )  # fmt: skip


@router.post("/api/attribute", response_model=c.AttributeResult)
async def api_attribute(
    request: Request, body: Annotated[c.AttributeBody, Body(openapi_examples=ATTRIBUTE)]
) -> Response:
    """Which latents a prediction hangs on: activation x gradient of all, exact ablation of the foremost."""
    names = [body.sae] if isinstance(body.sae, str) else body.sae or []
    async with state_of(request).database.connect() as db:
        saes = await chosen(db, names, await q.list_saes(db))
    if not saes:
        raise BadRequest("There is no SAE here to attribute to; harvest one first.")
    return json_of(await run_attribute(request, saes, body))


async def load_attribute(request: Request, query: c.AttributeQuery) -> c.AttributePage:
    async with state_of(request).database.connect() as db:
        saes = await chosen(db, query.sae, await q.list_saes(db))
    shown = None
    if query.text is not None and saes:
        body = c.AttributeBody(
            text=query.text, chat=query.chat, position=query.position, token=query.token, against=query.against,
            kind=query.kind,
        )  # fmt: skip
        shown = await run_attribute(request, saes, body)
    return c.AttributePage(query=query, chosen=[sae.address for sae in saes], result=shown)


@router.get("/attribute.json", response_model=c.AttributePage)
async def attribute_json(request: Request, query: Annotated[c.AttributeQuery, Query()]) -> Response:
    """Which latents made the subject say this."""
    return json_of(await load_attribute(request, query))


@router.get("/attribute", response_class=HTMLResponse, include_in_schema=False)
async def attribute_page(request: Request, query: Annotated[c.AttributeQuery, Query()]) -> Response:
    return html("attribute.html", request, page=await load_attribute(request, query))
