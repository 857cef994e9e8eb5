"""A feature's page and its twin."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, Response
from sqlalchemy.ext.asyncio import AsyncConnection

from app import urls
from app.store import queries as q
from app.store.explanations import explanations_asked
from app.store.glimpses import company_asked
from app.store.map_places import whereabouts_asked
from app.store.notes import NoteRecord
from app.store.pipeline import Asked, at_once
from app.subject.tokens import Vocabulary
from app.web import build
from app.web import contexts as c
from app.web.charts import activation_chart, profile_chart
from app.web.examples import Look, Norm, Space, View
from app.web.examples import rows as arrange
from app.web.explain_build import explanation
from app.web.found import find_sae_of, unless_read
from app.web.inspection import run_test
from app.web.map_build import feature_map
from app.web.notes import note_of
from app.web.refusals import READING, refused
from app.web.rendering import static
from app.web.routes import html, json_of, state_of, whole
from app.web.sharing import feature_preview
from app.web.spending import on_pages

router = APIRouter(tags=["features"], responses=refused(*READING))
LAST = 256  # addresses of SAEs that are remembered
Vocabularies = Callable[[q.SAERecord], Awaitable[Vocabulary]]


async def read_feature(db: AsyncConnection, sae: q.SAERecord, index: int, vocabulary: Vocabularies) -> c.FeaturePage:
    """
    Raises:
        LatentOutOfRange: the SAE has no such latent.
    """
    return feature_of(sae, index, await at_once(db, *_asked(sae, index)), await vocabulary(sae))


def _asked(sae: q.SAERecord, index: int) -> tuple[Asked[Any], ...]:
    """What a feature's page is made from."""
    return (
        q.latent_asked(sae, index), q.examples_asked(sae, index), company_asked(sae, index),
        explanations_asked(sae.id, index), whereabouts_asked(sae.id, index),
    )  # fmt: skip


def feature_of(sae: q.SAERecord, index: int, found: Sequence[Any], vocabulary: Vocabulary) -> c.FeaturePage:
    """found: what was ``_asked``.

    Raises:
        LatentOutOfRange: the SAE has no such latent.
    """
    latent, examples, others, told, place = found
    if latent is None:
        raise build.out_of_range(sae, index)
    known = [explanation(sae, latent, one) for one in told]
    page = build.feature_page(sae, latent, examples, others, known, vocabulary)
    page.note = note_of(NoteRecord.of(latent.note)) if latent.note else None
    page.lists = [c.OnList(title=title, url=urls.list_page(name)) for name, title in latent.lists or []]
    if place is not None:
        page.map = feature_map(sae, index, place)
    return page


async def load_feature(request: Request, slug: str, index: int, text: str | None) -> c.FeaturePage:
    state = state_of(request)
    async with state.reads.connect() as db:
        sae, found = await _look_up(request, db, slug, index)
        if found is None:
            found = await at_once(db, *_asked(sae, index))
        page = feature_of(sae, index, found, await state.vocabulary(sae))
    page.model = on_pages(state.settings)
    if text is not None:
        page.test = await run_test(request, sae, index, max(page.max, -page.min), text)
    return page


async def _look_up(
    request: Request, db: AsyncConnection, slug: str, index: int
) -> tuple[q.SAERecord, Sequence[Any] | None]:
    """The SAE, and what its page is made from where it is the one that ``slug`` stood for the last time: then both
    are asked for together. A reader who may have the page is not worth asking for the rest.

    Raises:
        UnknownSAE, LatentOutOfRange: there is no such one.
        NotModified: the reader has the page.
    """
    last = state_of(request).last_saes
    guess = None if "if-none-match" in request.headers else last.get(slug)
    if guess is None or not 0 <= index < guess.n_latents:  # some numbers are none of the database's
        sae, found = await find_sae_of(request, db, slug, index), None
    else:
        there, *rest = await at_once(db, q.sae_asked(slug), *_asked(guess, index))
        # One that is gone: what there is to say about that takes statements of its own.
        sae = there or await q.get_sae(db, slug)
        found = rest if _same(sae, guess) else None
        unless_read(request, sae, index)
    if len(last) >= LAST:
        last.clear()
    last[slug] = sae
    return sae, found


def _same(a: q.SAERecord, b: q.SAERecord) -> bool:
    """Whether the same is to be asked for of both."""
    return (a.id, a.revision, a.sha256, a.corpus_id) == (b.id, b.revision, b.sha256, b.corpus_id)


@router.get("/saes/{slug}/features/{index}.json", response_model=c.FeaturePage)
async def feature_json(request: Request, slug: str, index: str, text: str | None = None) -> Response:
    """One feature with its examples; with ``text``, also its activations on that."""
    return json_of(await load_feature(request, slug, whole(index), text))


@router.get("/saes/{slug}/features/{index}", response_class=HTMLResponse, include_in_schema=False)
async def feature(
    request: Request, slug: str, index: str, text: str | None = None, view: View = "snippet", norm: Norm = "latent",
    space: Space = "plain",
) -> Response:  # fmt: skip
    page = await load_feature(request, slug, whole(index), text)
    shown = panels(page, Look(view, norm, space))
    request.state.rules = static("leafing.speculationrules")
    return html("feature.html", request, preview=feature_preview(request, page), **shown)


def panels(page: c.FeaturePage, look: Look) -> dict[str, Any]:
    """What the feature page's template shows besides the page itself."""
    rows = arrange(build.groups(page))
    anchors = {section.anchor for row in rows for section in row}
    i, kept = page.index, look.query()
    return {
        "page": page,
        "look": look,
        "rows": rows,
        "chart": activation_chart(page.histogram, page.max, page.min, anchors),
        "profile": profile_chart(page.usage.profile) if page.usage else None,
        "previous": urls.feature(page.address, i - 1, **kept) if i else None,
        "next": urls.feature(page.address, i + 1, **kept) if i + 1 < page.n_latents else None,
    }
