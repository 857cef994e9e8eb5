"""/compare: two features or two SAEs, side by side."""

import re
from typing import Annotated, NamedTuple
from urllib.parse import unquote, urlsplit

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from app import urls
from app.errors import BadRequest, DecoderUnavailable, LatentOutOfRange, SaescopeError, UnknownSAE
from app.store import queries as q
from app.web import build
from app.web.compare_build import compare_features, compare_saes
from app.web.compare_contexts import ComparePage, FeatureComparison, SAEComparison
from app.web.refusals import refused
from app.web.routes import html, json_of, state_of

router = APIRouter(tags=["features"], responses=refused(BadRequest, UnknownSAE, LatentOutOfRange, DecoderUnavailable))
Asked = Annotated[str, Query(max_length=400, description="slug/index, a feature's path, or an SAE's slug.")]
Shown = Annotated[int, Query(ge=1, le=500, description="How many matches of two SAEs to list.")]


class Named(NamedTuple):
    """What is compared: an SAE, or a feature of it."""

    sae: str
    feature: int | None


def named(text: str) -> Named:
    """``slug``, ``slug@revision``, ``slug/12``, or an address of the site that leads to one of these.

    Raises:
        BadRequest: it is none of them.
        LatentOutOfRange: what stands for the feature is no number.
    """
    try:
        path = unquote(urlsplit(text.strip()).path).strip("/")
    except ValueError:
        path = ""
    parts = path.removesuffix(".json").split("/")
    if "saes" in parts:
        parts = parts[parts.index("saes") + 1 :]
    if len(parts) >= 2 and parts[1] == "features":
        parts = [parts[0], *parts[2:3]]
    if len(parts) not in (1, 2) or not parts[0]:
        raise BadRequest(f"{text[:60]!r} names no feature and no SAE; write SLUG/NUMBER, or SLUG.")
    if len(parts) == 1:
        return Named(parts[0], None)
    if not re.fullmatch(r"[0-9]{1,18}", parts[1]):
        raise LatentOutOfRange(f"{parts[1][:40]!r} in {text[:60]!r} is no feature number.", index=parts[1][:40])
    return Named(parts[0], int(parts[1]))


async def compared(request: Request, a: str, b: str, top: int) -> FeatureComparison | SAEComparison:
    """
    Raises:
        BadRequest, LatentOutOfRange, UnknownSAE: the two cannot be compared; says why.
    """
    left, right = named(a), named(b)
    if (left.feature is None) != (right.feature is None):
        one, other = (a, b) if left.feature is None else (b, a)
        raise BadRequest(f"{one[:60]!r} is an SAE and {other[:60]!r} a feature; compare two of a kind.")
    state = state_of(request)
    async with state.database.connect() as db:
        first = await q.get_sae(db, left.sae)
        second = first if right.sae == left.sae else await q.get_sae(db, right.sae)
        for sae, index in ((first, left.feature), (second, right.feature)):
            if index is not None and index >= sae.n_latents:
                raise build.out_of_range(sae, index)
        if left.feature is not None and right.feature is not None:
            return await compare_features(state, db, (first, left.feature), (second, right.feature))
    return await compare_saes(state, first, second, top)


async def load_compare(request: Request, a: str, b: str, top: int) -> ComparePage:
    found = await compared(request, a, b, top) if a.strip() and b.strip() else None
    return ComparePage(
        a=a,
        b=b,
        choices=await choices(request),
        features=found if isinstance(found, FeatureComparison) else None,
        saes=found if isinstance(found, SAEComparison) else None,
    )


async def choices(request: Request) -> list[str]:
    async with state_of(request).database.connect() as db:
        return [sae.slug for sae in await q.list_saes(db)]


@router.get("/compare.json", response_model=ComparePage)
async def compare_json(request: Request, a: Asked = "", b: Asked = "", top: Shown = 25) -> Response:
    """Two features (``slug/index``) or two SAEs (``slug`` or ``slug@revision``), side by side."""
    return json_of(await load_compare(request, a, b, top))


@router.get("/compare", response_class=HTMLResponse, include_in_schema=False)
async def compare(
    request: Request, a: Asked = "", b: Asked = "", top: Shown = 25, sae: Asked = "",
    index: Annotated[list[str] | None, Query(description="Features of ``sae``, two of them.")] = None,
) -> Response:  # fmt: skip
    if sae and index and len(index) == 2:
        return RedirectResponse(urls.compare(f"{sae}/{index[0]}", f"{sae}/{index[1]}"), status_code=303)
    try:
        if sae:
            raise BadRequest(f"Select two features to compare; {len(index or [])} are selected.")
        page = await load_compare(request, a, b, top)
    except SaescopeError as error:
        if error.status >= 500:
            raise
        page = ComparePage(a=a, b=b, choices=await choices(request), error=error.message)
        answer = html("compare.html", request, page=page)
        answer.status_code = error.status
        return answer
    return html("compare.html", request, page=page)
