"""Scores of rules on test: on drawn windows, half of them active, and on every token of the split."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from app.explain.many import Rules
from app.explain.measure import (
    Confusion,
    balanced_accuracy,
    grouped_ranks,
    headline_status,
    interval,
    precision_recall_f1,
    ranks_of,
)
from app.explain.samples import KINDS, Bools, Drawn, Floats, Ints

HARD = (KINDS.index("neighbour"), KINDS.index("same_token"))
CONTROLS = 3  # other latents' explanations that are tried on a latent's examples


class Said(NamedTuple):
    """What a rule says of drawn windows: predictions bool [n], probabilities [n]."""

    predictions: Bools
    probabilities: Floats


class Table(NamedTuple):
    """Scores of many explanations; [m] each, nan where there is none."""

    status: list[str]
    headline: Floats
    n_pos: Ints
    n_neg: Ints
    counts: Confusion
    balanced: Floats
    random: Floats
    hard: Floats
    precision: Floats
    recall: Floats
    f1: Floats
    auroc: Floats
    auprc: Floats
    low: Floats
    high: Floats
    control: Floats


def on_windows(rules: Rules, units: Sequence[int], drawn: Mapping[int, Drawn]) -> list[Said]:
    """What the rules of ``units`` say of their own examples."""
    found = rules.in_windows(np.asarray(units, np.int64), [drawn[unit].window for unit in units])
    cuts = np.cumsum([len(drawn[unit].window) for unit in units])[:-1]
    return [Said(best > 0, best) for best in np.split(found, cuts)] if len(units) else []


def controls(rules: Rules, units: Sequence[int], drawn: Mapping[int, Drawn], seed: int) -> Floats:
    """[units]: mean balanced accuracy on a unit's examples of CONTROLS other units' rules."""
    rng = np.random.default_rng([seed, 1])
    total, number = np.zeros(len(units)), np.zeros(len(units))
    these, windows = np.asarray(units, np.int64), [drawn[unit].window for unit in units]
    flat = Flattened.of([drawn[unit].kind for unit in units])
    for _ in range(CONTROLS if len(units) > 1 else 0):
        turn = int(rng.integers(1, len(units)))
        order = rng.permutation(len(units))
        other = np.empty(len(units), np.int64)
        other[order] = np.roll(order, turn)
        value = balanced_accuracy(flat.confusion(rules.in_windows(these[other], windows) > 0))
        known = np.isfinite(value)
        total[known] += value[known]
        number[known] += 1
    return np.where(number > 0, total / np.maximum(number, 1), np.nan)


class Flattened(NamedTuple):
    """The examples of many units one after another: row: which unit's each is; kind: as drawn; n: units."""

    row: Ints
    kind: Ints
    n: int

    @classmethod
    def of(cls, kinds: Sequence[Ints]) -> "Flattened":
        lengths = [len(kind) for kind in kinds]
        return cls(
            np.repeat(np.arange(len(kinds)), lengths), np.concatenate([np.zeros(0, np.int8), *kinds]), len(kinds)
        )

    def confusion(self, said: Bools, keep: Bools | None = None) -> Confusion:
        """[n] each."""
        keep = np.ones(len(said), bool) if keep is None else keep
        active = self.kind == 0
        parts = said & active, said & ~active, ~said & ~active, ~said & active
        return Confusion(*(np.bincount(self.row[part & keep], minlength=self.n) for part in parts))


def windows_table(said: Sequence[Said], drawn: Sequence[Drawn], control: Floats, seed: int) -> Table:
    flat = Flattened.of([one.kind for one in drawn])
    predictions = np.concatenate([np.zeros(0, bool), *(one.predictions for one in said)])
    c = flat.confusion(predictions)
    random, hard = (
        balanced_accuracy(flat.confusion(predictions, np.isin(flat.kind, (0, *negatives))))
        for negatives in ((KINDS.index("random"),), HARD)
    )
    scores = np.concatenate([np.zeros(0), *(one.probabilities for one in said)])
    areas = ranks_of(flat.row, scores, flat.kind == 0, flat.n)
    status = [headline_status(int(p), int(n), 0) for p, n in zip(c.tp + c.fn, c.tn + c.fp, strict=True)]
    balanced = balanced_accuracy(c)
    low, high = interval(c, np.random.default_rng([seed, 2]))
    headline = np.where([one == "ok" for one in status], balanced, np.nan)
    return Table(
        status, headline, c.tp + c.fn, c.tn + c.fp, c, balanced, random, hard, *precision_recall_f1(c),
        *areas, low, high, control,
    )  # fmt: skip


def tokens_table(rules: Rules, units: Sequence[int]) -> Table:
    """At true prevalence: every counted token of the split, as many active as there are."""
    these, matcher = np.asarray(units, np.int64), rules.matcher
    parts, areas = [], []
    for some in rules.chunks(these):
        mine = these[some]
        found, fired = rules.once(mine), matcher.times(mine)
        right = matcher.fires_at(mine, found.row, found.at)
        n = len(mine)
        tp, said = np.bincount(found.row[right], minlength=n), np.bincount(found.row, minlength=n)
        parts.append(Confusion(tp, said - tp, matcher.n - fired - said + tp, fired - tp))
        # What no pattern says anything of is one group more, the last.
        level = np.concatenate([found.p, np.full(n, -1.0)])
        row = np.concatenate([found.row, np.arange(n)])
        positives = np.concatenate([right.astype(np.int64), fired - tp])
        sizes = np.concatenate([np.ones(len(right), np.int64), matcher.n - said])
        areas.append(grouped_ranks(row, level, positives, sizes - positives, n))
    c = Confusion(*(np.concatenate([np.zeros(0, np.int64), *(part[i] for part in parts)]) for i in range(4)))
    status = [headline_status(int(p), int(n), 0) for p, n in zip(c.tp + c.fn, c.tn + c.fp, strict=True)]
    precision, recall, f1 = precision_recall_f1(c)
    none = np.full(len(these), np.nan)
    headline = np.where([one == "ok" for one in status], f1, np.nan)
    auroc, auprc = (np.concatenate([np.zeros(0), *(area[i] for area in areas)]) for i in range(2))
    return Table(
        status, headline, c.tp + c.fn, c.tn + c.fp, c, balanced_accuracy(c), none, none, precision, recall, f1,
        auroc, auprc, none, none, none,
    )  # fmt: skip
