"""What many rules say at once, against each rule run by itself."""

import numpy as np
import pytest

from app.explain import many, measure
from app.explain.grow import Patterns
from app.explain.many import Rules, is_in, ranges
from app.explain.match import Matcher
from app.explain.measure import grouped_ranks, ranked, ranks, ranks_of
from app.explain.samples import Drawn, Sampler
from app.explain.scoring import controls, on_windows, tokens_table, windows_table
from tests.test_explain import N, facts, planted


@pytest.fixture(scope="module")
def case():
    """A matcher, random patterns of every shape for every unit but the third, a topic for the fifth, and examples."""
    from app.explain.contexts import Contexts

    codes, _ = planted()
    contexts, known = Contexts(codes, signed=False), facts(codes)
    sampler = Sampler(codes, known.neighbours, known.maxima, 0)
    matcher = Matcher(contexts, sampler.grid, "test")
    rng = np.random.default_rng(0)
    units = np.sort(rng.choice([i for i in range(N) if i not in (2, 4)], 90))
    shape = rng.integers(0, len(matcher.index), 90)
    key = np.array([rng.integers(0, len(matcher.index[one][1]) - 1) for one in shape])
    patterns = Patterns(units, shape, key, rng.choice([0.0, 0.1, 0.5, 0.9], 90), np.zeros(90))
    begin = np.searchsorted(units, np.arange(N + 1))
    windows = np.flatnonzero(sampler.grid.split == matcher.split)[::7]
    rules = Rules(matcher, patterns, begin, np.arange(N) == 4, lambda unit: matcher.in_windows(windows, 0.3))
    drawn = {unit: sampler.draw(unit, 1, "test", 50) for unit in range(N)}
    return matcher, patterns, begin, rules, drawn, windows


def alone(case, unit):
    matcher, patterns, begin, _, _, windows = case
    if unit == 4:
        return matcher.in_windows(windows, 0.3)
    return matcher.hits(patterns, slice(begin[unit], begin[unit + 1]))


@pytest.mark.parametrize("at_once", [1, 2000, 1_000_000])
def test_what_rules_say_of_windows_is_what_each_says_alone(case, monkeypatch, at_once):
    monkeypatch.setattr(many, "AT_ONCE", at_once)
    matcher, _, _, rules, drawn, _ = case
    units = [7, 0, 4, 2, 11, 5]
    said = on_windows(rules, units, drawn)
    for unit, one in zip(units, said, strict=True):
        best = matcher.of_windows(alone(case, unit), drawn[unit].window)
        assert one.probabilities.tolist() == best.tolist()
        assert one.predictions.tolist() == (best > 0).tolist()
    assert any(one.predictions.any() for one in said)


@pytest.mark.parametrize("at_once", [1, 1_000_000])
def test_scores_on_every_token_are_those_of_one_rule_after_another(case, monkeypatch, at_once):
    monkeypatch.setattr(many, "AT_ONCE", at_once)
    matcher, _, _, rules, _, _ = case
    table = tokens_table(rules, range(N))
    assert table.counts.tp.sum() > 0
    for unit in range(N):
        hits, fired = alone(case, unit), set(matcher.fired(unit).tolist())
        p = np.full(matcher.n, -1.0)
        for at, one in zip(hits.at.tolist(), hits.p.tolist(), strict=True):
            p[at] = max(p[at], one)
        said, active = p >= 0, np.array([place in fired for place in range(matcher.n)])
        counts = (said & active).sum(), (said & ~active).sum(), (~said & ~active).sum(), (~said & active).sum()
        assert tuple(int(column[unit]) for column in table.counts) == counts
        expected = ranked(p, active)
        assert table.auroc[unit] == pytest.approx(expected.auroc, nan_ok=True)
        assert table.auprc[unit] == pytest.approx(expected.auprc, nan_ok=True)


def test_controls_and_kinds_of_negatives_are_counted_window_by_window(case):
    matcher, _, _, rules, drawn, _ = case
    units = list(range(N))
    said = on_windows(rules, units, drawn)
    table = windows_table(said, [drawn[unit] for unit in units], np.zeros(N), 0)
    for unit in units:
        kind, told = drawn[unit].kind, said[unit].predictions
        right = told[kind == 0].mean()
        assert table.balanced[unit] == pytest.approx((right + (~told[kind != 0]).mean()) / 2, nan_ok=True)
        assert table.random[unit] == pytest.approx((right + (~told[kind == 1]).mean()) / 2, nan_ok=True)
        assert table.auroc[unit] == pytest.approx(ranked(said[unit].probabilities, kind == 0).auroc)
    rng = np.random.default_rng([3, 1])
    expected = np.zeros(N)
    for _ in range(3):
        turn, order = int(rng.integers(1, N)), rng.permutation(N)
        other = np.empty(N, np.int64)
        other[order] = np.roll(order, turn)
        for unit in units:
            told = matcher.of_windows(alone(case, int(other[unit])), drawn[unit].window) > 0
            active = drawn[unit].kind == 0
            expected[unit] += (told[active].mean() + (~told[~active]).mean()) / 2 / 3
    assert controls(rules, units, drawn, 3).tolist() == pytest.approx(expected.tolist())


def test_nothing_to_score_is_no_score(case):
    rules = case[3]
    assert on_windows(rules, [], {}) == []
    empty = Drawn(*(np.zeros(0, np.int64) for _ in range(5)))
    (said,) = on_windows(rules, [2], {2: empty})
    table = windows_table([said], [empty], np.zeros(1), 0)
    assert (table.status, bool(np.isnan(table.auroc[0]))) == (["few"], True)
    assert len(tokens_table(rules, []).f1) == 0


def test_areas_of_many_rows_are_those_of_each():
    rng = np.random.default_rng(0)
    row, scores, active = rng.integers(0, 7, 200), rng.integers(0, 9, 200) / 4, rng.random(200) < 0.3
    row[row == 3] = 2  # the fourth has none
    active[row == 5] = True
    auroc, auprc = ranks_of(row, scores, active, 7)
    for one in range(7):
        found = ranked(scores[row == one], active[row == one])
        assert (auroc[one], auprc[one]) == pytest.approx(tuple(found), nan_ok=True)
    both = grouped_ranks(np.zeros(2, np.int64), np.array([1.0, 2.0]), np.array([1, 3]), np.array([4, 1]), 1)
    assert (both[0][0], both[1][0]) == pytest.approx(tuple(ranks(np.array([3, 1]), np.array([1, 4]))))


def test_resamples_a_part_at_a_time_keep_their_intervals(monkeypatch):
    c = measure.Confusion(*(np.array(column) for column in ([40, 30, 45], [5, 20, 1], [45, 30, 49], [10, 20, 5])))
    whole = measure.interval(c, np.random.default_rng(0))
    monkeypatch.setattr(measure, "AT_ONCE", 2)
    parts = measure.interval(c, np.random.default_rng(0))
    for one, other in zip(whole, parts, strict=True):
        assert one.tolist() == pytest.approx(other.tolist(), abs=0.015)


def test_ranges_and_membership():
    assert ranges(np.array([3, 9, 9]), np.array([5, 9, 11])).tolist() == [3, 4, 9, 10]
    assert is_in(np.array([1, 4, 9]), np.array([0, 4, 5])).tolist() == [False, True, False]
    assert is_in(np.array([1]), np.zeros(0, np.int64)).tolist() == [False]
