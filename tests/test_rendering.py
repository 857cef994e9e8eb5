"""Heat maps: classes, joined tokens, and the contrast of every level in both themes."""

import re

import pytest

from app.subject.tokens import Vocabulary
from app.web.heat import Span, heat, heat_class, spans
from app.web.rendering import ROOT


def luminance(colour):
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(a, b):
    light, dark = sorted((luminance(a), luminance(b)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("theme", [0, 1, 2])
def test_text_is_readable_at_every_level_in_both_themes(theme):
    css = (ROOT / "static" / "site.css").read_text()
    blocks = re.findall(r"color-scheme: (?:light|dark);([^}]*)", css)
    colours = dict(re.findall(r"--([\w]+): (#[0-9a-f]{6})", blocks[theme]))
    assert len([name for name in colours if re.fullmatch(r"[an]\d+", name)]) == 20
    for name, colour in colours.items():
        if re.fullmatch(r"[an]\d+|bg|panel", name):
            assert contrast(colours["text"], colour) >= 4.5, name


def test_every_class_has_its_colour_by_latent_and_by_row():
    css = (ROOT / "static" / "site.css").read_text() + (ROOT / "static" / "feature.css").read_text()
    backgrounds = dict(re.findall(r"^([^\n{}]*\.[anrm]\d+) \{ background: ([^;]*); \}", css, re.M))
    wanted = {".a0": "none"}
    for level in range(1, 11):
        wanted |= {f".a{level}": f"var(--a{level})", f".n{level}": f"var(--n{level})"}
        by_row = '[data-norm="row"] '
        wanted |= {f"{by_row}.r{level}": f"var(--a{level})", f"{by_row}.m{level}": f"var(--n{level})"}
    assert backgrounds == wanted


def test_classes_rise_with_the_activation_and_show_weak_firing():
    levels = [int(heat_class(x / 100, 1.0)[1:]) for x in range(101)]
    assert levels == sorted(levels)
    assert (levels[0], levels[1], levels[100]) == (0, 1, 10)
    assert heat_class(-1.0, 1.0) == "n10"
    assert heat_class(5.0, 1.0) == "a10"


def test_a_character_of_several_tokens_is_one_span_with_the_strongest_value():
    made = list(spans(["a", "", "", "🎉", "b"], [0.0, 1.0, -3.0, 2.0, 0.0], 3.0, 2))
    assert made == ["a", Span("🎉", "n10", -3.0, True), "b"]


def test_a_heat_map_marks_only_what_fires_and_escapes_text():
    made = heat(["<b>", " &", "\n", "x"], [0.0, 0.0, 0.5, 0.0], 1.0, 2)
    assert made == '&lt;b&gt; &amp;<span class="a7 peak" title="0.5">↵</span>x'


def test_pieces_put_a_split_character_at_its_last_token():
    vocabulary = Vocabulary([b"a", "🎉".encode()[:2], "🎉".encode()[2:], b"\xff"])
    assert vocabulary.pieces([0, 1, 2, 0]) == ["a", "", "🎉", "a"]
    assert vocabulary.pieces([0, 3]) == ["a", "\ufffd"]
    assert vocabulary.text(3) == "\\xff"
