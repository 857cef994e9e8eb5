"""A latent on attention outputs at one token, taken apart by head and source token."""

from typing import Annotated

from fastapi import APIRouter, Body, Query, Request
from fastapi.responses import HTMLResponse, Response
from pydantic import BaseModel, ConfigDict, Field

from app import urls
from app.errors import BadRequest
from app.live.jobs import HeadsJob
from app.store import queries as q
from app.web.api_examples import HEADS
from app.web.fields import Asked
from app.web.inspection import check_unicode, chosen, read
from app.web.intervention import first_of, named_feature, only_sae
from app.web.refusals import ATTRIBUTING, refused
from app.web.routes import html, json_of, state_of

router = APIRouter(tags=["live"], responses=refused(*ATTRIBUTING))


class HeadsQuery(Asked):
    """/inspect/heads: its URL. ``token`` is where the latent fires most if it
    is left out."""

    text: str | None = None
    feature: str | None = Field(default=None, max_length=400, description="SLUG/NUMBER.")
    token: int | None = Field(default=None, ge=0, description="The position whose activation is taken apart.")
    chat: bool = False


class HeadsBody(HeadsQuery):
    """POST /api/inspect/heads."""

    model_config = ConfigDict(extra="forbid")


class HeadPart(BaseModel):
    """What one head brings: ``total``, and from each token up to the position."""

    head: int
    total: float
    sources: list[float]


class HeadsResult(BaseModel):
    """``pre_act`` is ``bias`` plus all heads' totals, but for rounding; ``activation`` what the SAE makes of it.
    ``heads``: the greatest in magnitude first. ``sources``: what each token up to the position brings by all heads."""

    feature: str
    label: str
    url: str
    max: float
    tokens: list[str]
    position: int
    activation: float
    pre_act: float
    bias: float
    most: float  # the greatest magnitude of one head and source
    heads: list[HeadPart]
    sources: list[float]


class HeadsPage(BaseModel):
    """/inspect/heads and its twin; ``result`` is null until there is a text and a feature."""

    query: HeadsQuery
    result: HeadsResult | None


async def run_heads(request: Request, query: HeadsQuery) -> HeadsResult:
    """
    Raises:
        BadRequest, LatentOutOfRange, UnknownSAE: no text or no feature, or one that is not here.
        AttributionUnsupported: the SAE is none of attention outputs.
    """
    if query.text is None or query.feature is None:
        raise BadRequest("Give a text and a feature, SLUG/NUMBER.")
    check_unicode(query.text)
    text, state = query.text, state_of(request)
    name, index = named_feature(query.feature)
    async with state.database.connect() as db:
        known = await q.list_saes(db)
        sae = (await chosen(db, [only_sae(name, known)], known))[0]
        rows = await q.get_summaries_of(db, [(sae.id, index)])
    if (sae.id, index) not in rows:
        raise BadRequest(f"{sae.slug} has no feature {index}; its features are 0 to {sae.n_latents - 1}.")
    latent = rows[sae.id, index]
    run = await read(request, [sae], text, chat=query.chat, predict=False)
    reading = run.readings[sae.revision]
    mine = reading.latent == index
    fires = dict(zip(reading.position[mine].tolist(), reading.value[mine].tolist(), strict=True))
    position = query.token
    if position is None:
        position = max(fires, key=lambda place: abs(fires[place])) if fires else len(run.pieces) - 1

    job = HeadsJob(run.token_ids, position, index)
    found = await first_of(request, [sae], job, lambda _: len(run.pieces))
    heads = [HeadPart(head=number, total=sum(row), sources=row) for number, row in enumerate(found.pieces)]
    return HeadsResult(
        feature=f"{sae.address}/{index}", label=latent.label, url=urls.feature(sae.address, index),
        max=max(latent.maximum, -latent.minimum), tokens=run.pieces, position=position,
        activation=fires.get(position, 0.0), pre_act=found.pre_act, bias=found.bias,
        most=max(abs(value) for row in found.pieces for value in row),
        heads=sorted(heads, key=lambda part: -abs(part.total)),
        sources=[sum(column) for column in zip(*found.pieces, strict=True)],
    )  # fmt: skip


async def load_heads(request: Request, query: HeadsQuery) -> HeadsPage:
    asked = query.text is not None and query.feature is not None
    return HeadsPage(query=query, result=await run_heads(request, query) if asked else None)


@router.get("/inspect/heads.json", response_model=HeadsPage)
async def heads_json(request: Request, query: Annotated[HeadsQuery, Query()]) -> Response:
    """Which heads, and which tokens they look at, a feature's activation at a token comes from."""
    return json_of(await load_heads(request, query))


@router.get("/inspect/heads", response_class=HTMLResponse, include_in_schema=False)
async def heads_page(request: Request, query: Annotated[HeadsQuery, Query()]) -> Response:
    return html("heads.html", request, page=await load_heads(request, query))


@router.post("/api/inspect/heads", response_model=HeadsResult)
async def api_heads(request: Request, body: Annotated[HeadsBody, Body(openapi_examples=HEADS)]) -> Response:
    """A latent on attention outputs at one token, by head and source token."""
    return json_of(await run_heads(request, body))
