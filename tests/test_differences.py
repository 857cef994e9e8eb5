"""Latents that tell texts apart, on readings written by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.live.differences import contrast, differences
from app.live.prompt import Reading
from app.live.ranking import Scale


def reading(*entries):
    """Of (position, latent, value), sorted as the engine gives them."""
    rows = sorted(entries)
    position, latent, value = ([row[i] for row in rows] for i in range(3))
    return Reading(np.array(position, np.int32), np.array(latent, np.int32), np.array(value, np.float32), None)


# Rarity min(1, -log10(density) / 4): 1, 0.5, 0.25, 1, 1, 1.
SCALE = Scale(np.array([10, 10, 10, 4, 0, 8], np.float32), np.array([1e-4, 1e-2, 1e-1, 1e-5, 1e-4, 1e-4], np.float32))


def indices(found):
    return [x.index for x in found]


def test_what_fires_on_one_alone_and_what_changes_by_hand():
    first = reading((1, 0, 5.0), (1, 1, 8.0), (2, 0, 6.0), (3, 2, 10.0), (2, 3, 1.0), (3, 5, 4.0))
    second = reading((1, 2, 10.0), (2, 3, 3.0), (4, 4, 0.5), (1, 5, -8.0))
    found = differences(first, second, SCALE, scope=None, top=10, chosen=[1, 4])
    assert indices(found.only_first) == [0, 1]
    assert indices(found.only_second) == [4]
    assert indices(found.both) == [5, 3, 2]  # 0.5 + 1, 0.25 - 0.75, 1 - 1
    assert found.counts == (2, 1, 3)
    assert [x.difference for x in found.only_first] == pytest.approx([0.6, 0.8 * 0.5])
    assert found.only_second[0].difference == pytest.approx(-1)  # never fired in the harvest: its share is 1
    assert [x.difference for x in found.both] == pytest.approx([1.5, -0.5, 0])
    zero = found.only_first[0]
    assert (zero.first.activation, zero.first.position, zero.first.share) == (6.0, 2, pytest.approx(0.6))
    assert (zero.second.activation, zero.second.position) == (0.0, None)
    assert (found.both[0].second.activation, found.both[0].second.share) == (-8.0, -1.0)
    assert indices(found.chosen) == [1, 4]


def test_at_a_place_only_what_stands_there_counts():
    first = reading((1, 0, 5.0), (2, 0, 6.0), (2, 1, 1.0))
    second = reading((1, 0, 2.0), (3, 1, 1.0))
    at = differences(first, second, SCALE, scope=(range(2, 3), range(3, 4)), top=10)
    assert (indices(at.only_first), indices(at.only_second), indices(at.both)) == ([0], [], [1])
    alone = differences(first, second, SCALE, scope=(range(1, 2), range(0)), top=10)
    assert (indices(alone.only_first), indices(alone.only_second), indices(alone.both)) == ([0], [], [])


def test_filters_and_top():
    first = reading((1, 0, 5.0), (1, 1, 8.0), (1, 2, 10.0))
    nothing = reading()
    assert indices(differences(first, nothing, SCALE, scope=None, top=1).only_first) == [0]
    assert differences(first, nothing, SCALE, scope=None, top=1).counts == (3, 0, 0)
    assert indices(differences(first, nothing, SCALE, scope=None, top=9, densest=0.05).only_first) == [0, 1]
    assert indices(differences(first, nothing, SCALE, scope=None, top=9, among={2}).only_first) == [2]


HERE = [
    reading((1, 0, 5.0), (2, 1, 9.0), (1, 3, 4.0), (2, 5, -1.0)),
    reading((3, 0, 8.0), (2, 1, 10.0), (2, 5, 8.0)),
]
THERE = [reading((1, 1, 1.0)), reading((1, 2, 10.0))]


def test_contrast_ranks_by_the_least_strength_of_what_fires_on_every_text():
    found, count = contrast(HERE, THERE, SCALE, every=True, threshold=0, top=9)
    assert indices(found) == [0, 5]
    assert count == 2
    assert [x.strength for x in found] == pytest.approx([0.5, 0.125])
    assert [side.position for side in found[0].here] == [1, 3]
    assert [side.position for side in found[0].there] == [None, None]
    above, _ = contrast(HERE, THERE, SCALE, every=True, threshold=0.2, top=9)
    assert indices(above) == [0, 1]  # 1 stays at 0.1 on the second side, 5 at 0.125 on the first
    assert above[1].there[0].activation == 1.0
    assert indices(contrast(HERE, [], SCALE, every=True, threshold=0, top=9)[0]) == [0, 1, 5]


def test_contrast_with_any_puts_first_what_fires_on_most_texts():
    found, count = contrast(HERE, THERE, SCALE, every=False, threshold=0, top=9)
    assert [(x.index, x.count) for x in found] == [(0, 2), (5, 2), (3, 1)]
    assert found[2].strength == pytest.approx(1)
    assert contrast(HERE, THERE, SCALE, every=False, threshold=0, top=1)[1] == count == 3
    assert indices(contrast(HERE, THERE, SCALE, every=False, threshold=0, top=9, among={3})[0]) == [3]
    assert contrast([reading()], THERE, SCALE, every=False, threshold=0, top=9) == ([], 0)
    assert contrast([reading()], [], SCALE, every=True, threshold=0, top=9) == ([], 0)


ENTRIES = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 5), st.sampled_from([-2.0, -0.5, 0.5, 1.0, 3.0])),
    max_size=12, unique_by=lambda entry: entry[:2],
)  # fmt: skip


@given(ENTRIES, ENTRIES)
def test_exchanging_the_texts_exchanges_the_sides_and_signs(a, b):
    one, other = reading(*a), reading(*b)
    there, back = (differences(x, y, SCALE, scope=None, top=50) for x, y in ((one, other), (other, one)))
    assert indices(there.only_first) == indices(back.only_second)
    assert [x.difference for x in there.both] == [-x.difference for x in back.both]
    assert {x.index for x in there.only_first} == {e[1] for e in a} - {e[1] for e in b}
    assert {x.index for x in there.both} == {e[1] for e in a} & {e[1] for e in b}
    alone = {x.index for x in contrast([one], [other], SCALE, every=True, threshold=0, top=50)[0]}
    assert alone == {x.index for x in there.only_first}
