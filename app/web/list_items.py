"""Items as they are given, by forms, the API and files, as those a list keeps."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from app.errors import BadRequest
from app.store import tables as t
from app.store.glimpses import get_shown
from app.store.listed import get_regions, runs_there
from app.store.lists import ItemDraft
from app.store.queries import SAERecord, find_named
from app.store.references import Feature, Reference, Region, Run, parse, pinned
from app.web.list_contexts import ItemBody

_NEEDED = {"feature": ("sae", "index"), "run": ("run",), "region": ("sae", "map", "level", "region")}
_OF = {
    "feature": ("sae", "revision", "index"),
    "run": ("run",),
    "region": ("sae", "revision", "map", "level", "region"),
}
FIELDS = ("sae", "revision", "index", "run", "map", "level", "region")


def reference(item: ItemBody) -> Reference:
    """
    Raises:
        BadRequest: a field that its kind needs is missing, one that it has not is there, or one does not fit.
    """
    for name in FIELDS:
        value = getattr(item, name)
        if name in _NEEDED[item.kind] and value in (None, ""):
            raise BadRequest(f"A {item.kind} needs '{name}'.", field=name)
        if name not in _OF[item.kind] and value not in (None, ""):
            raise BadRequest(f"A {item.kind} has no '{name}'; it is {str(value)[:60]!r}.", field=name)
    address = f"{item.sae}@{item.revision}" if item.revision else item.sae
    match item.kind:
        case "feature":
            return parse(f"{address}/{item.index}")
        case "run":
            return parse(f"run/{item.run}")
        case "region":
            return parse(f"{address}/map/{item.map}/{item.level}/{item.region}")


def fields(one: Reference) -> dict[str, str | int]:
    """The reference as the fields of an ItemBody, ``kind`` first."""
    match one:
        case Feature():
            return {"kind": "feature", "sae": one.slug, "revision": one.revision, "index": one.index}
        case Run():
            return {"kind": "run", "run": one.name}
        case Region():
            return {
                "kind": "region", "sae": one.slug, "revision": one.revision, "map": one.version, "level": one.level,
                "region": one.id,
            }  # fmt: skip


async def drafts(db: AsyncConnection, items: Sequence[ItemBody], places: Sequence[str] = ()) -> list[ItemDraft]:
    """What a list keeps of ``items``: each with its revision and what it is called now, if it is here. places: where
    each stands in its file.

    Raises:
        BadRequest: one that does not fit, with its place; one that names a latent its SAE has not.
    """
    where = [*places] or [f"Item {number}" for number in range(1, len(items) + 1)]
    wanted = []
    for item, place in zip(items, where, strict=True):
        with _at(place):
            wanted.append(reference(item))
    found, labels = await _found(db, wanted, where)
    return [
        ItemDraft(
            str(one),
            labels.get(one, "") if isinstance(one, Run) and one in labels else labels.get(one) or item.label,
            item.comment,
            item.tags,
        )
        for one, item in zip(found, items, strict=True)
    ]


async def plain_drafts(db: AsyncConnection, wanted: Sequence[Reference], comment: str = "") -> list[ItemDraft]:
    """References alone; each gets ``comment``."""
    found, labels = await _found(db, wanted, [str(one) for one in wanted])
    return [ItemDraft(str(one), labels.get(one, ""), comment) for one in found]


async def _found(
    db: AsyncConnection, wanted: Sequence[Reference], where: Sequence[str]
) -> tuple[list[Reference], dict[Reference, str]]:
    """Each with its revision, and the name it goes by where it is here.

    Raises:
        BadRequest: a feature beyond its SAE's last one, or a revision left out of an SAE that is not here.
    """
    newest = await _newest(db, {one.slug for one in wanted if not isinstance(one, Run) and not one.revision})
    found = []
    for one, place in zip(wanted, where, strict=True):
        with _at(place):
            found.append(pinned(one, newest))
    features = [one for one in found if isinstance(one, Feature)]
    saes, _ = await find_named(db, list({(one.slug, one.revision) for one in features}))
    for one, place in zip(found, where, strict=True):
        if isinstance(one, Feature) and (sae := saes.get((one.slug, one.revision))) and one.index >= sae.n_latents:
            raise BadRequest(
                f"{place}: {one.slug}@{one.revision} has no feature {one.index}; its features are 0 to "
                f"{sae.n_latents - 1}.",
                index=one.index,
            )
    here = {_key(saes, one): one for one in features if (one.slug, one.revision) in saes}
    labels: dict[Reference, str] = {
        here[key]: latent.latent.label for key, latent in (await get_shown(db, list(here))).items()
    }
    runs = await runs_there(db, [one.name for one in found if isinstance(one, Run)])
    labels |= {Run(name): "" for name in runs}  # whoever may see it is told its text when the list is shown
    regions = await get_regions(db, [one for one in found if isinstance(one, Region)])
    return found, labels | {one: kept.name for one, kept in regions.items()}


async def _newest(db: AsyncConnection, slugs: set[str]) -> dict[str, str]:
    """The newest revision of those SAEs that are here."""
    if not slugs:
        return {}
    newest = select(func.max(t.sae.c.id)).where(t.sae.c.slug.in_(slugs)).group_by(t.sae.c.slug)
    query = select(t.sae.c.slug, t.sae.c.revision).where(t.sae.c.id.in_(newest))
    return {row.slug: row.revision for row in await db.execute(query)}


@contextmanager
def _at(place: str) -> Iterator[None]:
    """Refusals say where in the file, or in what was given, they are."""
    try:
        yield
    except BadRequest as error:
        raise BadRequest(f"{place}: {error.message}", **error.detail) from None


def _key(saes: dict[tuple[str, str], SAERecord], one: Feature) -> tuple[int, int]:
    return saes[one.slug, one.revision].id, one.index
