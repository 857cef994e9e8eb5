"""People's explanations by JSON: write, edit, vote."""

from typing import Annotated, Literal

from fastapi import APIRouter, Body, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict
from sqlalchemy.ext.asyncio import AsyncConnection

from app.errors import BadRequest, LatentOutOfRange, UnknownExplanation, UnknownSAE
from app.store import people
from app.store import queries as q
from app.store.explanations import get_explanations
from app.web import build
from app.web.api_examples import EXPLANATION, EXPLANATION_EDIT, VOTE
from app.web.embedding import embed_few
from app.web.explain_build import explanation
from app.web.explain_contexts import ExplanationList
from app.web.explanations import find_sae, number_of
from app.web.refusals import refused
from app.web.routes import json_of, state_of, whole

router = APIRouter(tags=["explanations"], responses=refused(BadRequest, UnknownSAE, LatentOutOfRange))
HERE = "/api/saes/{slug}/features/{index}/explanations"


class SaidBody(BaseModel):
    """What a person says a feature fires on, and who says it."""

    model_config = ConfigDict(extra="forbid")

    text: str
    author: str


class VoteBody(BaseModel):
    """A name has one vote: 1 for the explanation, -1 against it, 0 takes it back."""

    model_config = ConfigDict(extra="forbid")

    author: str
    value: Literal[-1, 0, 1]


async def _told(db: AsyncConnection, sae: q.SAERecord, index: int) -> ExplanationList:
    latent = await q.get_latent(db, sae, index)
    if latent is None:
        raise build.out_of_range(sae, index)
    records = await get_explanations(db, sae.id, index)
    return ExplanationList(items=[explanation(sae, latent, one) for one in records], next=None)


@router.post(HERE, response_model=ExplanationList)
async def api_write(
    request: Request, slug: str, index: str, body: Annotated[SaidBody, Body(openapi_examples=EXPLANATION)]
) -> Response:
    """Add an explanation of your own; all of the feature's are answered."""
    latent = whole(index)
    async with state_of(request).database.begin() as db:
        sae = await find_sae(db, slug, latent)
        await people.write(db, sae.id, latent, body.text, body.author)
        told = await _told(db, sae, latent)
    state_of(request).later(embed_few(state_of(request), sae.id))
    return json_of(told)


@router.post(HERE + "/{number}", response_model=ExplanationList, responses=refused(UnknownExplanation))
async def api_edit(
    request: Request, slug: str, index: str, number: str,
    body: Annotated[SaidBody, Body(openapi_examples=EXPLANATION_EDIT)],
) -> Response:  # fmt: skip
    """Give a person's explanation another text; the one it had is kept beside it."""
    latent = whole(index)
    async with state_of(request).database.begin() as db:
        sae = await find_sae(db, slug, latent)
        await people.edit(db, sae.id, latent, number_of(number, latent), body.text, body.author)
        told = await _told(db, sae, latent)
    state_of(request).later(embed_few(state_of(request), sae.id))
    return json_of(told)


@router.post(HERE + "/{number}/votes", response_model=ExplanationList, responses=refused(UnknownExplanation))
async def api_vote(
    request: Request, slug: str, index: str, number: str, body: Annotated[VoteBody, Body(openapi_examples=VOTE)]
) -> Response:
    """Vote for or against an explanation, whoever or whatever made it."""
    latent = whole(index)
    async with state_of(request).database.begin() as db:
        sae = await find_sae(db, slug, latent)
        await people.vote(db, sae.id, latent, number_of(number, latent), body.author, body.value)
        return json_of(await _told(db, sae, latent))
