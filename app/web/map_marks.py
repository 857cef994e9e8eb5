"""What is marked on a map: those of a label, a region, a cluster or an outline, or those that fire on a text."""

from fastapi import Request
from sqlalchemy.ext.asyncio import AsyncConnection

from app import urls
from app.live.ranking import Ranked, rank_apart
from app.store import browse as b
from app.store import map_places as p
from app.store import maps as m
from app.store.map_bulk import ClusterRow
from app.store.queries import SAERecord
from app.web import build
from app.web import map_contexts as c
from app.web.inspection import read
from app.web.map_filter import chosen
from app.web.routes import state_of

MARKED = 5000
LISTED = 50


async def found(
    db: AsyncConnection, sae: SAERecord, record: m.MapRecord, query: c.MapQuery, clusters: list[ClusterRow]
) -> c.MapFound | None:
    """What the query's filters keep; None where it has none.

    Raises:
        BadRequest: a filter does not fit.
    """
    kept = query.filters()
    if not kept:
        return None
    place = chosen(sae, record, query)
    off = 0
    if query.q:
        within = [b.LATENT.in_(place.latents())] if len(kept) > 1 else []
        label = b.Filters(label=query.q).conditions()
        marked, looked = await p.labelled(db, place, [*label, *within], MARKED + 1)
        more, off = looked > MARKED, looked - len(marked)
    else:
        marked = await p.most_important(db, place, MARKED + 1)
        more = len(marked) > MARKED
    marked = marked[:MARKED]
    table = dict(kept) if "q" in kept and len(kept) == 1 else {**kept, "map": record.version}
    title, page = _title(sae, record, query, place, clusters)
    return c.MapFound(
        title=title,
        items=await _items(db, sae, [one.latent for one in marked[:LISTED]], {}),
        marks=_marks(marked, None),
        found=len(marked),
        found_exact=not more,
        off=off,
        page=page,
        table=urls.features(sae.address, **table),
        csv=urls.features_csv(sae.address, **table),
    )


async def lit(db: AsyncConnection, sae: SAERecord, record: m.MapRecord, text: str, ranked: list[Ranked]) -> c.MapFound:
    """What fires on a text, the strongest first."""
    by_index = {one.index: one for one in ranked}
    places = await p.places(db, p.OnMap(sae.id, record.id), list(by_index))
    marked = [places[index] for index in by_index if index in places]
    count = len(ranked)
    return c.MapFound(
        title="Features that fire on the text",
        items=await _items(db, sae, list(by_index)[:LISTED], by_index),
        marks=_marks(marked, [round(by_index[one.latent].share, 4) for one in marked]),
        found=count,
        found_exact=count < MARKED,
        off=count - len(marked),
        page=urls.inspect(text=text, sae=sae.address),
        table=None,
        csv=None,
    )


async def strongest(request: Request, sae: SAERecord, text: str) -> list[Ranked]:
    """
    Raises:
        SaescopeError: the text cannot be read.
    """
    run = await read(request, [sae], text, chat=False, predict=False)
    state = state_of(request)
    async with state.reads.connect() as db:
        scale = await state.scale(db, sae)
    return await rank_apart(run.readings[sae.revision], scale, token=None, by="strength", top=MARKED)


async def _items(
    db: AsyncConnection, sae: SAERecord, latents: list[int], by_index: dict[int, Ranked]
) -> list[c.MapItem]:
    if not latents:
        return []
    rows, _ = await b.page(
        db, sae.id, b.Filters(indices=tuple(latents)), sort="index", descending=False, cursor=None, limit=LISTED
    )
    records = {record.index: record for record in rows}
    items = []
    for index in latents:
        on = by_index.get(index)
        if index in records:
            row = build.row(sae, records[index]).model_dump()
            items.append(c.MapItem(**row, activation=on and on.activation, share=on and on.share))
    return items


def _marks(marked: list[p.Marked], values: list[float] | None) -> c.MapMarks:
    return c.MapMarks(
        latents=[one.latent for one in marked], x=[one.x for one in marked], y=[one.y for one in marked], values=values
    )


def _title(
    sae: SAERecord, record: m.MapRecord, query: c.MapQuery, place: p.OnMap, clusters: list[ClusterRow]
) -> tuple[str, str | None]:
    """In words, and the page of the one group it is."""
    parts, page = [], None
    for level, (name, number) in enumerate((("region", place.region), ("cluster", place.cluster))):
        group = next((one for one in clusters if (one.level, one.id) == (level, number)), None)
        if number == p.NONE:
            parts.append(f"in no {name}")
        elif group is not None:
            parts.append(f"in the {name} “{group.name}”")
            page = urls.map_group(sae.address, record.version, level, group.id)
        elif number is not None:
            parts.append(f"in {name} {number}, which is none of this map's")
    parts += ["within the outline"] if place.within else []
    parts += [f"with “{query.q}” in the label"] if query.q else []
    return f"Features {', '.join(parts)}", page if len(query.filters()) == 1 else None
