"""What of a feature's page is markup written in Python: text stays text, whatever tokens, labels and addresses hold."""

import html
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.web import charts, examples, feature_rows, patterns
from app.web.contexts import Coactive, Glimpse, Neighbour, TokenLogit, TopToken
from app.web.examples import Look
from app.web.heat import colour_scale, escaped

HOSTILE = "</code><script>alert('1')</script>&amp;\""


class Read(HTMLParser):
    """Every element's name and attributes, and all text."""

    def __init__(self, markup):
        super().__init__()
        self.elements, self.text = [], ""
        self.feed(str(markup))

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, text):
        self.text += text

    def names(self):
        return {tag for tag, _ in self.elements}


@given(st.lists(st.text(st.sampled_from("a<>&'\"\0\n"))))
def test_texts_escaped_at_once_are_each_as_alone(texts):
    assert escaped(texts) == [html.escape(text) for text in texts]


@pytest.mark.parametrize(
    ("markup", "names"),
    [
        (feature_rows.logit_rows([TokenLogit(token=HOSTILE, token_id=1, logit=-0.5)], "down", 1.0),
         {"tr", "th", "td", "code", "svg", "rect"}),
        (feature_rows.surest_rows([TopToken(token=HOSTILE, token_id=1, probability=0.5, seen=1234)]),
         {"tr", "th", "td", "code"}),
        (feature_rows.strongest_rows([TopToken(token=HOSTILE, token_id=1, mean=0.5)]), {"tr", "th", "td", "code"}),
        (charts.table_rows([(HOSTILE, "1")], [False, True]), {"tr", "td"}),
        (charts.chart_svg(charts.Chart([charts.Cluster(None, HOSTILE, [charts.Bar(0, 0, 1, 1, HOSTILE)])],
                                       [charts.Tick(1.0, HOSTILE)], []), HOSTILE, HOSTILE),
         {"svg", "g", "rect", "title", "text"}),
    ],
)  # fmt: skip
def test_text_is_escaped_in_rows_and_charts(markup, names):
    read = Read(markup)
    assert read.names() == names
    assert HOSTILE in read.text


def test_rows_say_their_values():
    logits = [TokenLogit(token=" a\n", token_id=1, logit=2.0), TokenLogit(token="b", token_id=2, logit=-0.5)]
    read = Read(feature_rows.logit_rows(logits, "up", 2.0))
    assert [attrs["width"] for tag, attrs in read.elements if tag == "rect"] == ["100.0", "25.0"]
    assert read.text == " a↵+2.00\nb-0.50\n"
    assert Read(feature_rows.share_bar(1.0, 0.0, "up")).elements[1][1]["width"] == "0.0"
    sure = feature_rows.surest_rows([TopToken(token="a", token_id=1, probability=0.5, seen=1234)])
    assert Read(sure).text == "a50%1,234\n"


def test_other_latents_stand_with_their_measure_and_their_own_context():
    glimpse = Glimpse(tokens=["<b>", "x"], activations=[0.0, 2.0], position=1, maximum=4.0)
    near = Neighbour(index=3, cosine=-0.5, label=HOSTILE, url="/saes/a'b/features/3?x=1&y=2", example=glimpse)
    together = Coactive(index=4, phi=0.25, together=1234, label="", url="#", example=None)
    read = Read(feature_rows.company([near, together], Look()))
    assert "script" not in read.names()
    assert "b" not in read.names()
    assert HOSTILE in read.text
    assert read.text.index("-0.500") < read.text.index("<b>") < read.text.index("φ 0.25 · 1,234 together")
    link = next(attrs for tag, attrs in read.elements if tag == "a")
    assert link == {"class": "neighbour", "href": near.url, "data-card": "/saes/a'b/features/3/card"}


def test_documents_and_folded_examples_are_text_too():
    first = patterns.example("top", 0, 1.0).model_copy(update={"document": HOSTILE})
    page = patterns.feature(examples=[first, first.model_copy(update={"rank": 1})])
    rows = patterns.panels(page, Look())["rows"]
    read = Read(examples.sections(rows, page, Look()))
    assert "script" not in read.names()
    assert read.text.count(HOSTILE) == 2
    assert "1 near-duplicate\n" in read.text


def test_links_to_sections_are_short():
    rows = patterns.panels(patterns.signed(), Look())["rows"]
    assert Read(feature_rows.examples_links(rows)).text == "top most negative 90–100% −90–100% "


def test_a_scale_has_a_colour_for_every_level_of_the_signs_there_are():
    classes = [attrs["class"] for _, attrs in Read(colour_scale(9.0, -3.0)).elements]
    assert classes == [*(f"n{n}" for n in range(10, 0, -1)), *(f"a{n}" for n in range(11))]
    titles = [attrs["title"] for _, attrs in Read(colour_scale(9.0, 0.0)).elements]
    assert (titles[0], titles[-1], len(titles)) == ("up to 0.259", "up to 9", 10)
