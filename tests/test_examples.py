"""What a reader sees of an example: views, levels by latent and by row, glyphs, folding; and the charts beside it."""

import re
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app import urls
from app.store.queries import example_record
from app.store.tables import TOP
from app.web import charts, patterns
from app.web.contexts import ExampleGroup, Histogram, Profile
from app.web.example_heats import GLYPHS, Context, example_heat, example_heats
from app.web.examples import Look, alike, fold, readings, rows


class Parts(HTMLParser):
    """The text of each part of an example: (class of the part, text) in order."""

    def __init__(self, markup):
        super().__init__()
        self.stack, self.parts = [], []
        self.feed(markup)

    def handle_starttag(self, tag, attrs):
        self.stack.append(dict(attrs).get("class", ""))

    def handle_endtag(self, tag):
        self.stack.pop()

    def handle_data(self, text):
        self.parts.append((tuple(self.stack), text))

    def text(self, wanted=lambda classes: True):
        return "".join(text for classes, text in self.parts if wanted(classes))


def test_what_stands_before_at_and_after_the_peak_and_what_is_far():
    tokens = [f" {i}" for i in range(30)]
    values = [0.0] * 30
    values[15], values[2], values[16] = 4.0, -1.0, 0.4
    parts = Parts(example_heat(tokens, values, 8.0, 15))
    assert parts.text() == "".join(tokens)
    assert parts.text(lambda classes: "far" in classes) == "".join(tokens[:5] + tokens[26:])
    assert parts.text(lambda classes: "l" in classes) == "".join(tokens[:15])
    assert parts.text(lambda classes: "r" in classes) == "".join(tokens[16:])
    assert (("a7 r10 peak",), " 15") in parts.parts
    assert any(classes[-1] == "n3 m5" and text == " 2" for classes, text in parts.parts)
    assert (("r", "a2 r3"), " 16") in parts.parts


@pytest.mark.parametrize(("centre", "far"), [(10, False), (11, True)])
def test_the_beginning_of_a_sequence_is_far_only_where_it_is(centre, far):
    tokens = ["<|im_start|>", *(f" {i}" for i in range(20))]
    parts = Parts(example_heat(tokens, [0.0] * 21, 1.0, centre)).parts
    assert [("far" in classes) for classes, text in parts if text == "⊢"] == [far]


def test_a_split_character_at_the_peak_shows_once_and_whole():
    parts = Parts(example_heat(["a", "", "", "🎉", "b"], [0.0, 1.0, 3.0, 0.0, 0.0], 3.0, 2))
    assert parts.parts == [(("l", ""), "a"), (("a10 r10 peak",), "🎉"), (("r",), "b")]


def test_a_silent_contexts_centre_is_not_underlined_and_near_misses_are():
    silent = [0.0] * 3
    assert "peak" not in example_heat(["a", " b", "c"], silent, 1.0, 1, peak=False)
    assert '<span class="a0 r0 peak" title="0"> b</span>' in example_heat(["a", " b", "c"], silent, 1.0, 1)


def breaks(text):
    return text.replace("↵", "\n").replace("→", "\t")


PIECES = st.sampled_from(["", "a", " b", "\n", "<", "&amp;", "\t", "·", "é"])


@given(st.lists(st.tuples(PIECES, st.sampled_from([0.0, -0.3, 1.5])), min_size=1), st.data())
def test_the_text_is_the_tokens_whatever_fires_and_glyphs_can_be_read_back(pairs, data):
    tokens, values = [token for token, _ in pairs], [value for _, value in pairs]
    centre = data.draw(st.integers(0, len(tokens) - 1))
    text = "".join(tokens)
    shown = Parts(example_heat(tokens, values, 2.0, centre)).text()
    assert breaks(shown) == text
    glyphs = Parts(example_heat(tokens, values, 2.0, centre, glyphs=True))
    assert not re.search(r"\s", glyphs.text())
    back = {sign: character for character, sign in GLYPHS.items()}
    read = (back[part] if classes[-1] == "o" else breaks(part) for classes, part in glyphs.parts)
    assert "".join(read) == text


ROWS = st.lists(
    st.tuples(
        st.lists(st.tuples(PIECES, st.sampled_from([0.0, -0.3, 1.5]))),
        st.sampled_from([0.0, 1.0, 3.0]), st.integers(0, 30), st.booleans(), st.booleans(),
    ),
    max_size=5,
)  # fmt: skip


@given(ROWS, st.booleans())
def test_contexts_that_are_drawn_together_look_as_each_alone(drawn, glyphs):
    given = [
        Context(
            ["<|im_start|>" if begins and not place else token for place, (token, _) in enumerate(pairs)],
            [value for _, value in pairs], maximum, min(centre, max(len(pairs) - 1, 0)), peak,
        )
        for pairs, maximum, centre, peak, begins in drawn
    ]  # fmt: skip
    alone = [example_heat(*one[:4], peak=one.peak, glyphs=glyphs) for one in given]
    assert example_heats(given, glyphs=glyphs) == alone


def test_a_look_says_in_urls_only_what_is_not_the_default():
    assert Look().query() == {"view": None, "norm": None, "space": None}
    assert Look(view="full", space="glyphs").query() == {"view": "full", "norm": None, "space": "glyphs"}


def test_examples_alike_in_four_of_five_places_are_folded_under_the_first():
    def one(rank, changed=0, shift=0):
        made = patterns.example("top", rank, 1.0, peak=15, shift=shift)
        ids = list(made.token_ids)
        ids[6 : 6 + changed] = [-1] * changed  # within ten of the peak
        return made.model_copy(update={"token_ids": ids})

    folded = fold([one(0), one(1, changed=4), one(2, changed=5), one(3, shift=1), one(4)])
    assert [(f.example.rank, [e.rank for e in f.repeats]) for f in folded] == [(0, [1, 4]), (2, []), (3, [])]


def test_windows_that_end_early_are_compared_where_either_has_a_token():
    assert alike([None, 1, 2, 3, 4], [None, 1, 2, 3, 4])
    assert not alike([None, None, 1, 2, None], [None, 5, 1, 2, None])


def test_signs_of_one_interval_stand_in_one_row():
    groups = [
        ExampleGroup(interval=name, sign=sign, title="", low=None, high=None, contexts=0, folded=0, examples=[])
        for sign, name in ((1, "top"), (1, "9"), (-1, "top"), (-1, "3"), (1, "random"))
    ]
    assert [[s.anchor for s in row] for row in rows(groups)] == [
        ["top", "negative-top"],
        ["interval-9"],
        ["negative-interval-3"],
        ["random"],
    ]
    assert urls.example_kind("0", -1) == "negative-interval-0"


def test_values_are_read_wherever_something_fires():
    made = patterns.example("top", 0, -2.0).model_copy(update={"start": 100})
    assert readings(made)[:2] == [(104, " signed", -18.0), (105, " in", -0.8)]
    assert len(readings(made)) == len(patterns.ACTS)


def test_every_bar_lies_in_its_interval_and_leads_to_it_where_there_are_examples():
    data = Histogram(edges=[0.5, 1.0, 2.0, 4.0, 8.0], counts=[4, 0, 2, 8])
    chart = charts.activation_chart(data, 8.0, 0.0, {"interval-7"})
    assert [(c.anchor, c.title, [b.title for b in c.bars]) for c in chart.clusters] == [
        (None, "0 to 10% of the maximum", ["4 from 0.5 to 1"]),
        (None, "30 to 40% of the maximum", ["2 from 2 to 4"]),
        ("interval-7", "70 to 80% of the maximum", ["8 from 4 to 8"]),
    ]
    heights = [b.height for c in chart.clusters for b in c.bars]
    tall = charts.HEIGHT - charts.TOP - charts.BOTTOM
    assert heights == pytest.approx([tall / 2, tall / 4, tall], abs=0.05)
    feet = [b.y + b.height for c in chart.clusters for b in c.bars]
    assert feet == pytest.approx([charts.HEIGHT - charts.BOTTOM] * 3, abs=0.06)


def test_negative_bars_lead_to_negative_intervals():
    data = Histogram(edges=[-8.0, -4.0, -2.0, 2.0, 4.0], counts=[1, 2, 0, 3])
    chart = charts.activation_chart(data, 4.0, -8.0, {"negative-interval-7", "interval-7"})
    assert [c.anchor for c in chart.clusters] == ["negative-interval-7", None, "interval-7"]
    assert chart.clusters[0].title == "70 to 80% of the minimum"
    assert [b.x for c in chart.clusters for b in c.bars] == sorted(b.x for c in chart.clusters for b in c.bars)


def test_a_profiles_bars_say_their_places_and_shares():
    profile = Profile(edges=[0, 1, 4, 8], shares=[0.0, 0.5, 0.25, 1.0], first=0, last=0, sequences=1)
    assert charts.places(profile) == ["0", "1 to 3", "4 to 7", "8 on"]
    bars = charts.profile_chart(profile).clusters[0].bars
    assert [b.title for b in bars][1:3] == ["50% of place 1 to 3", "25% of place 4 to 7"]
    assert [b.height > 0 for b in bars] == [False, True, True, True]
    assert charts.profile_values(profile)[-1] == ("8 on", "100%")


def test_an_axis_ends_on_round_numbers_below_the_highest():
    ticks = charts.y_ticks(120.0, str)
    assert [t.text for t in ticks] == ["0.0", "100.0"]
    assert [t.text for t in charts.y_ticks(0.37, lambda v: f"{v:.1f}")] == ["0.0", "0.2"]
    assert charts.y_ticks(0.0, str)[0].text == "0"


def test_heads_are_ranked_by_share():
    assert charts.ranked([0.1, 0.7, 0.2]) == [(1, 0.7), (2, 0.2), (0, 0.1)]


@pytest.mark.parametrize("scale", [1e-6, 0.046511486, 1.0, 27.5, 3e5])
def test_values_keep_their_digits_whatever_their_scale(scale):
    activation = float(np.float32(-scale))
    shares = np.array([1, -1 / 3, 1 / 1000], dtype="<f2")
    stored = (1, TOP, 0, 7, 5, 4, activation, [1, 2, 3], shares.tobytes(), [11, 12, 13, 14], "a text")
    kept = example_record(stored).activations
    assert kept[0] == 0.0
    assert kept[1:3] == pytest.approx([float(x) * activation for x in shares[:2]], rel=2e-6)
    assert kept[3] == pytest.approx(float(shares[2]) * activation, rel=1e-3)
    assert all(len(f"{abs(value):.15g}".replace(".", "").strip("0")) <= 8 for value in kept if abs(value) >= 1e-4)
    silent = (*stored[:6], 0.0, [], b"", *stored[9:])
    assert example_record(silent).activations == [0.0] * 4
