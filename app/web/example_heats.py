"""Heat maps of contexts around their peaks. A page has eighty, so they are drawn together: what fires in any of them is
found and graded at once."""

import html
import re
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from markupsafe import Markup

from app.web.formats import sig
from app.web.heat import CLASSES, SPECIAL, escaped, heat_levels, level_classes, visible, whole_characters

NEAR = 10  # tokens on either side of the peak that a snippet shows
GLYPHS = {"\n": "↵", "\r": "␍", "\t": "→", " ": "·"}
ROW_CLASSES = level_classes("r", "m")
_BREAKS = re.compile(r"[\n\r\t]")
_WHITE = re.compile(r"[\n\r\t ]")


class Context(NamedTuple):
    """Tokens, each with what a latent does there. maximum: what the colours by latent go up to; centre: the place that
    snippets show the surroundings of; peak: whether it is underlined."""

    tokens: Sequence[str]
    activations: Sequence[float]
    maximum: float
    centre: int
    peak: bool = True


class _Laid(NamedTuple):
    """Where a context's texts begin among all, how many there are, and the places of its parts in them."""

    begin: str
    start: int
    length: int
    first: int
    middle: int
    last: int
    centred: bool


def example_heat(
    tokens: Sequence[str],
    activations: Sequence[float],
    maximum: float,
    centre: int,
    *,
    peak: bool = True,
    glyphs: bool = False,
) -> Markup:
    """As ``example_heats``, of one."""
    return Markup(example_heats([Context(tokens, activations, maximum, centre, peak)], glyphs=glyphs)[0])


def example_heats(contexts: Sequence[Context], *, glyphs: bool = False) -> list[str]:
    """The inside of each context's heat map: what stands before its centre, the centre, what stands after it.

    Tokens further than NEAR from the centre stand in ``.far``, which snippets hide. A token's class ``aN`` is its
    level by ``maximum``, ``rN`` that by the strongest of its context (``nN`` and ``mN`` where it is negative). ``i.n``
    is a line break, which some views show as a space, ``i.o`` a glyph in the place of whitespace.
    """
    texts: list[str] = []
    values: list[float] = []
    laid: list[_Laid] = []
    peaks: set[int] = set()
    for one in contexts:
        tokens, activations, centre, begin = one.tokens, one.activations, one.centre, ""
        if tokens and tokens[0][:1] == "<" and SPECIAL.fullmatch(tokens[0]):
            begin = f'<span class="bos" title="{html.escape(visible(tokens[0]))}">⊢</span>'
            tokens, activations, centre = tokens[1:], activations[1:], centre - 1
        shown, heat, ends = whole_characters(tokens, activations)
        start, length = len(texts), len(shown)
        if length == len(tokens):  # each token stands at its own place
            first, middle, last = max(centre - NEAR, 0), max(centre, 0), max(centre + NEAR, 0) + 1
        else:
            middle = bisect_left(ends, centre)
            first, last = bisect_left(ends, centre - NEAR), max(bisect_right(ends, centre + NEAR), middle + 1)
        laid.append(_Laid(begin, start, length, first, middle, last, centre >= NEAR))
        if one.peak and centre >= 0 and middle < length:
            peaks.add(start + middle)
        texts += shown
        values += heat
    pieces = escaped(texts)
    spans = _spans(pieces, values, laid, [one.maximum for one in contexts], peaks, glyphs)
    if glyphs:
        pieces = [_WHITE.sub(_white, piece) for piece in pieces]
    for place, span in spans.items():
        pieces[place] = span
    return [_joined(pieces, one, spans) for one in laid]


def _joined(pieces: Sequence[str], one: _Laid, spans: Mapping[int, str]) -> str:
    """No span holds a line break."""
    start, middle, end = one.start, one.start + one.middle, one.start + one.length
    first, last, after = start + one.first, min(start + one.last, end), min(middle + 1, end)
    centre = "".join(pieces[middle:after])
    mid = centre if middle < after and middle in spans else f"<span>{centre}</span>"
    far, near = "".join(pieces[start:first]), "".join(pieces[first:middle])
    far, near = (one.begin + far, near) if one.centred else (far, one.begin + near)
    before = f'<span class="far">{far}</span>{near}' if far else near
    behind, beyond = "".join(pieces[after:last]), "".join(pieces[last:end])
    if beyond:
        behind += f'<span class="far">{beyond}</span>'
    heat = f'<span class="l"><span>{before}</span></span>{mid}<span class="r">{behind}</span>'
    return heat.replace("\n", "<i class=n>\n</i>").replace("\r", "")


def _spans(
    texts: Sequence[str],
    values: Sequence[float],
    laid: Sequence[_Laid],
    maxima: Sequence[float],
    peaks: set[int],
    glyphs: bool,
) -> dict[int, str]:
    """By place, an element wherever something fires and at ``peaks``. texts: escaped."""
    every = np.frombuffer(array("d", values))
    places = np.flatnonzero(every)
    fires = every[places]
    of = np.searchsorted([one.start for one in laid], places, side="right") - 1  # an empty context has no place
    strongest = np.zeros(len(laid))
    np.maximum.at(strongest, of, np.abs(fires))
    by_latent, by_row = heat_levels(fires, np.array(maxima, np.float64)[of]), heat_levels(fires, strongest[of])
    graded = list(zip(places.tolist(), fires.tolist(), by_latent.tolist(), by_row.tolist(), strict=True))
    graded += [(place, 0.0, 0, 0) for place in peaks if not values[place]]
    spans = {}
    for place, value, level, row_level in graded:
        text, mark = texts[place], " peak" if place in peaks else ""
        if not text.isprintable():
            text = _BREAKS.sub(_break, text)
        if glyphs:
            text = text.replace(" ", "<i class=o>·</i>")
        spans[place] = (
            f'<span class="{CLASSES[level]} {ROW_CLASSES[row_level]}{mark}" title="{sig(value)}">{text}</span>'
        )
    return spans


def _break(found: re.Match[str]) -> str:
    return f"<i>{GLYPHS[found[0]]}</i>"


def _white(found: re.Match[str]) -> str:
    return f"<i class=o>{GLYPHS[found[0]]}</i>"
