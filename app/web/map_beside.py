"""Two maps side by side: which the second is, and where on it the counterparts are of what is marked on the first."""

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncConnection

from app import urls
from app.errors import SaescopeError, UnknownMap
from app.store import map_places as p
from app.store import maps as m
from app.store import queries as q
from app.store.map_bulk import ClusterRow
from app.store.plain import storable
from app.web import map_build
from app.web import map_contexts as c
from app.web.state import State

LISTED = 50
LINES = 200
Counterparts = Mapping[int, tuple[int, float | None]]  # by latent: the other map's, and their decoder cosine


@dataclass(frozen=True)
class Shown:
    """A map as a page shows it."""

    sae: q.SAERecord
    record: m.MapRecord
    clusters: list[ClusterRow]

    @property
    def points(self) -> p.OnMap:
        return p.OnMap(self.sae.id, self.record.id)


async def second(
    db: AsyncConnection, first: q.SAERecord, maps: list[m.MapRecord], shown: m.MapRecord, named: str
) -> Shown:
    """The map that ``named`` is the version of, the SAE's own before another's; or, where it is an SAE, the one of its
    maps that shares the frame of ``shown``, else its first.

    Raises:
        UnknownMap, UnknownSAE: there is none.
    """
    sae, record = first, next((one for one in maps if one.version == named), None)
    if record is None:
        address = await m.whose(db, storable(named)) or named
        sae = await q.get_sae(db, address)
        theirs = await m.list_maps(db, sae.id)
        wanted = [one for one in theirs if one.version == named] or [
            one for one in theirs if shown.together and one.together == shown.together
        ]
        record = next(iter(wanted or theirs), None)
    if record is None:
        raise UnknownMap(f"{sae.address} has no map; 'saescope map {sae.slug}' makes one.", sae=sae.address)
    return Shown(sae, record, await m.get_clusters(db, record.id))


def others(sae: q.SAERecord, maps: list[m.MapRecord], shown: m.MapRecord, near: list[m.Neighbour]) -> list[c.MapOther]:
    """What can stand beside ``shown``, what shares its frame first."""
    own = [
        c.MapOther(value=one.version, name=map_build.name_of(one.method, one.on, one.beside), aligned=False)
        for one in maps
        if one is not shown
    ]
    theirs = [
        c.MapOther(
            value=one.slug if one.slug != sae.slug else f"{one.slug}@{one.revision}",
            name=one.slug if one.slug != sae.slug else f"{one.slug}@{one.revision}",
            aligned=shown.together in one.together,
        )
        for one in near
    ]
    return sorted([*own, *theirs], key=lambda one: not one.aligned)


async def counterparts(state: State, left: Shown, right: Shown, *, of_right: bool) -> Counterparts | None:
    """Of the left map's latents, or of the right one's; None where both are of the same weights, and each latent is its
    own.

    Raises:
        DecoderUnavailable, TooLarge: they cannot be matched; says why.
    """
    if left.sae.sha256 == right.sae.sha256:
        return None
    found = await state.matches.get(left.sae, right.sae, state.settings.home)
    pairs = found.mutual().tolist()
    cosines = found.cosine_b
    near = [(a, b, float(cosines[a])) for a, b in pairs if cosines[a] > 0]
    return {b: (a, cosine) for a, b, cosine in near} if of_right else {a: (b, cosine) for a, b, cosine in near}


async def beside(
    db: AsyncConnection,
    state: State,
    query: c.MapQuery,
    left: Shown,
    right: Shown,
    found: c.MapFound | None,
    spot: c.MapSpot | None,
    lit: c.MapFound | None,
) -> tuple[c.MapBeside, str | None]:
    """``found`` and ``spot`` are of the map on ``query.side``; ``lit``: what fires on a text there and here, where the
    two SAEs differ. And what could not be done."""
    of_right = query.side == "right"
    there = left if of_right else right
    told: str | None = None
    partners: Counterparts | None = {}
    try:
        partners = await counterparts(state, left, right, of_right=of_right)
    except SaescopeError as error:
        told = error.message
    marked = found.marks.latents if found else []
    wanted = [(one, *_partner(partners, one)) for one in marked]
    places = await p.places(db, there.points, [two for _, two, _ in wanted if two is not None])
    kept = [(one, two, cosine) for one, two, cosine in wanted if two is not None and two in places]
    marks, items = None, []
    if found is not None:
        values = None
        if found.marks.values is not None:
            by_latent = dict(zip(found.marks.latents, found.marks.values, strict=True))
            values = [by_latent[one] for one, _, _ in kept]
        here = [places[two] for _, two, _ in kept]
        marks = c.MapMarks(
            latents=[o.latent for o in here], x=[o.x for o in here], y=[o.y for o in here], values=values
        )
    if partners is not None:
        items = await _items(db, there, kept[:LISTED])
    if lit is not None:
        marks = lit.marks
    held, cosine = None, None
    if spot is not None:
        two, cosine = _partner(partners, spot.index)
        rows = [] if two is None else await p.spots(db, there.sae.id, there.record.id, there.record.on, two)
        held = map_build.spot(there.sae, there.record, rows, there.clusters) if rows else None
    made = c.MapBeside(
        sae=right.sae.slug, revision=right.sae.revision, address=right.sae.address,
        map=map_build.whole(right.sae, right.record, right.clusters), same=partners is None,
        aligned=left.record.together is not None and left.record.together == right.record.together,
        marks=marks, of=[] if lit else [one for one, _, _ in kept], matched=len(kept), items=items, spot=held,
        cosine=cosine, pairs=await _pairs(db, query, left, right, partners, kept, found, spot),
        alone=urls.map_page(right.sae.address, map=right.record.version),
    )  # fmt: skip
    return made, told


def _partner(partners: Counterparts | None, latent: int) -> tuple[int | None, float | None]:
    if partners is None:
        return latent, None
    return partners.get(latent, (None, None))


async def _items(db: AsyncConnection, there: Shown, kept: list[tuple[int, int, float | None]]) -> list[c.MapMatch]:
    rows = await q.get_summaries(db, there.sae.id, [two for _, two, _ in kept]) if kept else {}
    return [
        c.MapMatch(
            of=one, index=two, label=rows[two].label, url=urls.feature(there.sae.address, two), cosine=cosine or 0.0
        )
        for one, two, cosine in kept
        if two in rows
    ]


async def _pairs(
    db: AsyncConnection,
    query: c.MapQuery,
    left: Shown,
    right: Shown,
    partners: Counterparts | None,
    kept: list[tuple[int, int, float | None]],
    found: c.MapFound | None,
    spot: c.MapSpot | None,
) -> list[c.MapPair]:
    """Those to draw lines between: of what is marked or held, else the closest."""
    if not query.lines:
        return []
    if spot is not None:
        two, cosine = _partner(partners, spot.index)
        kept = [] if two is None else [(spot.index, two, cosine)]
    elif found is None:
        every = ((one, two, cosine) for one, (two, cosine) in (partners or {}).items())
        kept = sorted(every, key=lambda pair: -(pair[2] or 0.0))
    kept = kept[:LINES]
    if query.side == "right":
        kept = [(two, one, cosine) for one, two, cosine in kept]
    here = await p.places(db, left.points, [one for one, _, _ in kept])
    there = await p.places(db, right.points, [two for _, two, _ in kept])
    return [
        c.MapPair(left=one, right=two, cosine=cosine, x=here[one].x, y=here[one].y, x2=there[two].x, y2=there[two].y)
        for one, two, cosine in kept
        if one in here and two in there
    ]
