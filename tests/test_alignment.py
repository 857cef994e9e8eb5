"""Two texts lined up: small ones by hand, and what holds for any."""

import random
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from app.live import alignment
from app.live.alignment import Column, align

IDS = st.lists(st.integers(0, 4), max_size=14)


def test_a_word_replaced_one_added_and_one_left_out():
    assert align([0, 5, 6, 7, 8], [0, 9, 6, 7, 3, 8]) == [
        Column("equal", 0, 0), Column("replaced", 1, 1), Column("equal", 2, 2), Column("equal", 3, 3),
        Column("only_second", None, 4), Column("equal", 4, 5),
    ]  # fmt: skip
    assert align([0, 1, 2, 3], [0, 3]) == [
        Column("equal", 0, 0), Column("only_first", 1, None), Column("only_first", 2, None), Column("equal", 3, 1),
    ]  # fmt: skip
    assert align([0, 1, 2, 9], [0, 7, 9]) == [
        Column("equal", 0, 0), Column("replaced", 1, 1), Column("only_first", 2, None), Column("equal", 3, 2),
    ]  # fmt: skip


@given(IDS, IDS)
def test_every_token_stands_once_in_order_and_equal_ones_are_equal(first, second):
    columns = align(first, second)
    assert [c.first for c in columns if c.first is not None] == list(range(len(first)))
    assert [c.second for c in columns if c.second is not None] == list(range(len(second)))
    for c in columns:
        same = c.first is not None and c.second is not None and first[c.first] == second[c.second]
        assert c.kind != "equal" or same
        assert (c.kind == "only_first") == (c.second is None)
        assert (c.kind == "only_second") == (c.first is None)
    assert [(c.second, c.first) for c in align(second, first)] == [(c.first, c.second) for c in columns]


@given(IDS, IDS)
def test_long_texts_are_matched_in_as_many_places_as_can_be(first, second):
    pairs = alignment._by_count(first, second)
    assert all(first[i] == second[j] for i, j in pairs)
    assert all(i < k and j < m for (i, j), (k, m) in pairwise(pairs))
    table = [[0] * (len(second) + 1) for _ in range(len(first) + 1)]
    for i, x in enumerate(first):
        for j, y in enumerate(second):
            table[i + 1][j + 1] = table[i][j] + 1 if x == y else max(table[i][j + 1], table[i + 1][j])
    assert len(pairs) == table[-1][-1]


def test_many_lonely_matches_take_no_more_steps_than_the_texts_have_tokens(monkeypatch):
    """Few tokens in common and no run of them: what makes difflib look through all of it for every match."""
    draw = random.Random(0)
    one, other = (
        [n % 14 if draw.random() < 0.02 else 1000 * side + n for n in range(4000)] for side in (1, 2)
    )  # fmt: skip
    monkeypatch.setattr(alignment, "_by_runs", None)
    columns = align(one, other)
    assert len([c for c in columns if c.kind == "equal"]) > 10
    assert [c.first for c in columns if c.first is not None] == list(range(4000))


def test_equal_texts_are_equal_however_repetitive_and_long():
    text = [1, 2] * 2000
    assert {c.kind for c in align(text, text)} == {"equal"}
    longer = [*text[:1000], 7, *text[1000:]]
    assert [c for c in align(text, longer) if c.kind != "equal"] == [Column("only_second", None, 1000)]
    draw = random.Random(0)
    one, other = ([draw.randrange(3) for _ in range(3000)] for _ in range(2))
    assert len(align(one, other)) >= 3000
