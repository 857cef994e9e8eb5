"""Examples as a reader sees them: one markup for every view, near-duplicates folded, signs side by side.

The same markup serves all views. The attributes ``data-view``, ``data-norm`` and ``data-space`` of the page's root
choose what the style sheet shows, so that a switch needs no new page and none needs a script.
"""

import html
import operator
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

from markupsafe import Markup, escape

from app import urls
from app.web import contexts as c
from app.web.example_heats import NEAR, Context, example_heats
from app.web.formats import sig

View = Literal["snippet", "stacked", "full"]
Norm = Literal["latent", "row"]
Space = Literal["plain", "glyphs"]

ALIKE = 0.8  # share of those that two examples have in common when one is folded under the other
_BEYOND = [None] * NEAR


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
    peak = max(page.max, -page.min)
    contexts = [
        Context(one.tokens, one.activations, peak, one.position, one.interval != "random")
        for row in rows for section in row for folded in section.shown for one in (folded.example, *folded.repeats)
    ]  # fmt: skip
    heats, out = iter(example_heats(contexts, glyphs=look.space == "glyphs")), []
    for row in rows:
        shown = "".join([_section(section, page, heats) for section in row])
        signed = page.max > 0 > page.min and row[0].group.interval not in ("near", "random")
        out.append(f'<div class="signs">{shown}</div>' if signed else shown)
    return Markup("".join(out))


def _section(section: Section, page: c.FeaturePage, heats: Iterator[str]) -> str:
    """heats: those of its examples are the next."""
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
        out.append(f'<article class="example">{_example(example, page, next(heats))}\n')
        if repeats:
            count = f"{len(repeats)} near-duplicate{'s' if len(repeats) > 1 else ''}"
            shown = "".join([f"{_example(one, page, next(heats))}\n" for one in repeats])
            out.append(f'<details class="repeats"><summary>{count}</summary>\n{shown}</details>')
        out.append("</article>\n")
    return "".join([*out, "</section>"])


def _example(example: c.Example, page: c.FeaturePage, heat: str) -> str:
    """An example's heat map, and below it how strongly the latent fires, of which document, and where all values
    stand."""
    fires = f'<span class="num">{sig(example.activation)}</span> · ' if example.activation else ""
    values = urls.example(page.address, page.index, example.interval, example.sign, example.rank)
    return (
        f'<p class="heat example-heat" dir="auto">{heat}</p>\n<div class="about"><p class="source">{fires}'
        f'{html.escape(example.document)} <a class="values" href="{html.escape(values)}">Values</a></p></div>'
    )


def readings(example: c.Example) -> list[tuple[int, str, float]]:
    """(place in the sequence, token, value) wherever an example's value is not zero."""
    return [
        (example.start + place, token, value)
        for place, (token, value) in enumerate(zip(example.tokens, example.activations, strict=True))
        if value
    ]
