"""What the pages of circuits show, typed."""

from pydantic import BaseModel

from app.circuits.record import CircuitRun


class CircuitCard(BaseModel):
    """A search in the list."""

    name: str
    task: str
    subject: str
    made: str
    examples: int
    seed: int
    accuracy: float
    auc: float | None
    in_circuit: int
    heads: int
    url: str


class CircuitsPage(BaseModel):
    """/circuits and its twin, the newest first. ``unreadable`` are files that hold no search."""

    items: list[CircuitCard]
    next: str | None = None
    unreadable: list[str]


class RankedHead(BaseModel):
    """A head by its place in the ranking. ``share`` is the softmax of ``unique`` over all heads."""

    layer: int
    head: int
    unique: int
    distinct: int
    share: float
    effect: float
    in_circuit: bool


class CircuitPage(BaseModel):
    """A search: the run as it is kept, ``least`` what an effect must pass to be in the circuit, and the heads with most
    unique codes."""

    run: CircuitRun
    least: float
    top: list[RankedHead]
