"""The charts of evaluations, as what an SVG of charts.WIDTH x HEIGHT holds."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from app.web import charts
from app.web.charts import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Bar, Tick
from app.web.evaluation_contexts import EvaluatedBars, EvaluatedLines, EvaluatedPoints
from app.web.formats import sig, thousands


class Line(NamedTuple):
    """points: as SVG's polyline takes them."""

    name: str
    points: str


class Drawn(NamedTuple):
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    bars: list[Bar]
    lines: list[Line]
    dots: list[tuple[float, float]]


def bars(data: EvaluatedBars) -> Drawn:
    highest, n = max(data.counts, default=0), len(data.counts)
    boxes = [
        charts.bar(i, n, count / highest, f"{thousands(count)} from {sig(low)} to {sig(high)}")
        for i, (low, high, count) in enumerate(zip(data.edges, data.edges[1:], data.counts, strict=False))
        if count
    ]
    every = max(1, round(len(data.edges) / 6))
    ticks = [Tick(charts.x_of(i, n), sig(data.edges[i])) for i in range(0, len(data.edges), every)]
    return Drawn(_inside(ticks), charts.y_ticks(highest, lambda v: thousands(round(v))), boxes, [], [])


def lines(data: EvaluatedLines) -> Drawn:
    xs = [x for curve in data.curves for x in curve.x]
    ys = [y for curve in data.curves for y in curve.y if y is not None]
    across, up = _scales(xs, ys)
    made = [
        Line(
            curve.name,
            " ".join(f"{across(x):.1f},{up(y):.1f}" for x, y in zip(curve.x, curve.y, strict=True) if y is not None),
        )
        for curve in data.curves
    ]
    return Drawn(_x_ticks(xs, across), _y_ticks(ys), [], made, [])


def points(data: EvaluatedPoints) -> Drawn:
    across, up = _scales(data.xs, data.ys)
    right, top = max(data.xs, default=1.0), max(data.ys, default=1.0)
    made = []
    for slope in data.slopes:
        end = min(right, top / slope) if slope > 0 else right
        name = "equal" if slope == 1 else "band"
        made.append(Line(name, f"{across(0):.1f},{up(0):.1f} {across(end):.1f},{up(slope * end):.1f}"))
    dots = [(round(across(x), 1), round(up(y), 1)) for x, y in zip(data.xs, data.ys, strict=True)]
    return Drawn(_x_ticks(data.xs, across), _y_ticks(data.ys), [], made, dots)


def _scales(xs: Sequence[float], ys: Sequence[float]) -> tuple[Callable[[float], float], Callable[[float], float]]:
    """From 0 to the greatest of either."""
    right, top = max(xs, default=0.0) or 1.0, max(ys, default=0.0) or 1.0
    return (
        lambda x: LEFT + (WIDTH - LEFT - RIGHT) * max(x, 0.0) / right,
        lambda y: HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * min(max(y, 0.0) / top, 1.0),
    )


def _x_ticks(xs: Sequence[float], across: Callable[[float], float]) -> list[Tick]:
    right = max(xs, default=0.0) or 1.0
    power = 10.0 ** math.floor(math.log10(right))
    step = next(step for step in (2 * power, power, power / 2, power / 5) if right / step >= 3)
    return _inside([Tick(round(across(step * i), 1), sig(step * i)) for i in range(int(right / step + 1e-9) + 1)])


def _y_ticks(ys: Sequence[float]) -> list[Tick]:
    return charts.y_ticks(max(ys, default=0.0), sig)


def _inside(ticks: list[Tick]) -> list[Tick]:
    """None whose text would be cut off at the right."""
    return [tick for tick in ticks if tick.at <= WIDTH - 14]
