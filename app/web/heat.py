"""Token heat maps."""

import html
import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from markupsafe import Markup

from app.web.formats import sig

FloatArray = np.ndarray[Any, np.dtype[np.float64]]
IntArray = np.ndarray[Any, np.dtype[np.int64]]
LEVELS = 10
SPECIAL = re.compile(r"<\|[^|<>]*\|>|<s>|<bos>")
_GLYPHS = {code: 0x2400 + code for code in range(32)} | {0x7F: "␡"} | str.maketrans({"\n": "↵", "\t": "→"})


def level_classes(positive: str, negative: str) -> list[str]:
    """The class of each level, at that index: of negative levels as of others."""
    falling = [f"{negative}{level}" for level in range(LEVELS, 0, -1)]
    return [f"{positive}{level}" for level in range(LEVELS + 1)] + falling


# The share from which each level is taken: where 10 * log(1 + 9 share) / log 10 rounds up to it, and 0 for the first.
_FROM = [0.0, *((10 ** ((level - 0.5) / LEVELS) - 1) / 9 for level in range(2, LEVELS + 1))]
CLASSES = level_classes("a", "n")


class Span(NamedTuple):
    """A piece of text in a heat map: CSS class, exact value, whether it is the peak."""

    text: str
    heat: str
    value: float
    peak: bool


def heat_class(value: float, maximum: float) -> str:
    """``a0``..``a10`` for activations up to ``maximum``, ``n1``..``n10`` for negative ones.

    Log-like: level = 10 * log(1 + 9 share) / log 10, at least 1 for anything active, so that weak firing shows.
    """
    return CLASSES[heat_level(value, maximum)]


def heat_level(value: float, maximum: float) -> int:
    """The number of its ``heat_class``, below 0 for ``n1``..``n10``."""
    if value == 0 or maximum <= 0:
        return 0
    return -bisect_right(_FROM, -value / maximum) if value < 0 else bisect_right(_FROM, value / maximum)


def heat_levels(values: FloatArray, maxima: FloatArray) -> IntArray:
    """``heat_level`` of each value by its own maximum; no value is 0."""
    shares = np.divide(np.abs(values), maxima, out=np.zeros_like(values), where=maxima > 0)
    levels = np.searchsorted(_FROM, shares, side="right") * (maxima > 0)
    return np.where(values < 0, -levels, levels)


def colour_scale(maximum: float, minimum: float) -> Markup:
    """Every colour of a heat map, each with the activation that it goes up or down to."""
    levels = [(level, 10 ** (level / LEVELS) - 1) for level in range(1, LEVELS + 1)]
    out = [f'<span class="a{level}" title="up to {sig(maximum * top / 9)}">&nbsp;</span>' for level, top in levels]
    if minimum < 0:
        low = (f'<span class="n{n}" title="down to {sig(minimum * top / 9)}">&nbsp;</span>' for n, top in levels[::-1])
        out = [*low, '<span class="a0" title="0">&nbsp;</span>', *out]
    return Markup("".join(out))


def whole_characters(
    tokens: Sequence[str], activations: Sequence[float]
) -> tuple[Sequence[str], Sequence[float], Sequence[int]]:
    """Tokens that hold only part of a character joined with the one that completes it: the texts, of each the value of
    largest magnitude, and the place of its last token."""
    if all(tokens):
        return tokens, activations, range(len(tokens))
    texts: list[str] = []
    values: list[float] = []
    ends: list[int] = []
    value, last = 0.0, len(tokens) - 1
    for place, (token, activation) in enumerate(zip(tokens, activations, strict=True)):
        if abs(activation) > abs(value):
            value = activation
        if token or place == last:
            texts.append(token)
            values.append(value)
            ends.append(place)
            value = 0.0
    return texts, values, ends


def spans(
    tokens: Sequence[str], activations: Sequence[float], maximum: float, peak: int | None
) -> Iterator[Span | str]:
    """Tokens as spans where something fires and at the peak, as bare text elsewhere; whole characters only."""
    texts, values, ends = whole_characters(tokens, activations)
    marked = None if peak is None or peak < 0 else bisect_left(ends, peak)
    for place, (text, value) in enumerate(zip(texts, values, strict=True)):
        if value or place == marked:
            yield Span(text, heat_class(value, maximum), value, place == marked)
        else:
            yield text


def heat(tokens: Sequence[str], activations: Sequence[float], maximum: float, peak: int | None) -> Markup:
    """The inside of a heat map. Text where nothing fires stands bare, so a page holds few elements. A leading special
    token such as ``<|im_start|>`` is only marked: it begins the sequence, and is no text."""
    parts: list[str] = []
    if tokens and SPECIAL.fullmatch(tokens[0]):
        parts.append(f'<span class="bos" title="{html.escape(tokens[0])}">⊢</span>')
        tokens, activations = tokens[1:], activations[1:]
        peak = None if peak is None else peak - 1
    bare: list[str] = []
    for span in spans(tokens, activations, maximum, peak):
        if isinstance(span, str):
            bare.append(span)
            continue
        parts.append(_escaped("".join(bare)))
        bare.clear()
        classes = f"{span.heat} peak" if span.peak else span.heat
        parts.append(f'<span class="{classes}" title="{sig(span.value)}">{_escaped(span.text)}</span>')
    parts.append(_escaped("".join(bare)))
    return Markup("".join(parts))


def heat_row(length: int, activations: Sequence[tuple[int, float]]) -> list[float]:
    """Sparse activations as one value a token."""
    row = [0.0] * length
    for place, value in activations:
        row[place] = value
    return row


def floats(values: Sequence[float | None]) -> list[float]:
    return [value or 0.0 for value in values]


def escaped(texts: Sequence[str]) -> list[str]:
    """Each text as HTML, all at once: a page has thousands."""
    plain = "\0".join(texts)
    whole = html.escape(plain)
    if whole == plain:
        return [*texts]
    out = whole.split("\0")
    return out if len(out) == len(texts) else [html.escape(text) for text in texts]  # where one holds what parts them


def _escaped(text: str) -> str:
    return html.escape(visible(text))


def visible(token: str) -> str:
    """Line breaks and tabs as glyphs, so that they take one place in a line; other control characters as well, since
    they would not be seen."""
    return token if token.isprintable() else token.translate(_GLYPHS)
