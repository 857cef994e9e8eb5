"""Two texts lined up: small ones by hand, and what holds for any."""

import random

from hypothesis import given
from hypothesis import strategies as st

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


def test_equal_texts_are_equal_however_repetitive_and_long():
    text = [1, 2] * 2000
    assert {c.kind for c in align(text, text)} == {"equal"}
    longer = [*text[:1000], 7, *text[1000:]]
    assert [c for c in align(text, longer) if c.kind != "equal"] == [Column("only_second", None, 1000)]
    draw = random.Random(0)
    one, other = ([draw.randrange(3) for _ in range(3000)] for _ in range(2))
    assert len(align(one, other)) >= 3000
