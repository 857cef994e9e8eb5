"""Two to eight SAEs side by side, from rows and matches to what the page and its twin hold."""

from collections.abc import Sequence

from sqlalchemy.ext.asyncio import AsyncConnection

from app import urls
from app.store import maps
from app.store import queries as q
from app.store.matching import Nearest
from app.web import build
from app.web import many_contexts as k
from app.web.compare_build import CLOSE
from app.web.contexts import Histogram, LatentRow
from app.web.formats import measured
from app.web.many_match import Outcast, Pairing, matched, outcasts, shared
from app.web.map_build import METHODS
from app.web.metric_names import BETTER, METRICS, is_better, measured_over
from app.web.state import State

AGAINST_L0 = ("fvu", "ce_recovered")
Rows = dict[tuple[int, int], LatentRow]  # by the SAE's place and the latent


async def compare_many(state: State, saes: Sequence[q.SAERecord], top: int) -> k.SAEsComparison:
    """Three queries, whatever the number of SAEs."""
    pairings = await matched(state, saes)
    common = shared(pairings, len(saes))
    known = {place for one in pairings if one.found is not None for place in (one.a, one.b)}
    alone: list[list[Outcast] | None] = [None] * len(saes)
    async with state.database.connect() as db:
        await state.scales(db, [saes[place] for place in known])
        for place in known:
            alone[place] = outcasts(pairings, place, (await state.scale(db, saes[place])).density > 0)
        pictured = await maps.first_maps(db, [sae.id for sae in saes])
        rows = await _rows(db, saes, alone, [] if common is None else common[0][:top].tolist(), top)
    return k.SAEsComparison(
        saes=[
            _sae(place, sae, saes[0], pictured.get(sae.id), pairings, alone[place], rows, top)
            for place, sae in enumerate(saes)
        ],
        metrics=metric_lines(saes),
        trade_offs=[trade_off(name, saes) for name in AGAINST_L0],
        pairs=[_pair(saes, one) for one in pairings],
        shared=None
        if common is None
        else [
            k.Shared(features=[rows[place, i] for place, i in enumerate(latents)], cosine=float(cosine))
            for latents, cosine in zip(common[0][:top].tolist(), common[1][:top], strict=True)
        ],
        shared_count=None if common is None else len(common[0]),
    )


async def _rows(
    db: AsyncConnection,
    saes: Sequence[q.SAERecord],
    alone: list[list[Outcast] | None],
    common: list[list[int]],
    top: int,
) -> Rows:
    wanted = {(place, latent) for latents in common for place, latent in enumerate(latents)}
    for place, outside in enumerate(alone):
        for one in (outside or [])[:top]:
            wanted |= {(place, one.latent), (one.sae, one.nearest)}
    order = sorted(wanted)
    found = await q.get_summaries_of(db, [(saes[place].id, latent) for place, latent in order])
    return {(place, i): build.row(saes[place], found[saes[place].id, i]) for place, i in order}


def _sae(
    place: int, sae: q.SAERecord, first: q.SAERecord, pictured: maps.MapRecord | None, pairings: list[Pairing],
    alone: list[Outcast] | None, rows: Rows, top: int,
) -> k.ComparedSAE:  # fmt: skip
    partners = [p.b if p.a == place else p.a for p in pairings if p.found is not None and place in (p.a, p.b)]
    return k.ComparedSAE(
        number=place + 1,
        sae=sae.slug,
        revision=sae.revision,
        address=sae.address,
        url=urls.sae(sae.address),
        subject=sae.subject,
        reads=sae.reads,
        architecture=sae.architecture,
        d_in=sae.d_in,
        n_latents=sae.n_latents,
        dead=sae.dead,
        corpus=sae.corpus,
        tokens=sae.tokens,
        metrics=build.metrics(sae),
        differs=differs(sae, first),
        densities=Histogram(edges=sae.density_edges, counts=sae.density_counts),
        map=None
        if pictured is None
        else k.ComparedMap(
            name=f"{METHODS[pictured.method]} of {pictured.on}",
            version=pictured.version,
            placed=pictured.placed,
            page=urls.map_page(sae.address, map=pictured.version),
            picture=urls.map_density(sae.address, pictured.version),
        ),
        matched_with=[partner + 1 for partner in partners],
        unmatched=None
        if alone is None
        else [
            k.Alone(
                feature=rows[place, one.latent],
                nearest=rows[one.sae, one.nearest],
                number=one.sae + 1,
                cosine=one.cosine,
            )
            for one in alone[:top]
        ],
        unmatched_count=None if alone is None else len(alone),
    )


def differs(sae: q.SAERecord, first: q.SAERecord) -> list[str]:
    """In what the metrics of ``sae`` were measured otherwise than those of ``first``."""
    subjects = [(one.subject_sha256 or one.subject, one.parameters.get("dtype")) for one in (sae, first)]
    texts = [(one.corpus_sha256, one.metrics.get("tokens")) for one in (sae, first)]
    found = {
        "subject": subjects[0] != subjects[1],
        "place": (sae.reads, sae.writes) != (first.reads, first.writes),
        "text": texts[0] != texts[1],
    }
    return [name for name, other in found.items() if other]


def metric_lines(saes: Sequence[q.SAERecord]) -> list[k.MetricLine]:
    lines = [_line(name, title, saes) for name, title in METRICS.items()]
    return [*lines, _line("dead", "Dead", saes)]


def _line(name: str, title: str, saes: Sequence[q.SAERecord]) -> k.MetricLine:
    values = [sae.dead / sae.n_latents if name == "dead" else sae.metrics.get(name) for sae in saes]
    first, cells = values[0], []
    for sae, value in zip(saes, values, strict=True):
        known = sae is not saes[0] and value is not None and first is not None
        cells.append(
            k.MetricCell(
                value=value,
                delta=value - first if known and value is not None and first is not None else None,
                better=is_better(BETTER[name], value, first)
                if known and value is not None and first is not None and not differs(sae, saes[0])
                else None,
                note=measured(None, sae.metrics.get(measured_over(name))) if value is None else None,
            )
        )
    return k.MetricLine(name=title, best=BETTER[name], cells=cells)


def trade_off(name: str, saes: Sequence[q.SAERecord]) -> k.TradeOff:
    """Sparsity against ``name``. On the front are those that no other beats in one and equals or beats in the other."""
    best = BETTER[name] or "higher"
    sign = 1 if best == "higher" else -1
    known = [
        (place, sae.metrics["l0"], sae.metrics[name])
        for place, sae in enumerate(saes)
        if sae.metrics.get("l0") is not None and sae.metrics.get(name) is not None
    ]
    alike = [(l0, sign * value) for place, l0, value in known if not differs(saes[place], saes[0])]

    def beaten(l0: float, good: float) -> bool:
        return any(x <= l0 and y >= good and (x, y) != (l0, good) for x, y in alike)

    points = [
        k.TradeOffPoint(
            number=place + 1,
            l0=l0,
            value=value,
            front=not differs(saes[place], saes[0]) and not beaten(l0, sign * value),
        )
        for place, l0, value in known
    ]
    return k.TradeOff(name=METRICS[name], best=best, points=points)


def _pair(saes: Sequence[q.SAERecord], one: Pairing) -> k.Pair:
    close, mean = _closeness(one.found, one.pairs[:, 0].tolist())
    return k.Pair(
        a=one.a + 1,
        b=one.b + 1,
        mutual=None if one.found is None else len(one.pairs),
        close=close,
        mean=mean,
        note=one.note,
        url=urls.compare(saes[one.a].address, saes[one.b].address),
    )


def _closeness(found: Nearest | None, latents: list[int]) -> tuple[int | None, float | None]:
    if found is None:
        return None, None
    cosines = found.cosine_b[latents]
    return int((cosines >= CLOSE).sum()), float(cosines.mean()) if len(cosines) else None
