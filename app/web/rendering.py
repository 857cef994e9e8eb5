"""Jinja environment, number formats and token heat maps."""

import hashlib
import html
import math
import re
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from jinja2_fragments import render_block as _render_block
from markupsafe import Markup

from app import __version__, urls

ROOT = Path(__file__).resolve().parents[2]
LEVELS = 10
_SPECIAL = re.compile(r"<\|[^|<>]*\|>|<s>|<bos>")


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
    if tokens and _SPECIAL.fullmatch(tokens[0]):
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


def percent(share: float) -> str:
    return f"{100 * share:.3g}%"


def sig(value: float) -> str:
    """Three significant digits, without an exponent where that stays short."""
    return f"{value:.3g}" if value == 0 or 1e-3 <= abs(value) < 1e5 else f"{value:.2e}"


def thousands(value: int) -> str:
    return f"{value:,}"


def duration(seconds: float) -> str:
    """``7 s``, ``3 min 20 s``, ``2 h 5 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


@cache
def static(path: str) -> str:
    file = ROOT / "static" / path
    version = hashlib.sha256(file.read_bytes()).hexdigest()[:12] if file.is_file() else "missing"
    return urls.static(path, version)


@cache
def environment() -> Environment:
    env = Environment(
        loader=FileSystemLoader(ROOT / "templates"), autoescape=True, auto_reload=False, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    env.globals.update(urls=urls, static=static, version=__version__, heat_map=heat, visible=visible)
    env.filters.update(percent=percent, sig=sig, thousands=thousands, duration=duration)
    return env


def render_page(name: str, **context: Any) -> str:
    return environment().get_template(name).render(**context)


def render_block(name: str, block: str, **context: Any) -> str:
    return _render_block(environment(), name, block, **context)
