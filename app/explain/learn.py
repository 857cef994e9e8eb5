"""From a sample to one rule for every latent and sign: candidates learned on train, chosen between on val."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from app.explain.contexts import BEFORE, SHAPE_AT, SHAPES, TOKEN, Contexts
from app.explain.grow import SMOOTH, Candidate, Grower, Patterns, joined, picked
from app.explain.many import Rules, is_in
from app.explain.match import Hits, Matcher
from app.explain.rules import Pattern, Rule, Topic
from app.explain.samples import Floats, Ints, Sampler, Split
from app.explain.topic import Topics, Words, topics, words_of
from app.harvest.labels import shown_token

PEAKS = 20  # the strongest windows of train, whose peaks' tokens are a candidate
MARGINS = {"tokens": 0.0, "peaks": 0.0, "before": 0.02, "topic": 0.15}  # F1 by which a kind must be better to be taken
Told = Callable[[int], str]


@dataclass(frozen=True, eq=False)
class Learned:
    """One rule a unit. kind: [units], places in KINDS_OF_RULE (-1: none); patterns: of all but topics, by unit, which
    begin at begin: [units + 1]; val_f1: [units], of windows; prior: [units], the share of train positions on which it
    fires."""

    kind: Ints
    patterns: Patterns
    begin: Ints
    topics: Topics | None
    words: Words | None
    val_f1: Floats
    prior: Floats

    def hits(self, matcher: Matcher, unit: int, on_topic: "Callable[[int], Ints] | None" = None) -> Hits:
        """Where the unit's rule fires; on_topic: the windows on a unit's topic."""
        if self.kind[unit] >= 0 and KINDS_OF_RULE[self.kind[unit]] == "topic":
            if on_topic is None or self.topics is None:
                raise ValueError("a topic needs on_topic")
            return matcher.in_windows(on_topic(unit), float(self.topics.p[unit]))
        return matcher.hits(self.patterns, slice(self.begin[unit], self.begin[unit + 1]))


KINDS_OF_RULE = ("tokens", "before", "peaks", "topic")


def active_pairs(sampler: Sampler, signs: int, split: Split) -> tuple[Ints, Ints]:
    """Units and the windows in which they are active, by unit."""
    units, windows = [], []
    for sign in range(signs):
        indptr, found = sampler.all_peaks(-1 if sign else 1, split)
        units.append(np.repeat(np.arange(len(indptr) - 1) * signs + sign, np.diff(indptr)))
        windows.append(found.window)
    unit, window = np.concatenate(units), np.concatenate(windows)
    order = np.argsort(unit, kind="stable")
    return unit[order], window[order]


def learn(contexts: Contexts, sampler: Sampler, text: Told, doing: Callable[[str], None]) -> Learned:
    doing("learning tokens and what comes before them")
    grower = Grower(contexts)
    made = {"tokens": grower.grow(TOKEN), "before": grower.grow(BEFORE)}
    made["peaks"] = Candidate(peak_tokens(contexts, sampler, grower, text), np.zeros(contexts.n_units))
    matcher = Matcher(contexts, sampler.grid, "val")
    pairs = active_pairs(sampler, contexts.signs, "val")
    f1 = {kind: window_f1(matcher, one.patterns, pairs, sampler, contexts.n_units) for kind, one in made.items()}
    doing("learning topics")
    words = words_of(sampler.codes, sampler.grid, text)
    found: Topics | None = None
    if words.texts:
        # No other unit could be better off with a topic: it fires in no window, or its best rule leaves too little.
        hope = np.max([f1[one] for one in made], axis=0) + MARGINS["topic"] < 1
        for split in ("train", "val"):
            hope &= np.bincount(active_pairs(sampler, contexts.signs, split)[0], minlength=contexts.n_units) > 0
        found = topics(words, sampler.grid, lambda split: active_pairs(sampler, contexts.signs, split), hope)
        f1["topic"] = np.where((found.word >= 0).any(1), found.f1, 0.0)
    doing("choosing rules")
    stacked = np.stack([f1.get(kind, np.zeros(contexts.n_units)) - MARGINS[kind] for kind in KINDS_OF_RULE])
    kind = stacked.argmax(0)
    f1_of = np.stack([f1.get(one, np.zeros(contexts.n_units)) for one in KINDS_OF_RULE])[kind, np.arange(len(kind))]
    parts = [
        picked(made[name].patterns, kind[made[name].patterns.unit] == number)
        for number, name in enumerate(KINDS_OF_RULE)
        if name in made
    ]
    patterns = _by_mass(contexts, joined(parts))
    has = np.zeros(contexts.n_units, bool)
    has[patterns.unit] = True
    if found is not None:
        has |= (kind == KINDS_OF_RULE.index("topic")) & (f1["topic"] > 0)
    kind = np.where(has, kind, -1)
    begin = np.searchsorted(patterns.unit, np.arange(contexts.n_units + 1))
    return Learned(kind, patterns, begin, found, words if found is not None else None, f1_of, grower.prior)


def window_f1(matcher: Matcher, patterns: Patterns, pairs: tuple[Ints, Ints], sampler: Sampler, n_units: int) -> Floats:
    """[units]: F1 of saying in which of the split's windows the latent is active."""
    begin = np.searchsorted(patterns.unit, np.arange(n_units + 1))
    rules, wide = Rules(matcher, patterns, begin), len(sampler.grid)
    active = pairs[0].astype(np.int64) * wide + pairs[1]  # ascending by unit
    active.sort()
    fired = np.bincount(pairs[0], minlength=n_units)
    units, out = np.flatnonzero(np.diff(begin) > 0), np.zeros(n_units)
    for some in rules.chunks(units):
        row, window = rules.windows(units[some])
        there = is_in(units[some][row] * wide + window, active)
        n = some.stop - some.start
        said, right = np.bincount(row, minlength=n), np.bincount(row[there], minlength=n)
        out[units[some]] = 2 * right / np.maximum(said + fired[units[some]], 1)
    return out


def peak_tokens(contexts: Contexts, sampler: Sampler, grower: Grower, text: Told) -> Patterns:
    """The tokens on which a latent's strongest windows of train peak, each in all its cases: what one reads off a
    page of top contexts."""
    shape = contexts.shapes[TOKEN]
    key_of = {int(token): key for key, token in enumerate(shape.tokens[:, 0].tolist())}
    counts = contexts.counts(TOKEN, "train")
    units, keys = [], []
    for unit in range(contexts.n_units):
        latent, sign = divmod(unit, contexts.signs)
        names, many = _peaks(sampler, latent, -1 if sign else 1, text)
        ranked = many.most_common(3)
        if ranked and 2 * ranked[0][1] >= many.total():
            ranked = [ranked[0], *(one for one in ranked[1:] if one[1] > 1)]
        mine = [key_of[token] for name, _ in ranked for token in sorted(names[name]) if token in key_of]
        units += [unit] * len(mine)
        keys += mine
    of, key = np.array(units, np.int64), np.array(keys, np.int64)
    code = of * len(shape.tokens) + key
    at = np.minimum(np.searchsorted(counts.code, code), max(len(counts.code) - 1, 0))
    p = (counts.fires[at] + SMOOTH * grower.prior[of]) / (counts.seen[at] + SMOOTH)
    return Patterns(of, np.full(len(of), SHAPE_AT[TOKEN]), key, p, np.zeros(len(of)))


def peak_of(sampler: Sampler, latent: int, sign: int, text: Told) -> set[int]:
    """The token, in all its cases, on which most of a latent's strongest windows of train peak, if a third of them
    do."""
    names, many = _peaks(sampler, latent, sign, text)
    ((name, times),) = many.most_common(1) or [("", 0)]
    return names[name] if 3 * times >= many.total() > 0 else set()


def _peaks(sampler: Sampler, latent: int, sign: int, text: Told) -> tuple[dict[str, set[int]], Counter[str]]:
    """Of the PEAKS strongest windows of train: the tokens they peak on by what they read, and how many do."""
    peaks = sampler.peaks(latent, sign, "train")
    top = np.argsort(-peaks.value, kind="stable")[:PEAKS]
    names: dict[str, set[int]] = {}
    many: Counter[str] = Counter()
    for token in sampler.codes.token_ids[peaks.place[top]].tolist():
        name = shown_token(text(token)).casefold()
        names.setdefault(name, set()).add(token)
        many[name] += 1
    return names, many


def promoted(contexts: Contexts, ids: Ints, suppressed: Ints, reading: tuple[int, ...]) -> Patterns:
    """Rules of the promoted tokens (of a negative sign the suppressed ones), as the token itself or the next one. ids:
    [latents, k]."""
    shape = contexts.shapes[reading]
    size = int(max(ids.max(initial=0), suppressed.max(initial=0), shape.tokens.max(initial=0))) + 1
    key_of = np.full(size, -1)
    there = shape.tokens[:, 0] >= 0
    key_of[shape.tokens[there, 0]] = np.flatnonzero(there)
    signs = contexts.signs
    both = np.full((contexts.n_units, max(ids.shape[1], suppressed.shape[1])), -1, np.int64)
    both[::signs, : ids.shape[1]] = ids
    if signs == 2:
        both[1::2, : suppressed.shape[1]] = suppressed
    key = np.where(both >= 0, key_of[np.maximum(both, 0)], -1)
    unit, column = np.nonzero(key >= 0)
    key = key[unit, column]
    counts, prior = (
        contexts.counts(reading, "train"),
        contexts.fired("train") / max(contexts.positions("train").sum(), 1),
    )
    code = unit.astype(np.int64) * len(shape.tokens) + key
    at = np.minimum(np.searchsorted(counts.code, code), max(len(counts.code) - 1, 0))
    fires = np.where(counts.code[at] == code, counts.fires[at], 0)
    p = (fires + SMOOTH * prior[unit]) / (contexts.seen(reading, "train")[key] + SMOOTH)
    return Patterns(unit, np.full(len(unit), SHAPE_AT[reading]), key, p, -column.astype(np.float64))


def _by_mass(contexts: Contexts, patterns: Patterns) -> Patterns:
    """By unit, and of each first what holds most of its activation on train."""
    mass = np.zeros(len(patterns.unit))
    mine = contexts.entries("train")
    unit, at, value = contexts.unit[mine].astype(np.int64), contexts.at[mine], np.abs(contexts.codes.value[mine])
    for number, offsets in enumerate(SHAPES):
        rows = np.flatnonzero(patterns.shape == number)
        if not len(rows):
            continue
        k = len(contexts.shapes[offsets].tokens)
        code = patterns.unit[rows] * k + patterns.key[rows]
        order = np.argsort(code)
        wanted = code[order]
        entry = unit * k + contexts.shapes[offsets].key[at]
        found = np.minimum(np.searchsorted(wanted, entry), len(wanted) - 1)
        hit = wanted[found] == entry
        mass[rows[order]] = np.bincount(found[hit], value[hit], len(wanted))
    by = np.lexsort((patterns.key, patterns.shape, -mass, patterns.unit))
    return picked(patterns, by)


def rule_of(contexts: Contexts, learned: Learned, unit: int) -> Rule | Topic | None:
    """The unit's rule, to be run on any text."""
    if learned.kind[unit] < 0:
        return None
    base = float(learned.prior[unit])
    if KINDS_OF_RULE[learned.kind[unit]] == "topic" and learned.topics is not None and learned.words is not None:
        ids: dict[int, list[int]] = {}
        for token, word in enumerate(learned.words.of_token.tolist()):
            ids.setdefault(word, []).append(token)
        chosen = [
            (int(w), float(x)) for w, x in zip(learned.topics.word[unit], learned.topics.weight[unit], strict=True)
        ]
        words = tuple((learned.words.texts[w], tuple(ids[w]), x) for w, x in chosen if w >= 0)
        return Topic(words, float(learned.topics.least[unit]), float(learned.topics.p[unit]), base)
    rows = slice(learned.begin[unit], learned.begin[unit + 1])
    return Rule(patterns_of(contexts, learned.patterns, rows), base)


def patterns_of(contexts: Contexts, patterns: Patterns, rows: slice) -> tuple[Pattern, ...]:
    return tuple(
        Pattern(SHAPES[shape], tuple(contexts.shapes[SHAPES[shape]].tokens[key].tolist()), float(p))
        for shape, key, p in zip(patterns.shape[rows], patterns.key[rows], patterns.p[rows], strict=True)
    )
