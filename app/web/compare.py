"""/compare: two features, two SAEs, or up to eight SAEs, side by side."""

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
from app.web.many_build import compare_many
from app.web.refusals import refused
from app.web.routes import html, json_of, state_of
from app.web.state import State

router = APIRouter(tags=["features"], responses=refused(BadRequest, UnknownSAE, LatentOutOfRange, DecoderUnavailable))
Asked = Annotated[
    str, Query(max_length=400, description="slug/index, a feature's path, an SAE's slug, or an index of the same SAE.")
]
Several = Annotated[list[str] | None, Query(max_length=50, description="SAEs by slug or slug@revision, two to eight.")]
Shown = Annotated[int, Query(ge=1, le=500, description="How many matches of two SAEs to list.")]
MOST = 8  # SAEs at once
NUMBER = re.compile("[0-9]{1,18}")


class Named(NamedTuple):
    """What is compared: an SAE, or a feature of it."""

    sae: str
    feature: int | None

    @property
    def is_number(self) -> bool:
        """Whether it may be meant as a feature's number."""
        return self.feature is None and NUMBER.fullmatch(self.sae) is not None


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
    if not NUMBER.fullmatch(parts[1]):
        raise LatentOutOfRange(f"{parts[1][:40]!r} in {text[:60]!r} is no feature number.", index=parts[1][:40])
    return Named(parts[0], int(parts[1]))


def _numbers(a: Named, b: Named) -> tuple[Named, Named]:
    """A number beside a feature is one of the same SAE: an SAE is not compared with a feature."""
    if a.is_number and b.feature is not None:
        return Named(b.sae, int(a.sae)), b
    if b.is_number and a.feature is not None:
        return a, Named(a.sae, int(b.sae))
    return a, b


async def _of_the_only(state: State, number: Named) -> Named:
    """The feature with that number, where there is one SAE alone and it is not called so."""
    async with state.database.connect() as db:
        there = [sae.slug for sae in await q.list_saes(db)]
    return Named(there[0], int(number.sae)) if len(there) == 1 and number.sae not in there else number


async def compared(request: Request, a: str, b: str, top: int) -> FeatureComparison | SAEComparison:
    """
    Raises:
        BadRequest, LatentOutOfRange, UnknownSAE: the two cannot be compared; says why.
    """
    state = state_of(request)
    left, right = _numbers(named(a), named(b))
    if left.is_number and right.is_number:
        left, right = await _of_the_only(state, left), await _of_the_only(state, right)
    if (left.feature is None) != (right.feature is None):
        one, other = (a, b) if left.feature is None else (b, a)
        raise BadRequest(f"{one[:60]!r} is an SAE and {other[:60]!r} a feature; compare two of a kind.")
    async with state.database.connect() as db:
        first = await q.get_sae(db, left.sae)
        second = first if right.sae == left.sae else await q.get_sae(db, right.sae)
        for sae, index in ((first, left.feature), (second, right.feature)):
            if index is not None and index >= sae.n_latents:
                raise build.out_of_range(sae, index)
        if left.feature is not None and right.feature is not None:
            return await compare_features(state, db, (first, left.feature), (second, right.feature))
    return await compare_saes(state, first, second, top)


async def chosen(request: Request, names: list[str]) -> list[q.SAERecord]:
    """The SAEs that ``names`` stand for, each once, in three queries at most.

    Raises:
        BadRequest, UnknownSAE: they cannot be compared; says why.
    """
    wanted = list(dict.fromkeys(named(name) for name in names))
    if feature := next((one for one in wanted if one.feature is not None), None):
        raise BadRequest(f"{feature.sae}/{feature.feature} is a feature; several SAEs are compared by their names.")
    if not 2 <= len(wanted) <= MOST:
        raise BadRequest(f"Two to {MOST} SAEs are compared at once; this names {len(wanted)}.")
    async with state_of(request).database.connect() as db:
        newest = {sae.slug: sae for sae in await q.list_saes(db)}
        pairs = [(slug, revision) for slug, at, revision in (one.sae.partition("@") for one in wanted) if at]
        pinned = await q.find_revisions(db, pairs)
        found = []
        for one in wanted:
            slug, at, revision = one.sae.partition("@")
            record = pinned.get((slug, revision)) if at else newest.get(slug)
            found.append(record or await q.get_sae(db, one.sae))  # which says what there is
    saes = list({sae.id: sae for sae in found}.values())
    if len(saes) < 2:
        raise BadRequest(f"{' and '.join(one.sae for one in wanted)} are one and the same; choose another SAE.")
    return saes


async def load_compare(request: Request, a: str, b: str, top: int, several: list[str]) -> ComparePage:
    many = await compare_many(state_of(request), await chosen(request, several), top) if several else None
    found = None if several else await compared(request, a, b, top) if a.strip() and b.strip() else None
    return ComparePage(
        a=a,
        b=b,
        chosen=[sae.address for sae in many.saes] if many else several,
        choices=await choices(request),
        features=found if isinstance(found, FeatureComparison) else None,
        saes=found if isinstance(found, SAEComparison) else None,
        many=many,
    )


async def choices(request: Request) -> list[str]:
    async with state_of(request).database.connect() as db:
        return [sae.slug for sae in await q.list_saes(db)]


@router.get("/compare.json", response_model=ComparePage)
async def compare_json(
    request: Request, a: Asked = "", b: Asked = "", top: Shown = 25, sae: Several = None
) -> Response:
    """Two features (``slug/index``), two SAEs (``slug`` or ``slug@revision``), or two to eight SAEs, side by side."""
    return json_of(await load_compare(request, a, b, top, sae or []))


@router.get("/compare", response_class=HTMLResponse, include_in_schema=False)
async def compare(
    request: Request, a: Asked = "", b: Asked = "", top: Shown = 25, sae: Several = None,
    index: Annotated[list[str] | None, Query(description="Features of ``sae``, two of them.")] = None,
) -> Response:  # fmt: skip
    several = sae or []
    if len(several) == 1 and index and len(index) == 2:
        return RedirectResponse(urls.compare(f"{several[0]}/{index[0]}", f"{several[0]}/{index[1]}"), status_code=303)
    try:
        if several and index:
            raise BadRequest(f"Select two features to compare; {len(index)} are selected.")
        if len(several) == 1:
            raise BadRequest(
                f"Choose two features of {several[0][:60]}, or it and another SAE, to compare; it alone is chosen."
            )
        page = await load_compare(request, a, b, top, several)
    except SaescopeError as error:
        if error.status >= 500:
            raise
        page = ComparePage(a=a, b=b, chosen=several, choices=await choices(request), error=error.message)
        answer = html("compare.html", request, page=page)
        answer.status_code = error.status
        return answer
    return html("compare.html", request, page=page)
