"""Examples as a reader sees them: one markup for every view, near-duplicates folded, signs side by side.

The same markup serves all views. The attributes ``data-view``, ``data-norm`` and ``data-space`` of the page's root
choose what the style sheet shows, so that a switch needs no new page and none needs a script.
"""

import html
import operator
import re
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import compress
from typing import Literal, NamedTuple

from markupsafe import Markup, escape

from app import urls
from app.web import contexts as c
from app.web.formats import sig
from app.web.heat import CLASSES, SPECIAL, escaped, heat_level, level_classes, whole_characters

View = Literal["snippet", "stacked", "full"]
Norm = Literal["latent", "row"]
Space = Literal["plain", "glyphs"]

NEAR = 10  # tokens on either side of the peak that a snippet shows
ALIKE = 0.8  # share of those that two examples have in common when one is folded under the other
GLYPHS = {"\n": "↵", "\r": "␍", "\t": "→", " ": "·"}
ROW_CLASSES = level_classes("r", "m")
_BEYOND = [None] * NEAR
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


def rows(groups: Sequence[c.ExampleGroup]) -> list[list[Section]]:
    """Sections in the order of the page; those of the same interval, one a sign, stand in one row."""
    out: dict[str, list[Section]] = {}
    for group in groups:
        out.setdefault(group.interval, []).append(
            Section(urls.example_kind(group.interval, group.sign), group, fold(group.examples))
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
    held = [*_BEYOND, *example.token_ids, *_BEYOND]
    return held[example.position : example.position + 2 * NEAR + 1]


def alike(a: Sequence[int | None], b: Sequence[int | None]) -> bool:
    """Whether at least ALIKE of the places that hold a token in either hold the same one in both."""
    same, places = sum(map(operator.eq, a, b)), len(a)
    if same < ALIKE * places:  # leaving out the places that neither holds only takes more from it
        return False
    neither = sum(x is None and y is None for x, y in zip(a, b, strict=True))
    return bool(same - neither >= ALIKE * (places - neither))


def sections(rows: Sequence[Sequence[Section]], page: c.FeaturePage, look: Look) -> Markup:
    """Every example of the page. Written here, not in a template: there are sixty."""
    peak, out = max(page.max, -page.min), []
    for row in rows:
        shown = "".join([_section(section, page, peak, look) for section in row])
        signed = page.max > 0 > page.min and row[0].group.interval not in ("near", "random")
        out.append(f'<div class="signs">{shown}</div>' if signed else shown)
    return Markup("".join(out))


def _section(section: Section, page: c.FeaturePage, maximum: float, look: Look) -> str:
    group, anchor = section.group, escape(section.anchor)
    low, high = group.low, group.high
    bounds = "" if low is None or high is None else f' <small class="muted">{sig(low)} to {sig(high)}</small>'
    out = [
        f'<section id="{anchor}" class="interval{" negative" if group.sign < 0 else ""}" '
        f'aria-labelledby="{anchor}-title"><h3 id="{anchor}-title">{escape(group.title)}{bounds}</h3>\n'
    ]
    if group.folded:
        stand = "stands" if group.folded == 1 else "stand"
        out.append(f'<p class="muted">{group.folded} drawn for this interval {stand} among the top above.</p>')
    for example, repeats in section.shown:
        out.append(f'<article class="example">{_example(example, page, maximum, look)}\n')
        if repeats:
            count = f"{len(repeats)} near-duplicate{'s' if len(repeats) > 1 else ''}"
            shown = "".join([f"{_example(one, page, maximum, look)}\n" for one in repeats])
            out.append(f'<details class="repeats"><summary>{count}</summary>\n{shown}</details>')
        out.append("</article>\n")
    return "".join([*out, "</section>"])


def _example(example: c.Example, page: c.FeaturePage, maximum: float, look: Look) -> str:
    """An example's heat map, and below it how strongly the latent fires, of which document, and where all values
    stand."""
    quiet, glyphs = example.interval == "random", look.space == "glyphs"
    heat = example_heat(
        example.tokens, example.activations, maximum, example.position, peak=not quiet, glyphs=glyphs
    )  # fmt: skip
    fires = f'<span class="num">{sig(example.activation)}</span> · ' if example.activation else ""
    values = urls.example(page.address, page.index, example.interval, example.sign, example.rank)
    return (
        f'<p class="heat example-heat" dir="auto">{heat}</p>\n<div class="about"><p class="source">{fires}'
        f'{html.escape(example.document)} <a class="values" href="{html.escape(values)}">Values</a></p></div>'
    )


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
    row = max(map(abs, filter(None, activations)), default=0.0)
    begin = ""
    if tokens and SPECIAL.fullmatch(tokens[0]):
        begin = f'<span class="bos" title="{html.escape(tokens[0])}">⊢</span>'
        tokens, activations, centre = tokens[1:], activations[1:], centre - 1
    shown, values, ends = whole_characters(tokens, activations)
    middle, peak = bisect_left(ends, centre), peak and centre >= 0
    first, last = bisect_left(ends, centre - NEAR), max(bisect_right(ends, centre + NEAR), middle + 1)
    pieces = escaped(shown)
    spans = _spans(pieces, values, maximum, row, middle if peak else None, glyphs)
    if glyphs:
        pieces = [_WHITE.sub(_white, piece) for piece in pieces]
    for place, span in spans.items():
        pieces[place] = span

    def part(start: int, end: int) -> str:
        """Places start to end. No span holds a line break."""
        return "".join(pieces[start:end]).replace("\n", "<i class=n>\n</i>").replace("\r", "")

    mid = spans.get(middle) or f"<span>{part(middle, middle + 1)}</span>"
    far, before, after, beyond = part(0, first), part(first, middle), part(middle + 1, last), part(last, len(pieces))
    far, before = (begin + far, before) if centre >= NEAR else (far, begin + before)
    before = f'<span class="far">{far}</span>{before}' if far else before
    after = f'{after}<span class="far">{beyond}</span>' if beyond else after
    return Markup(f'<span class="l"><span>{before}</span></span>{mid}<span class="r">{after}</span>')


def _spans(
    texts: Sequence[str], values: Sequence[float], maximum: float, row: float, peak: int | None, glyphs: bool
) -> dict[int, str]:
    """By place, an element wherever something fires and at ``peak``. texts: escaped."""
    places = [*compress(range(len(values)), values)]
    if peak is not None and peak < len(values) and not values[peak]:
        places.append(peak)
    spans = {}
    for place in places:
        value, text = values[place], texts[place]
        level, by_row = heat_level(value, maximum), heat_level(value, row)
        if not text.isprintable():
            text = _BREAKS.sub(_break, text)
        if glyphs:
            text = text.replace(" ", "<i class=o>·</i>")
        mark = " peak" if place == peak else ""
        spans[place] = f'<span class="{CLASSES[level]} {ROW_CLASSES[by_row]}{mark}" title="{sig(value)}">{text}</span>'
    return spans


def _break(found: re.Match[str]) -> str:
    return f"<i>{GLYPHS[found[0]]}</i>"


def _white(found: re.Match[str]) -> str:
    return f"<i class=o>{GLYPHS[found[0]]}</i>"


def readings(example: c.Example) -> list[tuple[int, str, float]]:
    """(place in the sequence, token, value) wherever an example's value is not zero."""
    return [
        (example.start + place, token, value)
        for place, (token, value) in enumerate(zip(example.tokens, example.activations, strict=True))
        if value
    ]
