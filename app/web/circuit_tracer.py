"""Features as circuit-tracer's front end asks for them, ``./features/{scan}/{number}.json``.

Read from frontend/assets/feature_examples of https://github.com/safety-research/circuit-tracer, commit 196e2ce (2026).
"""

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel
from sqlalchemy.ext.asyncio import AsyncConnection

from app.errors import BadRequest, LatentOutOfRange, UnknownSAE
from app.interop.graphs import uncantor
from app.store import queries as q
from app.store.tables import TOP
from app.subject.tokens import Vocabulary
from app.web.build import layer_of, out_of_range
from app.web.freshness import unless_known
from app.web.refusals import refused
from app.web.routes import state_of

router = APIRouter(tags=["graphs"], responses=refused(BadRequest, UnknownSAE, LatentOutOfRange))


class TracedExample(BaseModel):
    tokens: list[str]
    tokens_acts_list: list[float]
    train_token_ind: int
    is_repeated_datapoint: bool


class TracedQuantile(BaseModel):
    quantile_name: str
    examples: list[TracedExample]


class TracedFeature(BaseModel):
    """What the front end reads of a feature; ``index`` is its number there, of layer and latent."""

    index: int
    top_logits: list[str]
    bottom_logits: list[str]
    act_min: float
    act_max: float
    activation_frequency: float
    examples_quantiles: list[TracedQuantile]


async def of_layer(db: AsyncConnection, scan: str, layer: int) -> q.SAERecord:
    """The SAE named ``scan``, if it reads that layer, or the one here of the subject ``scan`` that does.

    Raises:
        UnknownSAE: there is none, or there are several.
    """
    of_subject = [sae for sae in await q.list_saes(db) if sae.subject == scan]
    saes = [sae for sae in of_subject if layer_of(sae.reads[0]) == layer]
    if len(saes) == 1:
        return saes[0]
    if saes:
        names = ", ".join(sae.slug for sae in saes[:10])
        raise UnknownSAE(f"Several SAEs here read layer {layer} of {scan[:60]}: name one of {names} instead.", sae=scan)
    if of_subject:
        raise UnknownSAE(f"No SAE here reads layer {layer} of {scan[:60]}.", sae=scan, layer=layer)
    sae = await q.get_sae(db, scan)
    if layer_of(sae.reads[0]) != layer:
        raise UnknownSAE(f"{sae.slug} reads {sae.reads[0]}, and not layer {layer}.", sae=sae.slug, layer=layer)
    return sae


@router.get("/features/{scan}/{number}.json", response_model=TracedFeature)
async def traced(request: Request, scan: str, number: str) -> Response:
    """A feature for circuit-tracer's front end: ``number`` is (l + i)(l + i + 1) / 2 + i of layer l and latent i."""
    if not number.isascii() or not number.isdigit() or len(number) > 18:
        raise LatentOutOfRange(f"{number[:40]!r} is no number of a feature.", index=number[:40])
    layer, index = uncantor(int(number))
    state = state_of(request)
    async with state.reads.connect() as db:
        sae = await of_layer(db, scan, layer)
        unless_known(request, sae)
        latent = await q.get_latent(db, sae, index) if index < sae.n_latents else None
        if latent is None:
            raise out_of_range(sae, index)
        examples = await q.get_examples(db, sae, index)
    vocabulary = await state.vocabulary(sae)
    return JSONResponse(_feature(int(number), latent, examples, vocabulary))


def _feature(
    number: int, latent: q.LatentRecord, examples: list[q.ExampleRecord], vocabulary: Vocabulary
) -> dict[str, Any]:
    quantiles = []
    for interval in (TOP, *range(9, -1, -1)):
        mine = [one for one in examples if one.interval == interval]
        if mine:
            name = "Top activations" if interval == TOP else f"{10 * interval} to {10 * interval + 10}% of the maximum"
            quantiles.append({"quantile_name": name, "examples": [_example(one, vocabulary) for one in mine]})
    return {
        "index": number,
        "top_logits": [vocabulary.text(i) for i in latent.promoted_ids],
        "bottom_logits": [vocabulary.text(i) for i in latent.suppressed_ids],
        "act_min": latent.minimum,
        "act_max": latent.maximum,
        "activation_frequency": latent.density,
        "examples_quantiles": quantiles,
    }


def _example(one: q.ExampleRecord, vocabulary: Vocabulary) -> dict[str, Any]:
    return {
        "tokens": vocabulary.pieces(one.token_ids),
        "tokens_acts_list": one.activations,
        "train_token_ind": one.position - one.start,
        "is_repeated_datapoint": False,
    }
