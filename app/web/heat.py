"""Token heat maps."""

import html
import math
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from markupsafe import Markup

from app.web.formats import sig

LEVELS = 10
SPECIAL = re.compile(r"<\|[^|<>]*\|>|<s>|<bos>")


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
    if value == 0 or maximum <= 0:
        return "a0"
    share = min(abs(value) / maximum, 1.0)
    level = max(1, round(LEVELS * math.log10(1 + 9 * share)))
    return f"{'n' if value < 0 else 'a'}{level}"


def spans(
    tokens: Sequence[str], activations: Sequence[float], maximum: float, peak: int | None
) -> Iterator[Span | str]:
    """Tokens as spans where something fires and at the peak, as bare text elsewhere. Tokens that hold only part of
    a character join the one that completes it, with the value of largest magnitude."""
    value, is_peak, last = 0.0, False, len(tokens) - 1
    for place, (token, activation) in enumerate(zip(tokens, activations, strict=True)):
        if abs(activation) > abs(value):
            value = activation
        is_peak = is_peak or place == peak
        if not (token or place == last):
            continue
        if value or is_peak:
            yield Span(token, heat_class(value, maximum), value, is_peak)
            value, is_peak = 0.0, False
        else:
            yield token


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


def _escaped(text: str) -> str:
    return html.escape(visible(text))


def visible(token: str) -> str:
    """Line breaks and tabs as glyphs, so that they take one place in a line."""
    return token.replace("\r", "␍").replace("\n", "↵").replace("\t", "→")
