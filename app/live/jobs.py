"""Work of several steps that the engine can be asked for, and what it answers: plain values, which can travel.

app.live.steps does the work.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Generic, Literal, TypeVar

from pydantic import Field

from app.live.edit import Edit

A = TypeVar("A")
Count = Annotated[int, Field(ge=1, lt=1 << 31)]  # these are checked where a job comes over the wire
Position = Annotated[int, Field(ge=0, lt=1 << 31)] | None


class Job(Generic[A]):
    """Answers are of the type ``A``: one, or one a step. reads_saes: whether it needs more than the subject."""

    reads_saes: ClassVar[bool] = True


@dataclass(frozen=True)
class Step:
    """The ``number``-th new token of each side, from 0; None after a side has ended. Log-probabilities are the model's
    own, whatever the temperature: of the chosen token, in nats. kl: KL(edited || unedited) in nats of the next-token
    distributions on the edited side's text so far."""

    number: int
    baseline: int | None
    edited: int | None
    baseline_logprob: float | None
    edited_logprob: float | None
    kl: float | None


@dataclass(frozen=True)
class Shift:
    """One token as the next one, without and with the edits; logits as the model gives them, over the whole
    vocabulary."""

    token: int
    clean_logit: float
    edited_logit: float
    clean_probability: float
    edited_probability: float


@dataclass(frozen=True)
class GenerateJob(Job[Step]):
    """The text goes on without and with the edits; see app.live.generate."""

    text: str
    chat: bool
    edits: list[Edit]
    max_new: Count
    temperature: float
    top_p: float
    seed: int
    job: Literal["generate"] = "generate"


@dataclass(frozen=True)
class EffectAnswer:
    """tokens: the text's, one a position; the rest as app.live.effect.Effect has it, the change of each next token's
    loss in place of the two losses."""

    tokens: list[str]
    position: int
    kl: list[float]
    loss_change: list[float]
    mean_loss_change: float | None
    raised: list[Shift]
    lowered: list[Shift]


@dataclass(frozen=True)
class EffectJob(Job[EffectAnswer]):
    """What the edits do to the predictions on the text; see app.live.effect."""

    text: str
    chat: bool
    edits: list[Edit]
    position: Position
    top: Count
    by: Literal["probability", "logprob"]
    job: Literal["effect"] = "effect"


@dataclass(frozen=True)
class Attributed:
    """One latent's part: act_grad and direct over all positions, ``exact`` what is lost without it; places: (position,
    value, act_grad) where it is active."""

    sae: int
    latent: int
    act_grad: float
    exact: float
    direct: float | None
    places: list[tuple[int, float, float]]


@dataclass(frozen=True)
class AttributedWhole:
    """One SAE's part, as app.live.attribute.SAEAttribution has it, ``latents`` summed."""

    latents: float
    error: float
    bias: float
    exact_latents: float
    exact_all: float


@dataclass(frozen=True)
class AttributeAnswer:
    """tokens: the text's, one a position. ``position``, ``token`` and ``against`` (ids) are those of the metric."""

    tokens: list[str]
    position: int
    token: int
    against: int | None
    metric: float
    top: list[Attributed]
    saes: list[AttributedWhole]


@dataclass(frozen=True)
class AttributeJob(Job[AttributeAnswer]):
    """Which latents the next token at ``position`` (the last) hangs on; see app.live.attribute. ``token``, the
    likeliest if None, and ``against`` are ids or texts of one token."""

    text: str
    chat: bool
    position: Position
    token: int | str | None
    against: int | str | None
    kind: Literal["logit", "logprob"]
    top: Count
    job: Literal["attribute"] = "attribute"


@dataclass(frozen=True)
class HeadsAnswer:
    """As app.live.head_split.HeadSplit has it; pieces: by head, then source."""

    pieces: list[list[float]]
    bias: float
    pre_act: float


@dataclass(frozen=True)
class HeadsJob(Job[HeadsAnswer]):
    """``latent`` at ``position`` of the tokens ``ids``, by head and source; see app.live.head_split."""

    ids: list[int]
    position: int
    latent: int
    job: Literal["heads"] = "heads"


@dataclass(frozen=True)
class Listed:
    """A word that the subject lists: its weight in nats, its probability, and the ids of the tokens that read so."""

    text: str
    weight: float
    probability: float
    tokens: list[int]


@dataclass(frozen=True)
class ListAnswer:
    """items: the greatest weight first; read: how many tokens the prompt had."""

    items: list[Listed]
    read: int


@dataclass(frozen=True)
class ListJob(Job[ListAnswer]):
    """What the subject would list for ``query``; see app.live.listing."""

    query: str
    job: Literal["list"] = "list"
    reads_saes: ClassVar[bool] = False
