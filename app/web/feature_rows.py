"""The rows of a feature's page, and what else stands there many times, as markup. A template would call a function or
two for every value."""

from collections.abc import Sequence
from typing import Literal

from markupsafe import Markup, escape

from app import urls
from app.web import contexts as c
from app.web.example_heats import Context, example_heat, example_heats
from app.web.examples import Look, Section
from app.web.formats import percent, sig, thousands
from app.web.heat import visible

Colour = Literal["up", "down"]

SHORT = 11  # characters, for which the narrowest of these tables has room beside a bar and its number

SWITCHES = (
    ("view", "Show", (("snippet", "Snippets"), ("stacked", "Stacked"), ("full", "Full length"))),
    ("norm", "Colour by", (("latent", "Latent"), ("row", "Row"))),
    ("space", "Whitespace", (("plain", "Plain"), ("glyphs", "Glyphs"))),
)


def view_switches(page: c.FeaturePage, look: Look) -> Markup:
    """Links to the same page with its examples shown otherwise; the first choice of each is the default."""
    text, kept = page.test.text if page.test else None, look.query()
    out = []
    for name, title, choices in SWITCHES:
        out.append(f'<span><span class="muted">{title}</span>\n')
        for value, says in choices:
            chosen = {**kept, name: value if value != choices[0][0] else None}
            url = escape(urls.feature(page.address, page.index, text=text, **chosen))
            current = ' aria-current="true"' if kept[name] == chosen[name] else ""
            out.append(f'<a href="{url}" data-switch="{name}" data-value="{value}"{current}>{says}</a>\n')
        out.append("</span>\n")
    return Markup(f'<nav class="switches" aria-label="How examples are shown">\n{"".join(out)}</nav>')


def examples_links(rows: Sequence[Sequence[Section]]) -> Markup:
    """To each section of examples."""
    return Markup("".join(f'<a href="#{escape(one.anchor)}">{escape(short(one))}</a> ' for row in rows for one in row))


def short(section: Section) -> str:
    """``10–20%``, ``top``, ``most negative``: what links call it."""
    interval, sign = section.group.interval, "−" if section.group.sign < 0 else ""
    if interval.isdigit():
        return f"{sign}{10 * int(interval)}–{10 * int(interval) + 10}%"
    return "most negative" if sign and interval == "top" else interval


def company(others: Sequence[c.Neighbour | c.Coactive], look: Look) -> Markup:
    """Other latents, each with the middle of its own strongest context."""
    out, known = [], [one.example for one in others if one.example]
    contexts = [Context(one.tokens, one.activations, one.maximum, one.position) for one in known]
    heats = iter(example_heats(contexts, glyphs=look.space == "glyphs"))
    for one in others:
        url, card, heat = escape(one.url), escape(urls.card_of(one.url)), '<p class="muted">never fired</p>'
        if one.example:
            heat = _line(next(heats), "line")
        out.append(
            f'<li><p><a class="neighbour" href="{url}" data-card="{card}">{one.index}</a> {escape(one.label)} '
            f'<span class="num">{_near(one)}</span></p>\n{heat}</li>\n'
        )
    return Markup(f'<ol class="company">\n{"".join(out)}</ol>')


def heat_line(
    one: c.Example | c.Glimpse, maximum: float, *, glyphs: bool = False, kind: Literal["", "line"] = ""
) -> Markup:
    """A heat map alone; of a ``line`` the style sheet shows what stands around the peak."""
    heat = example_heat(one.tokens, one.activations, maximum, one.position, glyphs=glyphs)
    return Markup(_line(heat, kind))


def _line(heat: str, kind: str) -> str:
    return f'<p class="heat example-heat{f" {kind}" if kind else ""}" dir="auto">{heat}</p>'


def _near(one: c.Neighbour | c.Coactive) -> str:
    if isinstance(one, c.Neighbour):
        return f"{one.cosine:.3f}"
    return f"φ {one.phi:.2f} · {thousands(one.together)} together"


def logit_rows(items: Sequence[c.TokenLogit], kind: Colour, highest: float) -> Markup:
    """Of tokens and their logits; ``kind`` is the colour of the bars."""
    return Markup(
        "".join(
            f'<tr>{_unbroken(one.token)}<td class="bar-cell">{share_bar(abs(one.logit), highest, kind)}</td>'
            f'<td class="num">{one.logit:+.2f}</td></tr>\n'
            for one in items
        )
    )


def share_bar(value: float, highest: float, kind: Colour) -> Markup:
    """A bar as long as ``value`` is of ``highest``."""
    width = 100 * value / highest if highest else 0
    return Markup(
        f'<svg class="share {kind}" viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">'
        f'<rect x="0" width="{width:.1f}" height="10"/></svg>'
    )


def surest_rows(tokens: Sequence[c.TopToken]) -> Markup:
    """Of tokens by how often the latent fires on them."""
    return Markup(
        "".join(
            f'<tr>{_token(t.token)}<td class="num">{percent(t.probability)}</td>'
            f'<td class="num">{thousands(t.seen)}</td></tr>\n'
            for t in tokens
            if t.probability is not None and t.seen is not None
        )
    )


def strongest_rows(tokens: Sequence[c.TopToken]) -> Markup:
    """Of tokens by the latent's mean activation there."""
    means = ((t.token, t.mean) for t in tokens if t.mean is not None)
    return Markup("".join(f'<tr>{_token(token)}<td class="num">{sig(mean)}</td></tr>\n' for token, mean in means))


def _token(token: str) -> str:
    return f'<th scope="row"><code>{escape(visible(token))}</code></th>'


def _unbroken(token: str) -> str:
    """A short one on one line: its space ahead would stand alone on the first."""
    shown = visible(token)
    return f'<th scope="row"><code class="short">{escape(shown)}</code></th>' if len(shown) <= SHORT else _token(token)
