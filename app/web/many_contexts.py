"""What /compare shows of two to eight SAEs, typed."""

from pydantic import BaseModel

from app.web.contexts import Histogram, LatentRow, Metrics


class ComparedMap(BaseModel):
    """The map that an SAE's own page opens with; ``picture`` shows where all its latents are."""

    name: str
    version: str
    placed: int
    page: str
    picture: str


class Alone(BaseModel):
    """A latent that fires and is in no mutual pair, the nearest there is in another SAE (its ``number``), and the
    cosine to it."""

    feature: LatentRow
    nearest: LatentRow
    number: int
    cosine: float


class ComparedSAE(BaseModel):
    """One of the SAEs, called by its ``number`` from 1. ``differs`` says in what its metrics were measured otherwise
    than the first one's; where there is anything, no value of it is called better or worse. ``unmatched`` is None where
    it could be matched with no other."""

    number: int
    sae: str
    revision: str
    address: str
    url: str
    subject: str
    reads: list[str]
    architecture: str
    d_in: int
    n_latents: int
    dead: int
    corpus: str
    tokens: int
    metrics: Metrics
    differs: list[str]
    densities: Histogram
    map: ComparedMap | None
    matched_with: list[int]
    unmatched: list[Alone] | None
    unmatched_count: int | None


class MetricCell(BaseModel):
    """A value, what it is more than the first SAE's, and whether that is better. Without a value ``note`` says why."""

    value: float | None
    delta: float | None
    better: bool | None
    note: str | None


class MetricLine(BaseModel):
    """One metric of every SAE, in their order. ``best`` is which way is better, None where neither is."""

    name: str
    best: str | None
    cells: list[MetricCell]


class TradeOffPoint(BaseModel):
    """``front``: of those measured like the first, none has a lower L0 and is as good, nor is as sparse and better."""

    number: int
    l0: float
    value: float
    front: bool


class TradeOff(BaseModel):
    """L0 against a metric; SAEs for which either was not measured are left out."""

    name: str
    best: str
    points: list[TradeOffPoint]


class Pair(BaseModel):
    """Two SAEs, by number, matched by decoder. ``mutual`` latents are each other's nearest, ``close`` of them with a
    cosine of 0.7 or more, ``mean`` is their mean cosine. All are None where ``note`` says why; else it says what is to
    be borne in mind."""

    a: int
    b: int
    mutual: int | None
    close: int | None
    mean: float | None
    note: str | None
    url: str


class Shared(BaseModel):
    """A latent of the first SAE that has a mutual nearest one in every other: one row an SAE, and the least of the
    cosines to the first."""

    features: list[LatentRow]
    cosine: float


class SAEsComparison(BaseModel):
    """Two to eight SAEs. ``shared`` are the closest of ``shared_count``; None where the first could not be matched with
    every other."""

    saes: list[ComparedSAE]
    metrics: list[MetricLine]
    trade_offs: list[TradeOff]
    pairs: list[Pair]
    shared: list[Shared] | None
    shared_count: int | None
