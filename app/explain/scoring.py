"""Scores of rules on test: on drawn windows, half of them active, and on every token of the split."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from app.explain.match import Hits, Matcher
from app.explain.measure import (
    Confusion,
    Ranks,
    balanced_accuracy,
    headline_status,
    interval,
    precision_recall_f1,
    ranked,
    ranks,
)
from app.explain.samples import KINDS, Bools, Drawn, Floats, Ints

HARD = (KINDS.index("neighbour"), KINDS.index("same_token"))
CONTROLS = 3  # other latents' explanations that are tried on a latent's examples
Hitting = Callable[[int], Hits]


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


def on_windows(matcher: Matcher, hits: Hitting, units: Sequence[int], drawn: dict[int, Drawn]) -> list[Said]:
    """What the rules of ``units`` say of their own examples."""
    out = []
    for unit in units:
        best = matcher.of_windows(hits(unit), drawn[unit].window)
        out.append(Said(best > 0, best))
    return out


def controls(matcher: Matcher, hits: Hitting, units: Sequence[int], drawn: dict[int, Drawn], seed: int) -> Floats:
    """[units]: mean balanced accuracy on a unit's examples of CONTROLS other units' rules."""
    rng = np.random.default_rng([seed, 1])
    total, number = np.zeros(len(units)), np.zeros(len(units))
    for _ in range(CONTROLS if len(units) > 1 else 0):
        turn = int(rng.integers(1, len(units)))
        order = rng.permutation(len(units))
        other = np.empty(len(units), np.int64)
        other[order] = np.roll(order, turn)
        for row, unit in enumerate(units):
            said = matcher.of_windows(hits(units[other[row]]), drawn[unit].window) > 0
            value = float(balanced_accuracy(confusion(said, drawn[unit].kind == 0)))
            if np.isfinite(value):
                total[row] += value
                number[row] += 1
    return np.where(number > 0, total / np.maximum(number, 1), np.nan)


def confusion(said: Bools, active: Bools) -> Confusion:
    return Confusion((said & active).sum(), (said & ~active).sum(), (~said & ~active).sum(), (~said & active).sum())


def windows_table(said: Sequence[Said], drawn: Sequence[Drawn], control: Floats, seed: int) -> Table:
    kinds = [one.kind for one in drawn]
    c = _stacked([confusion(s.predictions, kind == 0) for s, kind in zip(said, kinds, strict=True)])
    random, hard = (_against(said, kinds, those) for those in ((KINDS.index("random"),), HARD))
    areas = [ranked(s.probabilities, kind == 0) for s, kind in zip(said, kinds, strict=True)]
    status = [headline_status(int(p), int(n), 0) for p, n in zip(c.tp + c.fn, c.tn + c.fp, strict=True)]
    balanced = balanced_accuracy(c)
    low, high = interval(c, np.random.default_rng([seed, 2]))
    headline = np.where([one == "ok" for one in status], balanced, np.nan)
    return Table(
        status, headline, c.tp + c.fn, c.tn + c.fp, c, balanced, random, hard, *precision_recall_f1(c),
        *_columns(areas), low, high, control,
    )  # fmt: skip


def _against(said: Sequence[Said], kinds: Sequence[Ints], negatives: tuple[int, ...]) -> Floats:
    """Balanced accuracies with these kinds of negatives alone."""
    out = []
    for one, kind in zip(said, kinds, strict=True):
        keep = np.isin(kind, (0, *negatives))
        out.append(confusion(one.predictions[keep], kind[keep] == 0))
    return balanced_accuracy(_stacked(out))


def tokens_table(matcher: Matcher, hits: Hitting, units: Sequence[int]) -> Table:
    """At true prevalence: every counted token of the split, as many active as there are."""
    rows, areas = [], []
    for unit in units:
        found = matcher.once(hits(unit))
        right = matcher.right(unit, found)
        fired = len(matcher.fired(unit))
        tp, said = int(right.sum()), len(right)
        rows.append(Confusion(tp, said - tp, matcher.n - fired - said + tp, fired - tp))
        levels, group = np.unique(-found.p, return_inverse=True)
        positives = np.append(np.bincount(group, right, len(levels)), fired - tp)
        sizes = np.append(np.bincount(group, minlength=len(levels)), matcher.n - said)
        areas.append(ranks(positives, sizes - positives))
    c = _stacked(rows)
    status = [headline_status(int(p), int(n), 0) for p, n in zip(c.tp + c.fn, c.tn + c.fp, strict=True)]
    precision, recall, f1 = precision_recall_f1(c)
    none = np.full(len(rows), np.nan)
    headline = np.where([one == "ok" for one in status], f1, np.nan)
    return Table(
        status, headline, c.tp + c.fn, c.tn + c.fp, c, balanced_accuracy(c), none, none, precision, recall, f1,
        *_columns(areas), none, none, none,
    )  # fmt: skip


def _stacked(rows: Sequence[Confusion]) -> Confusion:
    return Confusion(*np.array(rows, np.int64).reshape(-1, 4).T)


def _columns(areas: Sequence[Ranks]) -> tuple[Floats, Floats]:
    table = np.array(areas, np.float64).reshape(-1, 2)
    return table[:, 0], table[:, 1]
