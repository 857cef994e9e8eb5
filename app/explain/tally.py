"""Numbers out of what a scorer said. Unanswered examples are left out and counted; they are never wrong answers."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from app.explain.measure import ANSWERED, RESAMPLES, Confusion, Ranks, headline_status, ranked
from app.explain.measure import interval as confusion_interval
from app.explain.samples import Window

Real = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Tally:
    """A row of ``score``, by its columns. What is not defined is None; ``status`` is ok, few or unanswered."""

    status: str
    n_pos: int
    n_neg: int
    n_failed: int
    headline: float | None = None
    tp: int | None = None
    fp: int | None = None
    tn: int | None = None
    fn: int | None = None
    balanced_accuracy: float | None = None
    balanced_accuracy_random: float | None = None
    balanced_accuracy_hard: float | None = None
    precision: float | None = None
    recall: float | None = None
    f1: float | None = None
    auroc: float | None = None
    auprc: float | None = None
    correlation: float | None = None
    ci_low: float | None = None
    ci_high: float | None = None
    control: float | None = None
    facts: dict[str, Any] = field(default_factory=dict)


def ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def defined(value: float) -> float | None:
    """None in the place of nan."""
    return float(value) if np.isfinite(value) else None


def balanced(hit: float | None, held: float | None) -> float | None:
    """The mean of recall and of the share of negatives that are rejected."""
    return None if hit is None or held is None else (hit + held) / 2


def interval(groups: Sequence[Real], measure: "Any", seed: Sequence[int]) -> tuple[float, float] | None:
    """95% percentile bootstrap (Efron 1979), each group redrawn by itself; measure: [draws, n] of each group ->
    [draws]."""
    if any(len(group) == 0 for group in groups):
        return None
    rng = np.random.default_rng([*seed, 95])
    drawn = [group[rng.integers(0, len(group), (RESAMPLES, len(group)))] for group in groups]
    low, high = np.percentile(measure(*drawn), [2.5, 97.5])
    return float(low), float(high)


def of_verdicts(
    windows: Sequence[Window],
    predictions: Sequence[bool | None],
    probabilities: Sequence[float | None],
    *,
    share: float,
    seed: Sequence[int],
    control: float | None = None,
) -> Tally:
    """``share``: of all test windows, those in which the latent is active, for what precision and F1 are in the wild:
    recall stays, and the false positives are those of the random negatives at their true number."""
    truth = np.array([one.active for one in windows], bool)
    answered = np.array([one is not None for one in predictions], bool)
    said = np.array([bool(one) for one in predictions], bool)
    kinds = np.array([one.kind for one in windows])
    n_pos, n_neg = int((truth & answered).sum()), int((~truth & answered).sum())
    n_failed = len(windows) - n_pos - n_neg
    tp, fn = int((truth & answered & said).sum()), int((truth & answered & ~said).sum())
    fp, tn = int((~truth & answered & said).sum()), int((~truth & answered & ~said).sum())
    recall = ratio(tp, n_pos)
    random, hard = ((~truth & answered & (kinds == "random")), (~truth & answered & (kinds != "random")))
    held_random, held_hard = (ratio(int((some & ~said).sum()), int(some.sum())) for some in (random, hard))
    status = headline_status(n_pos, n_neg, n_failed)
    whole = balanced(recall, ratio(tn, n_neg))
    told = np.array([np.nan if one is None else one for one in probabilities], np.float64)
    areas = ranked(told[answered], truth[answered]) if np.isfinite(told[answered]).all() else Ranks(np.nan, np.nan)
    rng = np.random.default_rng([*seed, 95])
    low, high = confusion_interval(Confusion(*(np.array([n]) for n in (tp, fp, tn, fn))), rng)
    facts: dict[str, Any] = {"share": share}
    if recall is not None and held_random is not None:
        expected = recall * share + (1 - held_random) * (1 - share)
        precise = ratio(recall * share, expected)
        facts |= {"precision_at_share": precise, "f1_at_share": ratio(2 * recall * share, expected + share)}
    return Tally(
        status, n_pos, n_neg, n_failed, whole if status == "ok" else None, tp, fp, tn, fn, whole,
        balanced(recall, held_random), balanced(recall, held_hard), ratio(tp, tp + fp), recall,
        ratio(2 * tp, 2 * tp + fp + fn),
        defined(areas.auroc), defined(areas.auprc), None, defined(low[0]), defined(high[0]), control, facts,
    )  # fmt: skip


def of_ranks(
    windows: Sequence[Window], scores: Sequence[float | None], *, seed: Sequence[int], control: float | None = None
) -> Tally:
    """Of scores that are high where the latent should be active."""
    truth = np.array([one.active for one in windows], bool)
    answered = np.array([one is not None for one in scores], bool)
    values = np.array([0.0 if one is None else one for one in scores], np.float64)
    positive, negative = values[truth & answered], values[~truth & answered]
    status = headline_status(len(positive), len(negative), int((~answered).sum()))
    whole = ranked(values[answered], truth[answered])
    area = defined(whole.auroc)

    def areas(a: Real, b: Real) -> Real:
        above = (a[:, :, None] > b[:, None, :]).mean((1, 2))
        level: Real = above + (a[:, :, None] == b[:, None, :]).mean((1, 2)) / 2
        return level

    bounds = interval([positive, negative], areas, seed)
    return Tally(
        status, len(positive), len(negative), int((~answered).sum()), area if status == "ok" else None, auroc=area,
        auprc=defined(whole.auprc), control=control,
        ci_low=bounds and bounds[0], ci_high=bounds and bounds[1],
    )  # fmt: skip


def of_simulation(
    windows: Sequence[Window], values: Sequence["npt.NDArray[np.float32] | None"], *, seed: Sequence[int],
    control: float | None = None,
) -> Tally:  # fmt: skip
    """Pearson correlation of predicted and true activations over all tokens of the windows with an answer; the interval
    redraws windows."""
    pairs = [
        (one.activations.astype(np.float64), said)
        for one, said in zip(windows, values, strict=True)
        if said is not None
    ]
    n_pos = sum(one.active for one, said in zip(windows, values, strict=True) if said is not None)
    n_failed = len(windows) - len(pairs)
    enough = n_pos >= 3 and len(pairs) - n_pos >= 3
    status = "unanswered" if n_failed > (1 - ANSWERED) * len(windows) else "ok" if enough else "few"
    r = pearson(pairs)
    bounds = None
    if r is not None:
        rng = np.random.default_rng([*seed, 95])
        drawn = [pearson([pairs[i] for i in rng.integers(0, len(pairs), len(pairs))]) for _ in range(200)]
        known = [one for one in drawn if one is not None]
        bounds = np.percentile(known, [2.5, 97.5]).tolist() if known else None
    return Tally(
        status, n_pos, len(pairs) - n_pos, n_failed, r if status == "ok" else None, correlation=r, control=control,
        ci_low=bounds and bounds[0], ci_high=bounds and bounds[1],
    )  # fmt: skip


def pearson(pairs: Sequence[tuple[Real, Any]]) -> float | None:
    """None where one side does not vary."""
    if not pairs:
        return None
    a, b = (np.concatenate([np.asarray(pair[side], np.float64) for pair in pairs]) for side in (0, 1))
    a, b = a - a.mean(), b - b.mean()
    scale = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / scale if scale > 0 else None
