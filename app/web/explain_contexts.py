"""What pages show of explanations and their scores."""

from pydantic import BaseModel


class ExplanationScore(BaseModel):
    """A score of an explanation on test text; null where it was not asked or does not apply. ``headline`` is the number
    to go by: balanced accuracy on examples, F1 on all tokens."""

    id: int
    scorer: str
    status: str
    headline: float | None
    n_pos: int
    n_neg: int
    n_failed: int
    balanced_accuracy: float | None
    balanced_accuracy_random: float | None
    balanced_accuracy_hard: float | None
    precision: float | None
    recall: float | None
    f1: float | None
    auroc: float | None
    auprc: float | None
    correlation: float | None
    ci_low: float | None
    ci_high: float | None
    control: float | None
    model: str | None
    url: str | None  # of its examples


class EarlierText(BaseModel):
    """What a person's explanation said before it was edited."""

    text: str
    author: str
    made: str


class Explanation(BaseModel):
    """What a person or a method says a latent fires on. ``chosen``: the latent's label is this one's."""

    id: int
    sign: int
    method: str
    model: str | None
    author: str | None
    text: str
    label: str
    failure: str | None  # why there is no text
    how: str
    made: str
    votes: int
    chosen: bool
    earlier: list[EarlierText]
    scores: list[ExplanationScore]


class ExplanationList(BaseModel):
    """All that is said of a feature, in the order it was made."""

    items: list[Explanation]
    next: str | None


class Run(BaseModel):
    """A piece of a window's text; ``said``: the rule is about it; ``peak``: the latent is strongest there."""

    text: str
    said: bool
    peak: bool


class ScoredExample(BaseModel):
    """A window that was asked about. ``predicted`` is None where there was no answer, ``right`` too then."""

    kind: str
    active: bool
    activation: float
    predicted: bool | None
    right: bool | None
    probability: float | None
    runs: list[Run]
    presented: str | None
    error: str | None
    document: str
    sequence: int
    start: int


class ScorePage(BaseModel):
    """/saes/{sae}/features/{i}/scores/{score} and its twin: what an explanation said of every example it was scored on,
    and what was so."""

    sae: str
    revision: str
    address: str
    index: int
    label: str
    explanation: Explanation
    score: ExplanationScore
    examples: list[ScoredExample]


class MethodScores(BaseModel):
    """How a method's scores by one scorer are distributed over an SAE's latents. ``counts``: headlines in equal bins
    from 0 to 1; ``quantiles``: their 10th, 25th, 50th, 75th and 90th percentile; the others are means."""

    method: str
    model: str
    scorer: str
    explanations: int
    headlines: int
    few: int
    unanswered: int
    quantiles: list[float] | None
    counts: list[int]
    mean: float | None
    control: float | None
    random: float | None
    hard: float | None
    precision: float | None
    recall: float | None
    f1: float | None
    auroc: float | None
    auprc: float | None


class SAEScores(BaseModel):
    """labels: how many of an SAE's labels have each source; methods: how their explanations score."""

    labels: dict[str, int]
    methods: list[MethodScores]
