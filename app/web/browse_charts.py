"""The histograms above the feature table, whose bars are filters."""

from typing import NamedTuple

from app.web import charts
from app.web.browse_contexts import Bar
from app.web.formats import percent, thousands


class Drawn(NamedTuple):
    """boxes: the bars that hold something, each with where it stands."""

    boxes: list[tuple[Bar, charts.Bar]]
    x_ticks: list[charts.Tick]
    y_ticks: list[charts.Tick]


def bars_chart(bars: list[Bar], kind: str) -> Drawn:
    """Bins of equal width on the chart; densities are named as shares, by powers of ten."""
    highest = max((bar.count for bar in bars), default=0)
    boxes = []
    for place, bar in enumerate(bars):
        if bar.count:
            title = f"{thousands(bar.count)} feature{'s' if bar.count != 1 else ''} of {kind} {span(bar, kind)}"
            boxes.append((bar, charts.bar(place, len(bars), bar.count / highest, title)))
    edges = [bar.low for bar in bars] + [bar.high for bar in bars[-1:]]
    every = 4 if kind == "density" else 5
    first = next((i for i, edge in enumerate(edges) if kind != "density" or _power_of_ten(edge)), 0)
    ticks = [
        charts.Tick(charts.x_of(i, len(bars)), percent(edges[i]) if kind == "density" else f"{edges[i]:.2g}")
        for i in range(first, len(edges), every)
        if charts.x_of(i, len(bars)) < 380  # what is written further right is cut off
    ]
    return Drawn(boxes, ticks, charts.y_ticks(highest, lambda value: thousands(round(value))))


def span(bar: Bar, kind: str) -> str:
    return f"{percent(bar.low)} to {percent(bar.high)}" if kind == "density" else f"{bar.low:.2f} to {bar.high:.2f}"


def _power_of_ten(value: float) -> bool:
    return f"{value:.3e}".startswith("1.000e")


def pairs(names: list[str]) -> list[tuple[str, str]]:
    """Options that are called what they are."""
    return [(name, name) for name in names]
