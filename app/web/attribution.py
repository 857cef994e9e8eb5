"""Which latents a prediction hangs on."""

from typing import Annotated, Any

from fastapi import APIRouter, Body, Query, Request
from fastapi.responses import HTMLResponse, Response

from app import urls
from app.errors import BadRequest
from app.live.attribute import Attribution, attribute
from app.live.forward import Probe
from app.live.generate import likeliest
from app.live.metric import Metric
from app.store import queries as q
from app.subject.load import Subject
from app.web import intervene_contexts as c
from app.web.api_examples import ATTRIBUTE
from app.web.inspect_build import on_attention
from app.web.inspection import check_unicode, chosen
from app.web.intervention import ids_of, run_in_engine
from app.web.refusals import ATTRIBUTING, refused
from app.web.routes import html, json_of, state_of

router = APIRouter(tags=["live"], responses=refused(*ATTRIBUTING))


async def run_attribute(request: Request, saes: list[q.SAERecord], body: c.AttributeBody) -> c.AttributeResult:
    for given in (body.text, body.token, body.against):
        if isinstance(given, str):
            check_unicode(given)

    def work(subject: Subject, probes: list[Probe]) -> tuple[list[str], Metric, Attribution]:
        ids = ids_of(request, subject, body.text, chat=body.chat)
        position = len(ids) - 1 if body.position is None else body.position
        if position >= len(ids):
            raise BadRequest(f"The text has no token {position}; its tokens are 0 to {len(ids) - 1}.", token=position)
        token = body.token
        if token is None:
            token = likeliest(subject.model, ids[: position + 1])
        metric = Metric(
            position, _token(subject, token), None if body.against is None else _token(subject, body.against), body.kind
        )
        found = attribute(
            subject.model, [probe.sae for probe in probes], ids, metric, special_ids=subject.special_ids, top=body.top
        )
        return subject.vocabulary.pieces(ids), metric, found

    pieces, metric, found = await run_in_engine(request, saes, work, _cost)
    vocabulary = await state_of(request).vocabulary(saes[0])
    async with state_of(request).database.connect() as db:
        rows = await q.get_summaries_of(db, [(saes[x.sae].id, x.latent) for x in found.top])
    return c.AttributeResult(
        tokens=pieces,
        position=metric.position,
        token=vocabulary.text(metric.token),
        token_id=metric.token,
        against=None if metric.against is None else vocabulary.text(metric.against),
        against_id=metric.against,
        kind=metric.kind,
        metric=found.metric,
        latents=[_attributed(x, found, saes, rows) for x in found.top],
        saes=[
            c.AttributedSAE(
                sae=sae.address, latents=float(one.latent_act_grad.sum()), error=one.error_act_grad,
                bias=one.bias_act_grad, exact_latents=one.exact_latents, exact_all=one.exact_all,
            )
            for sae, one in zip(saes, found.saes, strict=True)
        ],
    )  # fmt: skip


def _cost(done: tuple[list[str], Metric, Attribution]) -> int:
    """The text is read once forward, once back, and once more for every latent ablated by itself."""
    return len(done[0]) * (2 + len(done[2].top))


def _attributed(
    x: Any, found: Attribution, saes: list[q.SAERecord], rows: dict[tuple[int, int], q.LatentSummary]
) -> c.AttributedLatent:
    sae, one = saes[x.sae], found.saes[x.sae]
    mine = one.latent == x.latent
    places = zip(one.position[mine].tolist(), one.value[mine].tolist(), one.act_grad[mine].tolist(), strict=True)
    return c.AttributedLatent(
        sae=sae.address, index=x.latent, label=rows[sae.id, x.latent].label, url=urls.feature(sae.address, x.latent),
        act_grad=x.act_grad, exact=x.exact, direct=None if one.direct is None else float(one.direct[mine].sum()),
        places=list(places), attention=on_attention(sae.reads),
    )  # fmt: skip


def _token(subject: Subject, asked: int | str) -> int:
    """The id, or that of the text where it is one token, with a space before it or else as it is.

    Raises:
        BadRequest: there is no such token.
    """
    if isinstance(asked, int):
        if not 0 <= asked < subject.n_tokens:
            raise BadRequest(f"There is no token {asked}; ids are 0 to {subject.n_tokens - 1}.", token=asked)
        return asked
    for text in (f" {asked}", asked):
        ids = subject.encode(text)
        if len(ids) == 1:
            return ids[0]
    if asked.isascii() and asked.isdigit() and int(asked) < subject.n_tokens:
        return int(asked)
    raise BadRequest(f"{asked[:60]!r} is not one token of the subject; give a token or its id.", token=asked[:60])


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
