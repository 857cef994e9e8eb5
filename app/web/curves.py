"""A number over the steps of a training as an SVG line, drawn by the server. Logarithmic where it falls far."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from app.web.charts import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Tick
from app.web.formats import percent, sig, thousands
from app.web.training_contexts import TrainingLine

POINTS = 200
FAR = 30.0  # from this ratio of largest to smallest on, the axis is logarithmic


class Curve(NamedTuple):
    """points: what an SVG polyline takes; ``last`` in words is the newest value."""

    title: str
    points: str
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    last: str
    logarithmic: bool


def curves(lines: Sequence[TrainingLine], steps: int) -> list[Curve]:
    """Loss, FVU, L0 and dead latents of a run of ``steps``."""
    shown = list(lines[:: max(1, -(-len(lines) // POINTS))])
    if lines and shown[-1] is not lines[-1]:
        shown.append(lines[-1])
    at = [line.step for line in shown]
    return [
        curve("Loss", at, [line.loss for line in shown], steps),
        curve("FVU", at, [line.fvu for line in shown], steps),
        curve("L0", at, [line.l0 for line in shown], steps),
        curve("Dead latents", at, [line.dead for line in shown], steps, share=True),
    ]


def curve(title: str, at: Sequence[int], values: Sequence[float], steps: int, *, share: bool = False) -> Curve:
    high, least = max(values, default=0.0), min(values, default=0.0)
    far = not share and least > 0 and high / least > FAR
    low = math.log10(least) if far else min(0.0, least)
    top = math.log10(high) if far else high
    if top <= low:
        top = low + 1.0

    def y(value: float) -> float:
        placed = math.log10(value) if far else value
        return round(HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (placed - low) / (top - low), 1)

    def x(step: float) -> float:
        return round(LEFT + (WIDTH - LEFT - RIGHT) * step / max(steps, 1), 1)

    text = percent if share else _text
    points = " ".join(f"{x(step)},{y(value)}" for step, value in zip(at, values, strict=True))
    ticks = [10.0**power for power in range(math.ceil(low), math.floor(top) + 1)] if far else _even(low, top)
    across = [Tick(min(x(step), WIDTH - 20), thousands(step)) for step in (0, steps // 2, steps)]
    last = text(values[-1]) if values else ""
    return Curve(title, points, across, [Tick(y(tick), text(tick)) for tick in ticks], last, far)


def _text(value: float) -> str:
    return thousands(round(value)) if value >= 1000 else sig(value)


def _even(low: float, top: float) -> list[float]:
    """Two to six round numbers within the two."""
    power = 10.0 ** math.floor(math.log10(top - low))
    step = next(step for step in (power, power / 2, power / 5) if (top - low) / step >= 2)
    first = math.ceil(low / step)
    return [step * place for place in range(first, math.floor(top / step + 1e-9) + 1)]
