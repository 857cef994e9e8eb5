"""Database rows to page contexts."""

import math
import re

import numpy as np

from app import urls
from app.errors import LatentOutOfRange
from app.store.browse import BrowseRecord
from app.store.glimpses import Companion
from app.store.overviews import Overview
from app.store.queries import ExampleRecord, LatentRecord, LatentSummary, SAERecord
from app.store.tables import NEAR, RANDOM, TOP
from app.subject.tokens import Vocabulary
from app.web import contexts as c
from app.web import evaluation_build
from app.web.explain_build import sae_scores
from app.web.explain_contexts import Explanation
from app.web.unvalidated import unvalidated

INTERVALS = {TOP: "top", RANDOM: "random", NEAR: "near"}
BINS_PER_OCTAVE, LOWEST_OCTAVE = 8, -12
GLIMPSE = 10  # tokens on either side of the peak


def metrics(sae: SAERecord) -> c.Metrics:
    return c.Metrics(**sae.metrics)


def harvest(sae: SAERecord) -> c.Harvest:
    skipped = sae.facts.get("skipped", {})
    return c.Harvest(
        corpus=sae.corpus,
        corpus_sha256=sae.corpus_sha256,
        tokens=sae.tokens,
        sequences=sae.corpus_sequences,
        documents=sae.corpus_documents,
        context=sae.corpus_context,
        seconds=round(sae.seconds, 2),
        tokens_per_second=round(sae.tokens / max(sae.seconds, 1e-9), 1),
        finished=sae.finished.isoformat(timespec="seconds"),
        subject_dtype=str(sae.parameters["dtype"]),
        skipped=skipped.get("count", 0),
        skipped_named=[f"{name} ({reason})" for name, reason in skipped.get("named", [])],
        halved=bool(sae.facts.get("halved")),
        imported=c.Imported(**told) if (told := sae.facts.get("imported")) else None,
    )


def known(number: float) -> float | None:
    return None if math.isnan(number) else number


def card(sae: SAERecord) -> c.SAECard:
    return c.SAECard(
        slug=sae.slug,
        revision=sae.revision,
        subject=sae.subject,
        hook=", ".join(sae.reads),
        layer=layer_of(sae.reads[0]) if sae.reads else None,
        architecture=sae.architecture,
        d_in=sae.d_in,
        n_latents=sae.n_latents,
        dead=sae.dead,
        metrics=metrics(sae),
        corpus=sae.corpus,
        tokens=sae.tokens,
        url=urls.sae(sae.slug),
    )


def layer_of(hook: str) -> int | None:
    """9 of ``model.layers.9:out``."""
    found = re.search(r"\.(\d+)(?=[.:]|$)", hook)
    return int(found[1]) if found else None


def sae_page(sae: SAERecord, overview: Overview) -> c.SAEPage:
    return c.SAEPage(
        sae=sae.slug,
        revision=sae.revision,
        address=sae.address,
        subject=sae.subject,
        reads=sae.reads,
        writes=sae.writes,
        architecture=sae.architecture,
        d_in=sae.d_in,
        n_latents=sae.n_latents,
        extra={k: v for k, v in sae.config.items() if isinstance(v, int | float | str)},
        weights_sha256=sae.sha256,
        alive=sae.n_latents - sae.dead,
        dead=sae.dead,
        metrics=metrics(sae),
        harvest=harvest(sae),
        density_histogram=c.Histogram(edges=sae.density_edges, counts=sae.density_counts),
        revisions=[
            c.Revision(
                revision=r.revision,
                corpus=r.corpus,
                tokens=r.tokens,
                finished=r.finished.isoformat(timespec="seconds"),
                url=urls.sae(f"{sae.slug}@{r.revision}"),
            )
            for r in overview.revisions
        ],
        scores=sae_scores(overview.summaries),
        evaluations=evaluation_build.summaries(sae, overview.evaluations),
    )


def row(sae: SAERecord, latent: LatentSummary | LatentRecord | BrowseRecord) -> c.LatentRow:
    return c.LatentRow(
        index=latent.index,
        label=latent.label,
        label_source=latent.label_source,
        density=latent.density,
        max=latent.maximum,
        min=latent.minimum,
        url=urls.feature(sae.address, latent.index),
    )


def out_of_range(sae: SAERecord, index: int) -> LatentOutOfRange:
    return LatentOutOfRange(
        f"{sae.slug} has no feature {index}; its features are 0 to {sae.n_latents - 1}.",
        index=index,
        first=0,
        last=sae.n_latents - 1,
    )


def histogram(latent: LatentRecord) -> c.Histogram:
    """Bins of equal ratio over |activation|; for a signed latent the negative ones come first, edges falling to
    the most negative."""
    edges = 2.0 ** ((np.arange(len(latent.histogram) + 1) + latent.histogram_first) / BINS_PER_OCTAVE + LOWEST_OCTAVE)
    if not sum(latent.histogram_negative):
        return c.Histogram(edges=edges.tolist() if latent.histogram else [0.0, 1.0], counts=latent.histogram or [0])
    both = [*(-edges[::-1]).tolist(), *edges.tolist()]
    return c.Histogram(edges=both, counts=[*latent.histogram_negative[::-1], 0, *latent.histogram])


def example(record: ExampleRecord, vocabulary: Vocabulary) -> c.Example:
    # Built without validation: a page has sixty of these with 64 values each, all from typed rows.
    return unvalidated(
        c.Example,
        interval=INTERVALS.get(record.interval, str(record.interval)),
        sign=record.sign,
        rank=record.rank,
        tokens=vocabulary.pieces(record.token_ids),
        token_ids=record.token_ids,
        activations=record.activations,
        position=record.position - record.start,
        activation=record.activations[record.position - record.start],
        document=record.document,
        sequence=record.sequence_id,
        start=record.start,
    )


def token_logits(ids: list[int], logits: list[float], vocabulary: Vocabulary) -> list[c.TokenLogit]:
    return [c.TokenLogit(token=vocabulary.text(i), token_id=i, logit=x) for i, x in zip(ids, logits, strict=True)]


def feature_page(
    sae: SAERecord,
    latent: LatentRecord,
    examples: list[ExampleRecord],
    company: dict[int, Companion],
    explanations: list[Explanation],
    vocabulary: Vocabulary,
) -> c.FeaturePage:
    """company: its neighbours and co-active latents."""
    others = {i: other.latent for i, other in company.items()}
    glimpses = {i: glimpse(x.strongest, x.latent, vocabulary) for i, x in company.items() if x.strongest is not None}
    return c.FeaturePage(
        sae=sae.slug,
        revision=sae.revision,
        address=sae.address,
        index=latent.index,
        n_latents=sae.n_latents,
        label=latent.label,
        label_source=latent.label_source,
        label_score=latent.label_score,
        density=latent.density,
        fired=latent.fired,
        counted=sae.tokens,
        max=latent.maximum,
        min=latent.minimum,
        mean=known(latent.mean),
        std=known(latent.std),
        decoder_norm=latent.decoder_norm,
        encoder_decoder_cosine=known(latent.encoder_decoder_cosine),
        head_shares=latent.head_shares,
        histogram=histogram(latent),
        promoted=token_logits(latent.promoted_ids, latent.promoted_logits, vocabulary),
        suppressed=token_logits(latent.suppressed_ids, latent.suppressed_logits, vocabulary),
        neighbours=[
            c.Neighbour(
                index=i, cosine=x, label=others[i].label, url=urls.feature(sae.address, i), example=glimpses.get(i)
            )
            for i, x in zip(latent.neighbour_ids, latent.neighbour_cosines, strict=True)
            if i in others
        ],
        usage=usage(sae, latent, others, glimpses, vocabulary),
        examples=[example(record, vocabulary) for record in examples],
        explanations=explanations,
        subject=sae.subject,
        architecture=sae.architecture,
        harvest=harvest(sae),
    )


def glimpse(record: ExampleRecord, latent: LatentSummary | LatentRecord, vocabulary: Vocabulary) -> c.Glimpse:
    peak = record.position - record.start
    first, last = max(0, peak - GLIMPSE), peak + GLIMPSE + 1
    return unvalidated(
        c.Glimpse,
        tokens=vocabulary.pieces(record.token_ids[first:last]),
        activations=record.activations[first:last],
        position=peak - first,
        maximum=max(latent.maximum, -latent.minimum),
    )


def usage(
    sae: SAERecord,
    latent: LatentRecord,
    others: dict[int, LatentSummary],
    glimpses: dict[int, c.Glimpse],
    vocabulary: Vocabulary,
) -> c.Usage | None:
    if latent.place_counts is None:
        return None
    facts = sae.facts
    positions = facts["place_positions"]
    by_mean = zip(latent.token_mean_ids or [], latent.token_mean_values or [], strict=True)
    by_probability = zip(
        latent.token_probability_ids or [],
        latent.token_probability_values or [],
        latent.token_probability_seen or [],
        strict=True,
    )
    company = zip(latent.coactive_ids or [], latent.coactive_phi or [], latent.coactive_together or [], strict=True)
    most = zip(latent.document_names or [], latent.document_fires or [], strict=True)
    sequences = max(1, facts["sequences"])
    return c.Usage(
        profile=c.Profile(
            edges=facts["place_edges"],
            shares=[count / max(1, n) for count, n in zip(latent.place_counts, positions, strict=True)],
            first=(latent.first_fired or 0) / sequences,
            last=(latent.last_fired or 0) / sequences,
            sequences=facts["sequences"],
        ),
        tokens_by_mean=[c.TopToken(token=vocabulary.text(i), token_id=i, mean=x) for i, x in by_mean],
        tokens_by_probability=[
            c.TopToken(token=vocabulary.text(i), token_id=i, probability=x, seen=n) for i, x, n in by_probability
        ],
        token_counts_exact=facts["token_counts_exact"],
        coactive=[
            c.Coactive(
                index=i,
                phi=x,
                together=n,
                label=others[i].label,
                url=urls.feature(sae.address, i),
                example=glimpses.get(i),
            )
            for i, x, n in company
            if i in others
        ],
        coactive_exact=facts["coactivation_exact"],
        coactive_positions=facts["coactivation_positions"],
        documents=latent.documents or 0,
        top_documents=[c.DocumentFires(document=name, fires=n) for name, n in most if name is not None],
    )


def groups(page: c.FeaturePage) -> list[c.ExampleGroup]:
    """Per sign, positive first: top, then the tenths of that sign's range from the strongest down."""
    out = []
    of: dict[tuple[str, int], list[c.Example]] = {}
    for e in page.examples:
        of.setdefault((e.interval, 1 if e.interval in ("near", "random") else e.sign), []).append(e)
    for sign, peak in ((1, page.max), (-1, -page.min)):
        top = {(e.sequence, e.start) for e in of.get(("top", sign), ())}
        for name in ["top", *map(str, range(9, -1, -1))]:
            if mine := of.get((name, sign)):
                new = mine if name == "top" else [e for e in mine if (e.sequence, e.start) not in top]
                out.append(group(name, sign, peak, new, folded=len(mine) - len(new)))
    for name in ("near", "random"):
        if mine := of.get((name, 1)):
            out.append(group(name, 1, page.max, mine, folded=0))
    return out


def title(interval: str, sign: int) -> str:
    match interval:
        case "near":
            return "Near misses: its peak token without firing"
        case "random":
            return "Random contexts where it does not fire"
        case "top":
            return "Top activations" if sign > 0 else "Most negative activations"
    return f"{10 * int(interval)} to {10 * (int(interval) + 1)}% of the {'maximum' if sign > 0 else 'minimum'}"


def group(name: str, sign: int, peak: float, examples: list[c.Example], folded: int) -> c.ExampleGroup:
    low, high = (peak * int(name) / 10, peak * (int(name) + 1) / 10) if name.isdigit() else (None, None)
    return c.ExampleGroup(
        interval=name,
        sign=sign,
        title=title(name, sign),
        low=low,
        high=high,
        contexts=len(examples),
        examples=examples,
        folded=folded,
    )
