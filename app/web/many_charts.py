"""The charts of several SAEs, as SVG: sparsity against a metric, and densities over each other. A line or a point is
told by its number, its dashes or its shape beside its colour."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from app.web.charts import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Tick
from app.web.formats import percent, sig
from app.web.many_contexts import ComparedSAE, TradeOff


class Point(NamedTuple):
    number: int
    x: float
    y: float
    front: bool
    title: str


class Scatter(NamedTuple):
    """front: the points of a polyline from the sparsest to the densest."""

    points: list[Point]
    front: str
    x_ticks: list[Tick]
    y_ticks: list[Tick]


class Line(NamedTuple):
    """points: of a polyline; x, y: where its number stands, at its highest."""

    number: int
    points: str
    x: float
    y: float


class Lines(NamedTuple):
    lines: list[Line]
    x_ticks: list[Tick]
    y_ticks: list[Tick]


def scatter(data: TradeOff) -> Scatter:
    xs, ys = [p.l0 for p in data.points], [p.value for p in data.points]
    (left, right, along), (low, high, up) = axis(xs), axis(ys)
    points = [
        Point(
            p.number,
            _x((p.l0 - left) / (right - left)),
            _y((p.value - low) / (high - low)),
            p.front,
            f"{p.number}: L0 {sig(p.l0)}, {data.name} {sig(p.value)}{', on the front' if p.front else ''}",
        )
        for p in data.points
    ]
    front = sorted((p.x, p.y) for p in points if p.front)
    return Scatter(
        points,
        " ".join(f"{x},{y}" for x, y in front),
        [Tick(_x((value - left) / (right - left)), f"{value:g}") for value in along],
        [Tick(_y((value - low) / (high - low)), f"{value:g}") for value in up],
    )


def axis(values: Sequence[float]) -> tuple[float, float, list[float]]:
    """From, to, and three to six round values on the way, for values that all lie well inside."""
    low, high = min(values, default=0.0), max(values, default=1.0)
    room = 0.12 * (high - low) or 0.1 * abs(high) or 1.0
    low, high = low - room, high + room
    power = 10.0 ** math.floor(math.log10((high - low) / 3))
    step = next(step for step in (5 * power, 2 * power, power) if 3 * step <= high - low)
    first = math.ceil(low / step)
    ticks = [round(i * step, 12) for i in range(first, math.floor(high / step) + 1)]
    return low, high, ticks


def densities(saes: Sequence[ComparedSAE]) -> Lines:
    """Shares of each SAE's latents by density, a step a bin, which is a quarter of a power of ten in every harvest."""
    alive = [sae for sae in saes if sum(sae.densities.counts)]
    low = math.floor(min((sae.densities.edges[0] for sae in alive), default=-1.0))
    high = max(0.0, max((sae.densities.edges[-1] for sae in alive), default=0.0))
    most = max((max(sae.densities.counts) / sae.n_latents for sae in alive), default=1.0)
    lines = []
    for sae in alive:
        edges, shares = sae.densities.edges, [count / sae.n_latents for count in sae.densities.counts]
        xs = [_x((edge - low) / (high - low)) for edge in edges]
        steps = [(xs[0], _y(0.0))]
        for left, right, share in zip(xs, xs[1:], shares, strict=False):
            steps += [(left, _y(share / most)), (right, _y(share / most))]
        steps.append((xs[len(shares)], _y(0.0)))
        peak = max(range(len(shares)), key=shares.__getitem__)
        at = round((xs[peak] + xs[peak + 1]) / 2, 1)
        lines.append(Line(sae.number, " ".join(f"{x},{y}" for x, y in steps), at, _y(shares[peak] / most)))
    every = max(1, round((high - low) / 6))
    decades = range(int(low), int(high) + 1, every)
    return Lines(
        lines,
        [Tick(min(_x((d - low) / (high - low)), WIDTH - 18), percent(10.0**d)) for d in decades],
        [Tick(_y(share), percent(share * most)) for share in (0.0, 0.5, 1.0)],
    )


def density_rows(saes: Sequence[ComparedSAE]) -> list[tuple[str, list[str]]]:
    """Bins that hold something, as spans of density, and every SAE's share of latents there."""
    held: dict[float, dict[int, str]] = {}
    for sae in saes:
        for edge, count in zip(sae.densities.edges, sae.densities.counts, strict=False):
            if count:
                held.setdefault(round(4 * edge) / 4, {})[sae.number] = percent(count / sae.n_latents)
    return [
        (f"{percent(10.0**low)} to {percent(10.0 ** (low + 0.25))}", [row.get(sae.number, "0%") for sae in saes])
        for low, row in sorted(held.items())
    ]


def _x(share: float) -> float:
    return round(LEFT + (WIDTH - LEFT - RIGHT) * share, 1)


def _y(share: float) -> float:
    return round(HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * share, 1)
