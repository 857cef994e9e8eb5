"""Examples as a reader sees them: one markup for every view, near-duplicates folded, signs side by side.

The same markup serves all views. The attributes ``data-view``, ``data-norm`` and ``data-space`` of the page's root
choose what the style sheet shows, so that a switch needs no new page and none needs a script.
"""

import html
import operator
import re
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from typing import Literal, NamedTuple

from markupsafe import Markup

from app import urls
from app.web import contexts as c
from app.web.formats import sig
from app.web.heat import LEVELS, SPECIAL, heat_class, whole_characters

View = Literal["snippet", "stacked", "full"]
Norm = Literal["latent", "row"]
Space = Literal["plain", "glyphs"]

NEAR = 10  # tokens on either side of the peak that a snippet shows
ALIKE = 0.8  # share of those that two examples have in common when one is folded under the other
GLYPHS = {"\n": "↵", "\r": "␍", "\t": "→", " ": "·"}
ROWS = {f"{by}{level}": f"{row}{level}" for by, row in ("ar", "nm") for level in range(LEVELS + 1)}  # classes by row
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


def shown_example(example: c.Example, page: c.FeaturePage, maximum: float, look: Look) -> Markup:
    """An example's heat map, and below it how strongly the latent fires, of which document, and where all values
    stand. Written here, not in a template: a page has sixty."""
    quiet, glyphs = example.interval == "random", look.space == "glyphs"
    heat = example_heat(
        example.tokens, example.activations, maximum, example.position, peak=not quiet, glyphs=glyphs
    )  # fmt: skip
    fires = f'<span class="num">{sig(example.activation)}</span> · ' if example.activation else ""
    values = urls.example(page.address, page.index, example.interval, example.sign, example.rank)
    return Markup(
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
    row = max(max(activations), -min(activations)) if activations else 0.0
    begin = ""
    if tokens and SPECIAL.fullmatch(tokens[0]):
        begin = f'<span class="bos" title="{html.escape(tokens[0])}">⊢</span>'
        tokens, activations, centre = tokens[1:], activations[1:], centre - 1
    shown, values, ends = whole_characters(tokens, activations)
    middle, peak = bisect_left(ends, centre), peak and centre >= 0
    first, last = bisect_left(ends, centre - NEAR), max(bisect_right(ends, centre + NEAR), middle + 1)
    spans = {
        place: _span(shown[place], value, maximum, row, peak and place == middle, glyphs)
        for place, value in enumerate(values)
        if value or (peak and place == middle)
    }
    marked = list(spans)

    def part(start: int, end: int) -> str:
        """Places start to end: a span where something fires, the text between as it is."""
        out, at = [], start
        for place in marked[bisect_left(marked, start) : bisect_left(marked, end)]:
            if at < place:
                out.append(_bare("".join(shown[at:place]), glyphs))
            out.append(spans[place])
            at = place + 1
        if at < end:
            out.append(_bare("".join(shown[at:end]), glyphs))
        return "".join(out)

    mid = spans.get(middle) or (f"<span>{part(middle, middle + 1)}</span>" if middle < len(shown) else "<span></span>")
    far, before, after, beyond = part(0, first), part(first, middle), part(middle + 1, last), part(last, len(shown))
    far, before = (begin + far, before) if centre >= NEAR else (far, begin + before)
    before = f'<span class="far">{far}</span>{before}' if far else before
    after = f'{after}<span class="far">{beyond}</span>' if beyond else after
    return Markup(f'<span class="l"><span>{before}</span></span>{mid}<span class="r">{after}</span>')


def _span(text: str, value: float, maximum: float, row: float, peak: bool, glyphs: bool) -> str:
    by_latent, by_row = heat_class(value, maximum), ROWS[heat_class(value, row)]
    shown = html.escape(text)
    if not shown.isprintable():
        shown = _BREAKS.sub(_glyph, shown)
    if glyphs:
        shown = shown.replace(" ", "<i class=o>·</i>")
    return f'<span class="{by_latent} {by_row}{" peak" if peak else ""}" title="{sig(value)}">{shown}</span>'


def _glyph(found: re.Match[str]) -> str:
    return f"<i>{GLYPHS[found[0]]}</i>"


def _bare(text: str, glyphs: bool) -> str:
    shown = html.escape(text)
    if shown.isprintable() and not glyphs:
        return shown
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
