"""What pages show of evaluations, typed."""

from typing import Any

from pydantic import BaseModel

Cell = str | float | int | bool | None


class EvaluatedMetric(BaseModel):
    """A metric of an evaluation."""

    name: str
    title: str
    value: float | None
    better: str  # more, less, or empty where neither is
    how: str  # how it is computed; empty for imported ones


class EvaluationSummary(BaseModel):
    """An evaluation on its SAE's page, with its foremost metrics."""

    group: str
    title: str
    source: str | None
    version: str
    corpus: str | None
    tokens: int | None
    made: str
    metrics: list[EvaluatedMetric]
    url: str


class EvaluatedTable(BaseModel):
    """A table of an evaluation."""

    caption: str
    columns: list[str]
    rows: list[list[Cell]]


class EvaluatedBars(BaseModel):
    """A histogram of an evaluation."""

    title: str
    x: str
    edges: list[float]
    counts: list[int]


class EvaluatedCurve(BaseModel):
    """A line of a chart."""

    name: str
    x: list[float]
    y: list[float | None]


class EvaluatedLines(BaseModel):
    """A chart of lines."""

    title: str
    x: str
    y: str
    curves: list[EvaluatedCurve]


class EvaluatedPoints(BaseModel):
    """A cloud of points, with lines y = slope x."""

    title: str
    x: str
    y: str
    xs: list[float]
    ys: list[float]
    slopes: list[float]


class Evaluated(BaseModel):
    """An evaluation with all that is known of it."""

    id: int
    group: str
    title: str
    about: str
    source: str | None
    version: str
    corpus: str | None
    tokens: int | None
    seed: int | None
    seconds: float | None
    made: str
    parameters: dict[str, Any]
    metrics: list[EvaluatedMetric]
    tables: list[EvaluatedTable]
    bars: list[EvaluatedBars]
    lines: list[EvaluatedLines]
    points: list[EvaluatedPoints]


class EvaluationsPage(BaseModel):
    """/saes/{sae}/evaluations and its twin. evaluations: the newest of each group; earlier: the others."""

    sae: str
    revision: str
    address: str
    evaluations: list[Evaluated]
    earlier: list[Evaluated]
