"""Examples as a reader sees them: one markup for every view, near-duplicates folded, signs side by side.

The same markup serves all views. The attributes ``data-view``, ``data-norm`` and ``data-space`` of the page's root
choose what the style sheet shows, so that a switch needs no new page and none needs a script.
"""

import html
import operator
import re
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from functools import lru_cache
from typing import Literal, NamedTuple

from markupsafe import Markup

from app.web import contexts as c
from app.web.formats import sig
from app.web.heat import SPECIAL, Span, heat_class, spans

View = Literal["snippet", "stacked", "full"]
Norm = Literal["latent", "row"]
Space = Literal["plain", "glyphs"]

NEAR = 10  # tokens on either side of the peak that a snippet shows
ALIKE = 0.8  # share of those that two examples have in common when one is folded under the other
GLYPHS = {"\n": "↵", "\r": "␍", "\t": "→", " ": "·"}
_BREAKS = re.compile(r"[\n\r\t]")
_WHITE = re.compile(r"[\n\r\t ]")


class Look(NamedTuple):
    """How examples are shown: ``?view=&norm=&space=``."""

    view: View = "snippet"
    norm: Norm = "latent"
    space: Space = "plain"

    def query(self) -> dict[str, str | None]:
        """What a URL needs to say of it: what is not the default."""
        return {name: value if value != Look._field_defaults[name] else None for name, value in self._asdict().items()}


class Folded(NamedTuple):
    """An example and those that read nearly the same around their peaks."""

    example: c.Example
    repeats: list[c.Example]


class Section(NamedTuple):
    """The examples of one interval and sign; ``anchor`` is its id in the page."""

    anchor: str
    group: c.ExampleGroup
    shown: list[Folded]


def anchor(interval: str, sign: int) -> str:
    name = f"interval-{interval}" if interval.isdigit() else interval
    return name if sign > 0 else f"negative-{name}"


def rows(groups: Sequence[c.ExampleGroup]) -> list[list[Section]]:
    """Sections in the order of the page; those of the same interval, one a sign, stand in one row."""
    out: dict[str, list[Section]] = {}
    for group in groups:
        out.setdefault(group.interval, []).append(
            Section(anchor(group.interval, group.sign), group, fold(group.examples))
        )
    return list(out.values())


def fold(examples: Sequence[c.Example]) -> list[Folded]:
    """Each example under the first, by rank, that it is alike to."""
    kept: list[tuple[list[int | None], Folded]] = []
    for example in examples:
        mine = _around(example)
        for other, under in kept:
            if alike(mine, other):
                under.repeats.append(example)
                break
        else:
            kept.append((mine, Folded(example, [])))
    return [folded for _, folded in kept]


def _around(example: c.Example) -> list[int | None]:
    """The token ids from NEAR before the peak to NEAR after it; None beyond the window."""
    held = range(len(example.token_ids))
    around = range(example.position - NEAR, example.position + NEAR + 1)
    return [example.token_ids[place] if place in held else None for place in around]


def alike(a: Sequence[int | None], b: Sequence[int | None]) -> bool:
    """Whether at least ALIKE of the places that hold a token in either hold the same one in both."""
    neither = sum(x is None and y is None for x, y in zip(a, b, strict=True))
    same = sum(map(operator.eq, a, b)) - neither
    return bool(same >= ALIKE * (len(a) - neither))


def example_heat(
    tokens: Sequence[str],
    activations: Sequence[float],
    maximum: float,
    centre: int,
    *,
    peak: bool = True,
    glyphs: bool = False,
) -> Markup:
    """The inside of an example's heat map: what stands before its centre, the centre, what stands after it.

    Tokens further than NEAR from the centre stand in ``.far``, which snippets hide. A token's class ``aN`` is its
    level by ``maximum``, ``rN`` that by the strongest of the row (``nN`` and ``mN`` where it is negative). ``i.n`` is a
    line break, which some views show as a space, ``i.o`` a glyph in the place of whitespace.
    """
    row = max(map(abs, activations), default=0.0)
    begin = ""
    if tokens and SPECIAL.fullmatch(tokens[0]):
        begin = f'<span class="bos" title="{html.escape(tokens[0])}">⊢</span>'
        tokens, activations, centre = tokens[1:], activations[1:], centre - 1
    ends = [place for place, token in enumerate(tokens) if token or place == len(tokens) - 1]
    shown = [
        _span(item, row, glyphs) if isinstance(item, Span) else _bare(item, glyphs)
        for item in spans(tokens, activations, maximum, centre if peak else None)
    ]
    middle = bisect_left(ends, centre)
    first, last = bisect_left(ends, centre - NEAR), max(bisect_right(ends, centre + NEAR), middle + 1)
    mid = "".join(shown[middle : middle + 1])
    if mid and not mid.startswith("<span"):
        mid = f"<span>{mid}</span>"
    parts = (shown[:first], shown[first:middle], shown[middle + 1 : last], shown[last:])
    far, before, after, beyond = ("".join(part) for part in parts)
    far, before = (begin + far, before) if centre >= NEAR else (far, begin + before)
    before = f'<span class="far">{far}</span>{before}' if far else before
    after = f'{after}<span class="far">{beyond}</span>' if beyond else after
    return Markup(f'<span class="l"><span>{before}</span></span>{mid or "<span></span>"}<span class="r">{after}</span>')


def _span(span: Span, row: float, glyphs: bool) -> str:
    level = heat_class(span.value, row)
    by_row = level.replace("a", "r").replace("n", "m")
    classes = f"{span.heat} {by_row} peak" if span.peak else f"{span.heat} {by_row}"
    shown = html.escape(span.text)
    shown = _BREAKS.sub(lambda found: f"<i>{GLYPHS[found[0]]}</i>", shown)
    if glyphs:
        shown = shown.replace(" ", "<i class=o>·</i>")
    return f'<span class="{classes}" title="{sig(span.value)}">{shown}</span>'


@lru_cache(maxsize=1 << 16)  # a page has thousands of tokens, and a text few different ones
def _bare(text: str, glyphs: bool) -> str:
    shown = html.escape(text)
    if glyphs:
        return _WHITE.sub(lambda found: f"<i class=o>{GLYPHS[found[0]]}</i>", shown)
    return shown.replace("\n", "<i class=n>\n</i>").replace("\r", "")


def readings(example: c.Example) -> list[tuple[int, str, float]]:
    """(place in the sequence, token, value) wherever an example's value is not zero."""
    return [
        (example.start + place, token, value)
        for place, (token, value) in enumerate(zip(example.tokens, example.activations, strict=True))
        if value
    ]
