"""Explanations without a language model, and their scores, from an SAE to the database."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from sqlalchemy import Engine

from app.errors import BadRequest
from app.explain.codes import TOKENS, Sampled, read_codes
from app.explain.contexts import NEXT, TOKEN, Contexts
from app.explain.grow import Patterns, joined, picked
from app.explain.learn import (
    KINDS_OF_RULE,
    Learned,
    active_pairs,
    learn,
    patterns_of,
    peak_of,
    promoted,
    rule_of,
    window_f1,
)  # fmt: skip
from app.explain.many import Rules
from app.explain.match import Matcher
from app.explain.rules import Rule, Topic
from app.explain.samples import Drawn, Ints, Sampler
from app.explain.scoring import Said, Table, controls, on_windows, tokens_table, windows_table
from app.explain.sentences import Teller
from app.explain.topic import on_topic, presence
from app.store.engine import explained
from app.store.explain_sources import ExplainSource, LatentFacts, check_harvested, find_explain_source, read_facts
from app.store.explanation_bulk import (
    ExampleSet,
    ExplanationRow,
    ScoreRow,
    SetKey,
    explain_lock,
    save_explanations,
)  # fmt: skip
from app.store.revisions import known
from app.subject.load import load_tokenizer, special_ids
from app.subject.tokens import Vocabulary

Made = dict[str, tuple[int, list[ExplanationRow]]]  # by method its version and its explanations
RULES, VOCAB = "token-rules", "vocab-projection"
VERSIONS = {RULES: 1, VOCAB: 1}
EXAMPLES = 50  # windows of either kind that a score is of, at most


@dataclass(frozen=True)
class Recipe:
    methods: tuple[str, ...] = (RULES, VOCAB)
    tokens: int = TOKENS
    seed: int = 0


@dataclass(frozen=True)
class Watch:
    """Who is told: ``doing`` at each stage, ``step`` with how much of it is done."""

    doing: Callable[[str], None] = lambda stage: None
    step: Callable[[int, int], None] = lambda done, total: None


class Scored(NamedTuple):
    """A method's scores: units, [m], and tables of as many rows on windows and on tokens."""

    units: list[int]
    windows: Table
    tokens: Table
    said: list[Said]


@dataclass(frozen=True)
class Explained:
    """What was made of an SAE. scored: by method; seconds: of the pass, and of learning and scoring."""

    slug: str
    revision: str
    tokens: int
    kept_apart: str
    scored: dict[str, Scored]
    kinds: dict[str, int]
    reading: dict[str, int]
    pass_seconds: float
    seconds: float


def explain_free(
    address: str, recipe: Recipe, engine: Engine, home: Path, *, device: str = "auto", watch: Watch = Watch()
) -> Explained:
    """Explain the latents of the SAE ``address`` (``slug`` or ``slug@revision``), score that, and save it.

    Raises:
        UnknownSAE: there is none.
        ExplainRunning: it is being explained.
        CorpusUnavailable, SubjectUnavailable, InvalidSAE: what it needs of the harvest is too little, or gone.
    """
    slug, _, revision = address.partition("@")
    with explained(), engine.connect() as connection:
        known(connection, slug, revision or None)
    with explain_lock(engine, slug):
        with explained(), engine.connect() as connection:
            source = find_explain_source(connection, slug, revision or None)
            check_harvested(source)
            facts = read_facts(connection, source.id)
        began = time.monotonic()
        tokenizer = load_tokenizer(home / source.subject_path)
        sampled = read_codes(engine, source, home, recipe.tokens, device=device, doing=watch.doing, step=watch.step)
        read = time.monotonic()
        work = Work(source, facts, sampled, recipe, Vocabulary.of(tokenizer), special_ids(tokenizer), watch)
        made, kinds, reading, scored = work.run()
        done = time.monotonic()
        watch.doing("saving explanations")
        key = SetKey("test", sampled.name, recipe.seed, work.sampler.grid.width)
        save_explanations(engine, source.id, made, work.sets(scored), key)
        return Explained(
            source.slug, source.revision, int(sampled.codes.counted.sum()), sampled.chosen.kept_apart, scored, kinds,
            reading, read - began, done - read,
        )  # fmt: skip


class Work:
    """Learning and scoring, given what was read."""

    def __init__(
        self,
        source: ExplainSource,
        facts: LatentFacts,
        sampled: Sampled,
        recipe: Recipe,
        vocabulary: Vocabulary,
        starts: Sequence[int],
        watch: Watch,
    ) -> None:
        if unknown := set(recipe.methods) - VERSIONS.keys():
            raise BadRequest(f"There is no method {sorted(unknown)[0]!r}; there are: {', '.join(VERSIONS)}.")
        self.source, self.facts, self.recipe, self.watch = source, facts, recipe, watch
        self.sampled, self.codes = sampled, sampled.codes
        self.vocabulary, self.teller = vocabulary, Teller(vocabulary.text, starts)
        self.contexts = Contexts(self.codes, signed=source.signed)
        self.sampler = Sampler(self.codes, facts.neighbours, facts.maxima, recipe.seed)
        self.drawn: dict[int, Drawn] = {}

    def run(
        self,
    ) -> tuple[dict[str, tuple[int, list[ExplanationRow]]], dict[str, int], dict[str, int], dict[str, Scored]]:
        matcher = Matcher(self.contexts, self.sampler.grid, "test")
        learned = learn(self.contexts, self.sampler, self.vocabulary.text, self.watch.doing)
        units = np.flatnonzero(learned.kind >= 0).tolist()
        self._draw(units)
        made: Made = {}
        scored: dict[str, Scored] = {}
        kinds, reading = {}, {}
        if RULES in self.recipe.methods:
            scored[RULES] = self._score(RULES, self._rules(learned, matcher), units)
            kinds = {kind: int((learned.kind == number).sum()) for number, kind in enumerate(KINDS_OF_RULE)}
            rows = {unit: self._rule_row(learned, unit) for unit in units}
            made[RULES] = VERSIONS[RULES], self._with_scores(rows, scored[RULES])
        if VOCAB in self.recipe.methods and self.facts.promoted.shape[1]:
            patterns, begin, read = self._promoted()
            reading = {name: int((read == name).sum()) for name in ("here", "next")}
            scored[VOCAB] = self._score(VOCAB, Rules(matcher, patterns, begin), units)
            rows = {
                unit: self._promoted_row(patterns, slice(begin[unit], begin[unit + 1]), read[unit], unit)
                for unit in range(self.contexts.n_units)
            }
            made[VOCAB] = VERSIONS[VOCAB], self._with_scores(rows, scored[VOCAB])
        return made, kinds, reading, scored

    def sets(self, scored: dict[str, Scored]) -> list[ExampleSet]:
        """The example sets of all scored units."""
        codes, grid, out = self.codes, self.sampler.grid, []
        for unit in sorted({unit for one in scored.values() for unit in one.units}):
            drawn = self.drawn[unit]
            row = grid.row[drawn.window]
            start = grid.begin[drawn.window] - codes.begin[row]
            peak = np.where(drawn.peak >= 0, drawn.peak - grid.begin[drawn.window], -1)
            latent, sign = self._of(unit)
            out.append(
                ExampleSet(latent, sign, codes.sequence[row], start, drawn.kind, drawn.interval, peak, drawn.value)
            )
        return out

    def _of(self, unit: int) -> tuple[int, int]:
        latent, negative = divmod(unit, self.contexts.signs)
        return latent, -1 if negative else 1

    def _draw(self, units: list[int]) -> None:
        self.watch.doing("drawing test examples")
        for number, unit in enumerate(units):
            self.drawn[unit] = self.sampler.draw(*self._of(unit), "test", EXAMPLES)
            if number % 256 == 255:
                self.watch.step(number + 1, len(units))

    def _rules(self, learned: Learned, matcher: Matcher) -> Rules:
        windows = np.flatnonzero(self.sampler.grid.split == matcher.split)
        words, found = learned.words, learned.topics
        if words is None or found is None:
            return Rules(matcher, learned.patterns, learned.begin)
        present, topics = presence(words, len(self.sampler.grid)), learned.kind == KINDS_OF_RULE.index("topic")
        return Rules(
            matcher, learned.patterns, learned.begin, topics,
            lambda unit: learned.hits(matcher, unit, lambda one: on_topic(found, present, one, windows)),
        )  # fmt: skip

    def _score(self, method: str, rules: Rules, units: list[int]) -> Scored:
        self.watch.doing(f"scoring {method}")
        said = on_windows(rules, units, self.drawn)
        control = controls(rules, units, self.drawn, self.recipe.seed)
        windows = windows_table(said, [self.drawn[unit] for unit in units], control, self.recipe.seed)
        return Scored(units, windows, tokens_table(rules, units), said)

    def _promoted(self) -> tuple[Patterns, Ints, Ints]:
        """The vocabulary's rules of all units, where each one's begin, and how each is read: as the token itself, or as
        the next one where that predicts the windows of val better."""
        matcher = Matcher(self.contexts, self.sampler.grid, "val")
        pairs = active_pairs(self.sampler, self.contexts.signs, "val")
        n = self.contexts.n_units
        both = {
            name: promoted(self.contexts, self.facts.promoted, self.facts.suppressed, shape)
            for name, shape in (("here", TOKEN), ("next", NEXT))
        }
        f1 = {name: window_f1(matcher, one, pairs, self.sampler, n) for name, one in both.items()}
        read = np.where(f1["next"] > f1["here"], "next", "here")
        patterns = joined([picked(one, read[one.unit] == name) for name, one in both.items()])
        patterns = picked(patterns, np.lexsort((-patterns.gain, patterns.unit)))
        return patterns, np.searchsorted(patterns.unit, np.arange(n + 1)), read

    def _rule_row(self, learned: Learned, unit: int) -> ExplanationRow:
        rule = rule_of(self.contexts, learned, unit)
        latent, sign = self._of(unit)
        if isinstance(rule, Topic):
            told = self.teller.topic(rule)
        else:
            lead = peak_of(self.sampler, latent, sign, self.vocabulary.text)
            told = self.teller.patterns(rule.patterns if rule else (), lead)
        more = {"kind": KINDS_OF_RULE[learned.kind[unit]], "val_f1": round(float(learned.val_f1[unit]), 4)}
        return ExplanationRow(
            latent, sign, told.text, told.label, None if rule is None else rule.to_json(), self._parameters() | more
        )

    def _promoted_row(self, patterns: Patterns, rows: slice, reading: str, unit: int) -> ExplanationRow:
        latent, sign = self._of(unit)
        ids = (self.facts.promoted if sign > 0 else self.facts.suppressed)[latent]
        told = self.teller.promoted([int(i) for i in ids if i >= 0], reading)
        rule = Rule(patterns_of(self.contexts, patterns, rows), 0.0)
        return ExplanationRow(
            latent, sign, told.text, told.label, rule.to_json(), self._parameters() | {"reading": reading}
        )

    def _parameters(self) -> dict[str, Any]:
        return {"sample": self.sampled.name, "seed": self.recipe.seed}

    def _with_scores(self, rows: dict[int, ExplanationRow], scored: Scored) -> list[ExplanationRow]:
        for i, unit in enumerate(scored.units):
            said = scored.said[i]
            rows[unit].scores.extend([
                ScoreRow("windows", *_row(scored.windows, i), said.predictions, said.probabilities.astype(np.float32)),
                ScoreRow("tokens", *_row(scored.tokens, i)),
            ])  # fmt: skip
        return [rows[unit] for unit in sorted(rows)]


def _row(table: Table, i: int) -> tuple[str, dict[str, int], dict[str, float]]:
    counts = {name: int(column[i]) for name, column in zip(("tp", "fp", "tn", "fn"), table.counts, strict=True)}
    numbers = {
        "headline": table.headline, "balanced_accuracy": table.balanced, "balanced_accuracy_random": table.random,
        "balanced_accuracy_hard": table.hard, "precision": table.precision, "recall": table.recall, "f1": table.f1,
        "auroc": table.auroc, "auprc": table.auprc, "ci_low": table.low, "ci_high": table.high,
        "control": table.control,
    }  # fmt: skip
    return (
        table.status[i],
        counts | {"n_pos": int(table.n_pos[i]), "n_neg": int(table.n_neg[i])},
        {name: float(column[i]) for name, column in numbers.items()},
    )
