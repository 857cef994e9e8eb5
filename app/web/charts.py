"""Small charts as SVG: geometry in, numbers out. They need no script, print, and hold links.

A chart is WIDTH x HEIGHT units; every bar carries what it shows as text.
"""

import html
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from markupsafe import Markup, escape

from app.web.contexts import Histogram, Profile
from app.web.formats import percent, sig, thousands
from app.web.heat import escaped

WIDTH, HEIGHT = 400.0, 190.0
LEFT, RIGHT, TOP, BOTTOM = 44.0, 6.0, 8.0, 36.0


class Bar(NamedTuple):
    x: float
    y: float
    width: float
    height: float
    title: str


class Cluster(NamedTuple):
    """Bars that belong together; ``anchor`` is where they lead, if anywhere."""

    anchor: str | None
    title: str
    bars: list[Bar]


class Tick(NamedTuple):
    at: float
    text: str


class Chart(NamedTuple):
    clusters: list[Cluster]
    x_ticks: list[Tick]
    y_ticks: list[Tick]


def activation_chart(data: Histogram, maximum: float, minimum: float, anchors: set[str]) -> Chart:
    """The histogram's bars gathered by interval, each a link to the interval's examples where there are any."""
    clusters: dict[str, list[Bar]] = {}
    highest, bins, said = max(data.counts, default=0), len(data.counts), [sig(edge) for edge in data.edges]
    for place, count in enumerate(data.counts):
        if not count:
            continue
        low, high = data.edges[place], data.edges[place + 1]
        centre = math.copysign(math.sqrt(abs(low * high)), low + high)
        peak = maximum if centre > 0 else -minimum
        interval = min(9, int(10 * abs(centre) / peak)) if peak > 0 else 0
        name = f"interval-{interval}" if centre > 0 else f"negative-interval-{interval}"
        title = f"{thousands(count)} from {said[place]} to {said[place + 1]}"
        clusters.setdefault(name, []).append(bar(place, bins, count / highest, title))
    shown = [Cluster(name if name in anchors else None, _interval(name), bars) for name, bars in clusters.items()]
    every = max(1, round(len(data.edges) / 6))
    at = [(min(x_of(place, bins), WIDTH - 14), place) for place in range(0, len(data.edges), every)]
    ticks = [Tick(x, sig2(data.edges[place])) for x, place in at]
    return Chart(shown, ticks, y_ticks(highest, lambda value: thousands(round(value))))


def chart_svg(chart: Chart, label: str, x: str) -> Markup:
    """The chart, named ``label``, ``x`` under its axis. Made here, not in a template: a page has a hundred bars."""
    out = [f'<svg class="chart" viewBox="0 0 {WIDTH:.0f} {HEIGHT:.0f}" role="group" aria-label="{escape(label)}">\n']
    for tick in chart.y_ticks:
        out.append(
            f'<line x1="44" x2="394" y1="{tick.at}" y2="{tick.at}"/>'
            f'<text x="40" y="{tick.at + 4}" text-anchor="end">{escape(tick.text)}</text>\n'
        )
    for tick in chart.x_ticks:
        out.append(f'<text x="{tick.at}" y="168" text-anchor="middle">{escape(tick.text)}</text>\n')
    out.append(f'<text x="219" y="186" text-anchor="middle">{escape(x)}</text>\n')
    for cluster in chart.clusters:
        begin, end = "<g>", "</g>"
        if cluster.anchor:
            begin = f'<a href="#{escape(cluster.anchor)}" aria-label="Examples of {escape(cluster.title)}">'
            end = "</a>"
        out.append(f"{begin}{_drawn(cluster)}\n{end}")
    return Markup("".join(out) + "</svg>")


def _drawn(cluster: Cluster) -> str:
    of = html.escape(f" · {cluster.title}" if cluster.title else "")
    titles = escaped([bar.title for bar in cluster.bars])
    return "".join(
        f'<rect class="bar" x="{b.x}" y="{b.y}" width="{b.width}" height="{b.height}"><title>{title}{of}</title></rect>'
        for b, title in zip(cluster.bars, titles, strict=True)
    )


def table_rows(lines: Sequence[Sequence[str]], right: Sequence[bool]) -> Markup:
    """The body of a table of values; ``right`` says which columns hold numbers."""
    cells = ["<td class=num>" if number else "<td>" for number in right]
    texts = iter(escaped([text for line in lines for text in line]))
    rows = ("".join(f"{cell}{next(texts)}</td>" for cell, _ in zip(cells, line, strict=True)) for line in lines)
    return Markup("\n".join(f"<tr>{row}</tr>" for row in rows))


def profile_chart(profile: Profile) -> Chart:
    """How often the latent fires, by place in the sequence."""
    highest = max(profile.shares, default=0.0)
    names = places(profile)
    bars = [
        bar(place, len(names), share / highest if highest else 0.0, f"{percent(share)} of place {name}")
        for place, (name, share) in enumerate(zip(names, profile.shares, strict=True))
    ]
    every = max(1, round(len(names) / 6))
    ticks = [Tick(x_of(place + 0.5, len(names)), str(profile.edges[place])) for place in range(0, len(names), every)]
    return Chart([Cluster(None, "", bars)], ticks, y_ticks(highest, percent))


def places(profile: Profile) -> list[str]:
    """``0``, ``8 to 10``, ``91 on``: what each bin of a profile holds."""
    names = []
    for low, following in zip(profile.edges, [*profile.edges[1:], None], strict=True):
        last = None if following is None else following - 1
        names.append(f"{low} on" if last is None else str(low) if last == low else f"{low} to {last}")
    return names


def sig2(value: float) -> str:
    return f"{value:.2g}" if abs(value) < 100 else sig(value)


def _interval(name: str) -> str:
    tenth = int(name[-1])
    return f"{10 * tenth} to {10 * (tenth + 1)}% of the {'minimum' if name.startswith('n') else 'maximum'}"


def x_of(place: float, bins: int) -> float:
    return round(LEFT + (WIDTH - LEFT - RIGHT) * place / max(bins, 1), 1)


def bar(place: int, bins: int, share: float, title: str) -> Bar:
    height = round((HEIGHT - TOP - BOTTOM) * share, 1)
    if share > 0:
        height = max(height, 1.0)
    x = x_of(place, bins)
    wide = x_of(place + 1, bins) - x
    return Bar(x, round(HEIGHT - BOTTOM - height, 1), round(max(wide - 1, 0.5), 1), height, title)


def y_ticks(highest: float, text: Callable[[float], str]) -> list[Tick]:
    """0, and one or two round numbers up to ``highest``."""
    if highest <= 0:
        return [Tick(HEIGHT - BOTTOM, "0")]
    power = 10.0 ** math.floor(math.log10(highest))
    step = next(step for step in (5 * power, 2 * power, power) if step <= highest)
    values: Sequence[float] = [step * i for i in range(int(highest / step * (1 + 1e-9)) + 1)]
    return [
        Tick(round(HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * value / highest, 1), text(value)) for value in values
    ]


def histogram_values(data: Histogram) -> list[tuple[str, str, str]]:
    """From, to and count of the bins that hold something."""
    edges = [sig(edge) for edge in data.edges]
    bins = zip(edges, edges[1:], data.counts, strict=False)
    return [(low, high, thousands(count)) for low, high, count in bins if count]


def profile_values(profile: Profile) -> list[tuple[str, str]]:
    return [(name, percent(share)) for name, share in zip(places(profile), profile.shares, strict=True)]


def ranked(shares: Sequence[float]) -> list[tuple[int, float]]:
    """(number, share), the largest first."""
    return sorted(enumerate(shares), key=lambda pair: -pair[1])


def percents(pairs: Sequence[tuple[int, float]]) -> list[tuple[str, str]]:
    return [(str(number), percent(share)) for number, share in pairs]
