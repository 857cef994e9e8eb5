"""Comparisons from database rows and decoder files."""

import asyncio
from typing import Any

import numpy as np
from sqlalchemy.ext.asyncio import AsyncConnection

from app import urls
from app.errors import SaescopeError
from app.store import queries as q
from app.store.decoders import Decoder
from app.store.matching import Nearest, cosine
from app.store.tables import NEAR, RANDOM, TOP
from app.subject.tokens import Vocabulary
from app.web import build
from app.web import compare_contexts as k
from app.web.formats import measured, sig, thousands
from app.web.metric_names import METRICS, measured_over
from app.web.state import State

TOP_EXAMPLES, CLOSE = 5, 0.7
Feature = tuple[q.SAERecord, int]


async def compare_features(state: State, db: AsyncConnection, first: Feature, second: Feature) -> k.FeatureComparison:
    """Five queries at most: two a side, beside those that found the SAEs."""
    found, sides = [], []
    for sae, index in (first, second):
        latent = await q.get_latent(db, sae, index)
        if latent is None:
            raise build.out_of_range(sae, index)
        examples = await q.get_examples(db, sae, index)
        found.append((latent, examples))
        sides.append(side(sae, latent, examples, await state.vocabulary(sae)))
    (a, a_examples), (b, b_examples) = found
    sae, other = first[0], second[0]
    value, cosine_note = await decoder_cosine(state, (sae, a), (other, b))
    phi, together, phi_note = coactivation(sae, a, other, b)
    shared = None
    if sae.corpus_id == other.corpus_id:
        shared = shared_contexts(a_examples, b_examples, await state.vocabulary(sae))
    return k.FeatureComparison(
        a=sides[0],
        b=sides[1],
        cosine=value,
        cosine_note=cosine_note,
        phi=phi,
        together=together,
        phi_note=phi_note,
        shared=shared,
    )


def side(
    sae: q.SAERecord, latent: q.LatentRecord, examples: list[q.ExampleRecord], vocabulary: Vocabulary
) -> k.FeatureSide:
    top = sorted((e for e in examples if e.interval == TOP), key=lambda e: -abs(e.activation))
    return k.FeatureSide(
        sae=sae.slug,
        revision=sae.revision,
        subject=sae.subject,
        feature=build.row(sae, latent),
        label_score=latent.label_score,
        fired=latent.fired,
        counted=sae.tokens,
        mean=build.known(latent.mean),
        std=build.known(latent.std),
        tokens=[vocabulary.text(i) for i in (latent.token_probability_ids or [])[:8]],
        promoted=[vocabulary.text(i) for i in latent.promoted_ids[:8]],
        examples=[build.example(e, vocabulary) for e in top[:TOP_EXAMPLES]],
    )


def shared_contexts(
    a: list[q.ExampleRecord], b: list[q.ExampleRecord], vocabulary: Vocabulary
) -> list[k.SharedContext]:
    """Sequences in which both fire, by the weaker one's share of its own maximum, the strongest first."""
    left, right = by_sequence(a), by_sequence(b)
    peaks = [max((abs(e.activation) for e in side.values()), default=1.0) for side in (left, right)]

    def both(sequence: int) -> float:
        return min(abs(left[sequence].activation) / peaks[0], abs(right[sequence].activation) / peaks[1])

    return [
        k.SharedContext(
            sequence=sequence,
            document=left[sequence].document,
            a=build.example(left[sequence], vocabulary),
            b=build.example(right[sequence], vocabulary),
        )
        for sequence in sorted(left.keys() & right.keys(), key=lambda s: (-both(s), s))
    ]


def by_sequence(examples: list[q.ExampleRecord]) -> dict[int, q.ExampleRecord]:
    """Each sequence's strongest example; those where the latent is silent are left out."""
    found: dict[int, q.ExampleRecord] = {}
    for example in examples:
        if example.interval in (RANDOM, NEAR):
            continue
        known = found.get(example.sequence_id)
        if known is None or abs(example.activation) > abs(known.activation):
            found[example.sequence_id] = example
    return found


async def decoder_cosine(
    state: State, a: tuple[q.SAERecord, q.LatentRecord], b: tuple[q.SAERecord, q.LatentRecord]
) -> tuple[float | None, str]:
    """The cosine and how it came about, or None and why there is none."""
    (sae, left), (other, right) = a, b
    if sae.id == other.id:
        for one, index in ((left, right.index), (right, left.index)):
            if index in one.neighbour_ids:
                return one.neighbour_cosines[one.neighbour_ids.index(index)], "among the stored decoder neighbours"
    if sae.subject != other.subject:
        return None, f"the SAEs read different subjects, {sae.subject} and {other.subject}"
    home = state.settings.home

    def read() -> tuple[float | None, str]:
        x, y = Decoder(home / sae.path, sae.n_latents), Decoder(home / other.path, other.n_latents)
        if x.d != y.d:
            return None, f"the decoders write {x.d} and {y.d} wide"
        value = cosine(x.rows(left.index, left.index + 1)[0], y.rows(right.index, right.index + 1)[0])
        return value, "computed from the decoders" if value is not None else "a decoder row is zero"

    try:
        value, note = await asyncio.to_thread(read)
    except SaescopeError as error:
        return None, error.message.rstrip(".")
    if value is not None and sae.writes != other.writes:
        note += "; the SAEs write at different places of the subject"
    return value, note


def coactivation(
    sae: q.SAERecord, a: q.LatentRecord, other: q.SAERecord, b: q.LatentRecord
) -> tuple[float | None, int | None, str]:
    """phi, at how many positions both fire, and over what; or None, None and why."""
    if sae.id != other.id:
        return None, None, "firings together are counted within one SAE only"
    if a.index == b.index:
        return 1.0, a.fired, "a feature with itself"
    if a.coactive_ids is None or b.coactive_ids is None:
        return None, None, "this harvest is older than that statistic; harvest the SAE again"
    for one, index in ((a, b.index), (b, a.index)):
        if index in (one.coactive_ids or []):
            place = (one.coactive_ids or []).index(index)
            over = f"over {thousands(sae.facts['coactivation_positions'])} tokens"
            return (one.coactive_phi or [])[place], (one.coactive_together or [])[place], over
    return None, None, "not among the co-active ones kept"


def metric_pairs(a: q.SAERecord, b: q.SAERecord) -> list[k.MetricPair]:
    pairs = []
    for name, title in METRICS.items():
        x, y = a.metrics.get(name), b.metrics.get(name)
        over = measured_over(name)
        notes = [measured(None, sae.metrics.get(over)) if value is None else None for sae, value in ((a, x), (b, y))]
        delta = None if x is None or y is None else y - x
        pairs.append(k.MetricPair(name=title, a=x, b=y, delta=delta, a_note=notes[0], b_note=notes[1]))
    dead = a.dead / a.n_latents, b.dead / b.n_latents
    return [*pairs, k.MetricPair(name="Dead", a=dead[0], b=dead[1], delta=dead[1] - dead[0])]


def fact_pairs(a: q.SAERecord, b: q.SAERecord) -> list[k.FactPair]:
    """Parameters of SAE and harvest, those that differ first."""
    left, right = _facts(a), _facts(b)
    pairs = [
        k.FactPair(name=name, a=left.get(name, "–"), b=right.get(name, "–"), same=left.get(name) == right.get(name))
        for name in dict.fromkeys([*left, *right])
    ]
    return sorted(pairs, key=lambda pair: pair.same)


def _facts(sae: q.SAERecord) -> dict[str, str]:
    facts: dict[str, Any] = {
        "Subject": sae.subject, "Reads": ", ".join(sae.reads), "Writes": ", ".join(sae.writes),
        "Architecture": sae.architecture, "d_in": sae.d_in, "Latents": sae.n_latents,
        "Signed": "yes" if sae.signed else "no", **sae.config, "Corpus": sae.corpus,
        "Corpus SHA-256": sae.corpus_sha256[:16], "Tokens": sae.tokens, "Context": sae.corpus_context,
        "Weights SHA-256": sae.sha256[:16], **{f"harvest {name}": value for name, value in sae.parameters.items()},
    }  # fmt: skip
    return {name: _told(value) for name, value in facts.items()}


def _told(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "–"}[value]
    return thousands(value) if isinstance(value, int) else sig(value) if isinstance(value, float) else str(value)


async def compare_saes(state: State, a: q.SAERecord, b: q.SAERecord, top: int) -> k.SAEComparison:
    matching, note, changes = None, "", None
    if a.sha256 == b.sha256 and a.n_latents == b.n_latents:
        note = "They have the same weights, so every feature is its own match."
        changes = await _changes(state, a, b, top) if a.id != b.id else []
    elif a.subject != b.subject:
        note = f"They read different subjects, {a.subject} and {b.subject}, so no cosine between them is defined."
    else:
        try:
            found = await state.matches.get(a, b, state.settings.home)
            matching = await _matching(state, a, b, found, top)
        except SaescopeError as error:
            if error.status >= 500:
                raise
            note = error.message
    return k.SAEComparison(
        a=_side(a),
        b=_side(b),
        metrics=metric_pairs(a, b),
        facts=fact_pairs(a, b),
        matching=matching,
        matching_note=note,
        changes=changes,
    )


async def _changes(state: State, a: q.SAERecord, b: q.SAERecord, top: int) -> list[k.Change]:
    """Latents by the ratio of their densities, the most unequal first. Where one is 0, it counts as half a token."""
    async with state.database.connect() as db:
        densities = [
            np.log(np.maximum((await state.scale(db, sae)).density.astype(np.float64), 0.5 / max(1, sae.tokens)))
            for sae in (a, b)
        ]
        order: list[int] = np.argsort(-np.abs(densities[0] - densities[1]), kind="stable")[:top].tolist()
        left, right = [await q.get_summaries(db, sae.id, order) for sae in (a, b)]
    return [k.Change(a=build.row(a, left[i]), b=build.row(b, right[i])) for i in order]


def _side(sae: q.SAERecord) -> k.SAESide:
    return k.SAESide(
        sae=sae.slug,
        revision=sae.revision,
        address=sae.address,
        url=urls.sae(sae.address),
        n_latents=sae.n_latents,
        dead=sae.dead,
        metrics=build.metrics(sae),
    )


async def _matching(state: State, a: q.SAERecord, b: q.SAERecord, found: Nearest, top: int) -> k.Matching:
    pairs = found.mutual()
    async with state.database.connect() as db:
        alive_a, alive_b = [(await state.scale(db, sae)).density > 0 for sae in (a, b)]
        far_a = _far(found.cosine_b, pairs[:, 0], alive_a)
        far_b = _far(found.cosine_a, pairs[:, 1], alive_b)
        shown, lone_a, lone_b = pairs[:top].tolist(), far_a[:top].tolist(), far_b[:top].tolist()
        wanted_a = [*(x for x, _ in shown), *lone_a, *found.to_a[lone_b].tolist()]
        wanted_b = [*(y for _, y in shown), *lone_b, *found.to_b[lone_a].tolist()]
        rows_a = {i: build.row(a, x) for i, x in (await q.get_summaries(db, a.id, wanted_a)).items()}
        rows_b = {i: build.row(b, x) for i, x in (await q.get_summaries(db, b.id, wanted_b)).items()}
    return k.Matching(
        mutual=[k.Match(a=rows_a[x], b=rows_b[y], cosine=float(found.cosine_b[x])) for x, y in shown],
        mutual_count=len(pairs),
        close=int((found.cosine_b[pairs[:, 0]] >= CLOSE).sum()),
        mean_a=float(found.cosine_b.mean()),
        mean_b=float(found.cosine_a.mean()),
        unmatched_a=[
            k.Lonely(feature=rows_a[x], nearest=rows_b[int(found.to_b[x])], cosine=float(found.cosine_b[x]))
            for x in lone_a
        ],
        unmatched_a_count=len(far_a),
        unmatched_b=[
            k.Lonely(feature=rows_b[y], nearest=rows_a[int(found.to_a[y])], cosine=float(found.cosine_a[y]))
            for y in lone_b
        ],
        unmatched_b_count=len(far_b),
    )


def _far(cosines: Any, matched: Any, alive: Any) -> Any:
    """Latents that fire and are in no mutual pair, those with the least cosine to any other first."""
    lone = alive.copy()
    lone[matched] = False
    index = np.flatnonzero(lone)
    return index[np.argsort(cosines[index], kind="stable")]
