"""What /compare shows, typed."""

from pydantic import BaseModel

from app.web.contexts import Example, LatentRow, Metrics
from app.web.many_contexts import SAEsComparison


class FeatureSide(BaseModel):
    """One of two features."""

    sae: str
    revision: str
    subject: str
    feature: LatentRow
    label_score: float | None
    fired: int
    counted: int
    mean: float | None
    std: float | None
    tokens: list[str]  # it fires on most surely
    promoted: list[str]
    examples: list[Example]  # its top contexts


class SharedContext(BaseModel):
    """A sequence that is among both features' examples: each one's strongest window of it."""

    sequence: int
    document: str
    a: Example
    b: Example


class FeatureComparison(BaseModel):
    """Two features. ``cosine`` is of their decoder rows, ``phi`` the correlation of their firings; where one is None
    its ``note`` says why. ``shared`` is None where the two harvests read different texts."""

    a: FeatureSide
    b: FeatureSide
    cosine: float | None
    cosine_note: str
    phi: float | None
    together: int | None
    phi_note: str
    shared: list[SharedContext] | None


class SAESide(BaseModel):
    """One of two SAEs."""

    sae: str
    revision: str
    address: str
    url: str
    n_latents: int
    dead: int
    metrics: Metrics


class MetricPair(BaseModel):
    """One metric of both; ``delta`` is b - a. Where a value is None its ``note`` says whether it was not measured or is
    not defined."""

    name: str
    a: float | None
    b: float | None
    delta: float | None
    a_note: str | None = None
    b_note: str | None = None


class FactPair(BaseModel):
    """One parameter of both, as text."""

    name: str
    a: str
    b: str
    same: bool


class Match(BaseModel):
    """Two latents that are each other's nearest by decoder cosine."""

    a: LatentRow
    b: LatentRow
    cosine: float


class Lonely(BaseModel):
    """A latent without a mutual nearest one, and the cosine to the nearest there is."""

    feature: LatentRow
    nearest: LatentRow
    cosine: float


class Matching(BaseModel):
    """Decoder matches. ``mutual`` pairs are nearest to each other, the closest first, up to the page's length of
    ``mutual_count``; ``close`` of them have a cosine of 0.7 or more. Unmatched are those that fire and are in no mutual
    pair, the farthest first."""

    mutual: list[Match]
    mutual_count: int
    close: int
    mean_a: float  # mean over a's latents of the cosine to the nearest of b
    mean_b: float
    unmatched_a: list[Lonely]
    unmatched_a_count: int
    unmatched_b: list[Lonely]
    unmatched_b_count: int


class Change(BaseModel):
    """A latent in two harvests of the same weights."""

    a: LatentRow
    b: LatentRow


class SAEComparison(BaseModel):
    """Two SAEs. ``matching`` is None where ``matching_note`` says why. ``changes``, where both have the same weights,
    are the latents whose density differs most."""

    a: SAESide
    b: SAESide
    metrics: list[MetricPair]
    facts: list[FactPair]
    matching: Matching | None
    matching_note: str
    changes: list[Change] | None


class ComparePage(BaseModel):
    """/compare and its twin: two features, two SAEs, up to eight SAEs, or nothing until they are named."""

    a: str
    b: str
    choices: list[str]
    chosen: list[str] = []
    error: str | None = None
    features: FeatureComparison | None = None
    saes: SAEComparison | None = None
    many: SAEsComparison | None = None
