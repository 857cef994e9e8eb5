"""Items of lists as pages show them: each with what is here of it, or why it is not."""

from collections.abc import Sequence
from dataclasses import replace

from sqlalchemy.ext.asyncio import AsyncConnection

from app import urls
from app.errors import SaescopeError
from app.store import glimpses, listed
from app.store import queries as q
from app.store.lists import ItemRecord, ListRecord
from app.store.queries import SAERecord
from app.store.references import Feature, Reference, Region, Run, parse
from app.subject.tokens import Vocabulary
from app.web import build
from app.web import list_contexts as c
from app.web.features import Vocabularies

NAMED = 80  # characters of a run's text, which it goes by


async def shown(vocabulary: Vocabularies, db: AsyncConnection, items: Sequence[ItemRecord]) -> list[c.Listed]:
    """In at most four queries, whatever the items are."""
    wanted = [parse(item.reference) for item in items]
    named = list(dict.fromkeys((one.slug, one.revision) for one in wanted if not isinstance(one, Run)))
    saes, newest = await q.find_named(db, named)
    features = [one for one in wanted if isinstance(one, Feature) and (one.slug, one.revision) in saes]
    latents = await glimpses.get_shown(db, [(saes[one.slug, one.revision].id, one.index) for one in features])
    runs = await listed.get_runs(db, [one.name for one in wanted if isinstance(one, Run)])
    regions = await listed.get_regions(db, [one for one in wanted if isinstance(one, Region)])
    out = []
    for item, one in zip(items, wanted, strict=True):
        match one:
            case Feature():
                sae = saes.get((one.slug, one.revision))
                words = await _vocabulary(vocabulary, sae)
                latent = latents.get((sae.id, one.index)) if sae else None
                out.append(_feature(item, one, sae, newest.get(one.slug), latent, words))
            case Run():
                out.append(_run(item, one, runs.get(one.name)))
            case Region():
                out.append(_region(item, one, (one.slug, one.revision) in saes, regions.get(one)))
    return out


async def labelled(db: AsyncConnection, items: Sequence[ItemRecord]) -> list[ItemRecord]:
    """With the beginning of its text for each run that is shown to whoever asks; lists keep none of it."""
    named = {item.id: one.name for item in items if isinstance(one := parse(item.reference), Run)}
    runs = await listed.get_runs(db, list(named.values()))
    texts = {item: runs[name].text[:NAMED] for item, name in named.items() if name in runs}
    return [replace(item, label=texts.get(item.id, item.label)) for item in items]


async def _vocabulary(known: Vocabularies, sae: SAERecord | None) -> Vocabulary | None:
    """None where the subject's files are gone: labels are shown all the same."""
    try:
        return await known(sae) if sae else None
    except SaescopeError:
        return None


def named(item: ItemRecord, kind: c.Kind, reference: Reference) -> c.Listed:
    return c.Listed(
        id=item.id, kind=kind, reference=str(reference), label=item.label, comment=item.comment, tags=item.tags,
        added=item.added, url=None, gone=None, newer=None, newer_says=None,
    )  # fmt: skip


def _feature(
    item: ItemRecord, one: Feature, sae: SAERecord | None, newest: SAERecord | None, latent: glimpses.Shown | None,
    vocabulary: Vocabulary | None,
) -> c.Listed:  # fmt: skip
    out = named(item, "feature", one)
    if newest is not None and newest.revision != one.revision and one.index < newest.n_latents:
        out.newer = urls.feature(newest.slug, one.index)
        if sae is None:
            out.newer_says = "it may be another feature"
        else:
            same = sae.sha256 == newest.sha256
            out.newer_says = "the same feature, harvested again" if same else "another feature, of other weights"
    if sae is None:
        out.gone = f"{one.slug}@{one.revision} is not here."
        return out
    if latent is None:
        out.gone = f"{one.slug}@{one.revision} has no feature {one.index}."
        return out
    summary, strongest = latent.latent, latent.strongest
    out.url = urls.feature(sae.address, one.index)
    out.label = summary.label
    out.feature = c.ListedFeature(
        sae=one.slug, revision=one.revision, index=one.index, label=summary.label, label_source=summary.label_source,
        label_score=latent.label_score, density=summary.density, max=summary.maximum, min=summary.minimum,
        example=build.glimpse(strongest, summary, vocabulary) if strongest and vocabulary else None,
    )  # fmt: skip
    return out


def _run(item: ItemRecord, one: Run, kept: listed.KeptRun | None) -> c.Listed:
    out = named(item, "run", one)
    if kept is None:
        out.gone = f"Run {one.name} is not here."
        return out
    out.url, out.label = urls.inspect(one.name), kept.text[:NAMED]
    out.run = c.ListedRun(
        run=one.name, subject=kept.subject, text=kept.text, length=kept.length, saes=kept.saes, made=kept.made
    )
    return out


def _region(item: ItemRecord, one: Region, there: bool, kept: listed.KeptRegion | None) -> c.Listed:
    out = named(item, "region", one)
    if kept is None:
        missing = f"its map {one.version} is not here any more" if there else "is not here"
        out.gone = f"{one.slug}@{one.revision}{':' if there else ''} {missing}."
        return out
    out.url, out.label = urls.map_group(f"{one.slug}@{one.revision}", one.version, one.level, one.id), kept.name
    out.region = c.ListedRegion(
        sae=one.slug, revision=one.revision, map=one.version, level=one.level, region=one.id, method=kept.method,
        on=kept.on, name=kept.name, terms=kept.terms, size=kept.size,
    )  # fmt: skip
    return out


def summary(record: ListRecord) -> dict[str, object]:
    """The fields of a ListSummary."""
    names = ("title", "description", "tags", "author", "visibility", "made", "changed", "count")
    return {**{name: getattr(record, name) for name in names}, "name": record.slug, "url": urls.list_page(record.slug)}
