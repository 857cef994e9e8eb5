"""The prompt inspector: its page, the page's twin, and POST /api/inspect."""

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse, Response
from pydantic import BaseModel, Field

from app import urls
from app.errors import BadRequest
from app.live.ranking import rank
from app.store import queries as q
from app.web import build
from app.web import contexts as c
from app.web.rendering import render_block
from app.web.routes import html, json_of, state_of
from app.web.state import target

router = APIRouter()


def check_unicode(text: str) -> None:
    """Refuse what no tokenizer and no database can take: half of a surrogate pair."""
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise BadRequest("The text is not valid Unicode: it holds half of a surrogate pair.")


class InspectBody(BaseModel):
    """POST /api/inspect. ``token`` limits the ranking to one position; ``sae`` may be left out if there is one."""

    text: str
    sae: str | None = None
    top: int = Field(default=20, ge=1, le=500)
    token: int | None = Field(default=None, ge=0)
    sort: c.Ranking = "strength"


async def run_inspect(
    request: Request,
    sae: q.SAERecord,
    text: str,
    token: int | None,
    sort: c.Ranking,
    top: int,
) -> c.InspectResult:
    """Read ``text``. No database connection is held while the engine works, so that prompts in the queue keep no
    page from being read."""
    state = state_of(request)
    check_unicode(text)
    run = await state.engine.read([target(sae, state.settings.home)], text)
    reading = run.readings[sae.revision]
    if token is not None and token >= len(run.pieces):
        raise BadRequest(f"The text has no token {token}; its tokens are 0 to {len(run.pieces) - 1}.", token=token)
    async with state.database.connect() as db:
        ranked, active = rank(reading, await state.scale(db, sae), token=token, by=sort, top=top)
        taken = (reading.steps or {}).get(token, []) if token is not None else []
        summaries = await q.get_summaries(db, sae.id, [*(r.index for r in ranked), *(index for index, _ in taken)])
    vocabulary = await state.vocabulary(sae)
    return c.InspectResult(
        sae=sae.slug,
        revision=sae.revision,
        address=sae.address,
        text=text,
        tokens=run.pieces,
        prompt=[
            c.PromptToken(text=piece, token_id=i, counted=counted)
            for piece, i, counted in zip(run.pieces, run.token_ids, run.counted, strict=True)
        ],
        token=token,
        sort=sort,
        active=active,
        latents=[
            c.PromptLatent(
                index=r.index,
                label=summaries[r.index].label,
                activation=r.activation,
                share=r.share,
                strength=r.strength,
                position=r.position,
                density=summaries[r.index].density,
                promoted=[vocabulary.text(i) for i in summaries[r.index].promoted_ids[:5]],
                activations=r.activations,
                url=urls.feature(sae.address, r.index),
            )
            for r in ranked
        ],
        steps=None
        if reading.steps is None or token is None
        else [
            c.PursuitStep(
                index=index, label=summaries[index].label, residual=left, url=urls.feature(sae.address, index)
            )
            for index, left in taken
        ],
        milliseconds=round(1000 * run.seconds, 2),
    )


async def run_test(request: Request, sae: q.SAERecord, index: int, peak: float, text: str) -> c.FeatureTest:
    """One latent's activations on ``text``; ``peak`` is its max|a| in the harvest."""
    state = state_of(request)
    check_unicode(text)
    run = await state.engine.read([target(sae, state.settings.home)], text)
    reading, values = run.readings[sae.revision], [0.0] * len(run.pieces)
    mine = reading.latent == index
    for place, value in zip(reading.position[mine], reading.value[mine], strict=True):
        values[int(place)] = float(value)
    position = max(range(len(values)), key=lambda place: abs(values[place]))
    strongest = values[position]
    return c.FeatureTest(
        text=text,
        tokens=run.pieces,
        activations=values,
        strongest=strongest,
        position=position if strongest else None,
        share=abs(strongest) / peak if peak else float(bool(strongest)),
    )


async def load_inspect(
    request: Request, sae: str | None, text: str | None, token: int | None, sort: c.Ranking, top: int
) -> c.InspectPage:
    state = state_of(request)
    async with state.database.connect() as db:
        saes = await q.list_saes(db)
        chosen = await q.get_sae(db, sae) if sae else (saes[0] if saes else None)
    result = None
    if text is not None and chosen is not None:
        result = await run_inspect(request, chosen, text, token, sort, top)
    return c.InspectPage(
        saes=[build.card(s) for s in saes],
        sae=chosen.address if chosen else None,
        text=text or "",
        sort=sort,
        top=top,
        limit_tokens=state.settings.max_prompt_tokens - 1,
        limit_characters=state.settings.max_prompt_chars,
        result=result,
    )


@router.get("/inspect.json", response_model=c.InspectPage)
async def inspect_json(
    request: Request, sae: str | None = None, text: str | None = None,
    token: Annotated[int | None, Query(ge=0)] = None, sort: c.Ranking = "strength",
    top: Annotated[int, Query(ge=1, le=500)] = 20,
) -> Response:  # fmt: skip
    """The inspect page: a prompt and the features that fire on it."""
    return json_of(await load_inspect(request, sae, text, token, sort, top))


@router.get("/inspect", response_class=HTMLResponse, include_in_schema=False)
async def inspect(
    request: Request, sae: str | None = None, text: str | None = None,
    token: Annotated[int | None, Query(ge=0)] = None, sort: c.Ranking = "strength",
    top: Annotated[int, Query(ge=1, le=500)] = 20,
) -> Response:  # fmt: skip
    page = await load_inspect(request, sae, text, token, sort, top)
    if request.headers.get("hx-request") and not request.headers.get("hx-history-restore-request"):
        return HTMLResponse(render_block("inspect.html", "inspect_result", page=page))
    return html("inspect.html", request, page=page)


@router.post("/api/inspect", response_model=c.InspectResult)
async def api_inspect(request: Request, body: InspectBody) -> Response:
    """Read a prompt with an SAE: its tokens and the strongest features."""
    async with state_of(request).database.connect() as db:
        if body.sae is None:
            saes = await q.list_saes(db)
            if len(saes) != 1:
                raise BadRequest("Say which SAE with 'sae'; there is not exactly one here.")
            sae = saes[0]
        else:
            sae = await q.get_sae(db, body.sae)
    return json_of(await run_inspect(request, sae, body.text, body.token, body.sort, body.top))
