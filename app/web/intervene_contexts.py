"""Interventions and attributions: what is asked and what is answered, typed."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from app.live.edit import MAX_EDITS, Kind, Place
from app.web.api_examples import CITY, DEMO, EIFFEL, PLACES
from app.web.fields import Asked

MOST_NEW = 1 << 20  # SAESCOPE_MAX_NEW_TOKENS is the limit; this keeps numbers small


class EditBody(BaseModel):
    """One edit. ``feature`` is SLUG/NUMBER; ``strength`` is a multiple of the feature's own max|a| in the harvest
    (of ``scale``: a factor; ``ablate`` and ``project`` take none), or of its activation where ``unit`` says so.
    ``positions``: all, the generated ones, or places in the text."""

    model_config = ConfigDict(extra="forbid")  # a misspelt field is no wish for its default

    feature: str = Field(max_length=400, description="SLUG/NUMBER.")
    kind: Kind = Field(default="add", description="What is done to it.")
    strength: float = Field(default=1.0, ge=-1000, le=1000, allow_inf_nan=False, description="How much.")
    unit: Literal["max", "activation"] = Field(default="max", description="What strength counts in.")
    positions: Literal["all", "generated"] | list[Place] = Field(default="all", description="Where it is edited.")


class _Edited(BaseModel):
    text: str = Field(description="What is read, with BOS put before it.")
    chat: bool = Field(default=False, description="Take it as a user's message; the subject's answer is to follow.")
    edits: list[EditBody] = Field(default=[], max_length=MAX_EDITS, description=f"At most {MAX_EDITS}, in their order.")


class EffectBody(_Edited):
    """POST /api/effect: what the edits do to the subject's predictions on the text. ``position``: whose next tokens
    are told, the last one where it is left out. ``by``: whether the most changed ones are those of the greatest change
    in probability or in its logarithm, which favours tokens that stay unlikely."""

    model_config = ConfigDict(extra="forbid")  # a misspelt field is no wish for its default

    position: int | None = Field(default=None, ge=0, description="Whose next tokens are told; left out, the last.")
    top: int = Field(default=10, ge=1, le=100, description="How many next tokens to tell of each kind.")
    by: Literal["probability", "logprob"] = Field(default="probability", description="What change is measured in.")


class GenerateBody(_Edited):
    """POST /api/generate: the text goes on without and with the edits, drawn with the same noise. ``stream``: steps
    as server-sent events."""

    model_config = ConfigDict(extra="forbid")  # a misspelt field is no wish for its default

    max_new: int = Field(default=40, ge=1, le=MOST_NEW, description="How many tokens are added at most.")
    temperature: float = Field(default=0.7, ge=0, le=10, allow_inf_nan=False, description="0: the likeliest token.")
    top_p: float = Field(default=1.0, gt=0, le=1, description="Draw from the likeliest that together have so much.")
    seed: int = Field(default=0, ge=0, lt=1 << 53, description="Of the noise that both sides are drawn with.")
    stream: bool = Field(default=False, description="Answer with server-sent events, a step at a time.")


class Shift(BaseModel):
    """A next token without and with the edits."""

    token: str
    token_id: int
    clean_logit: float
    edited_logit: float
    clean_probability: float
    edited_probability: float


class EffectResult(BaseModel):
    """``kl`` is KL(edited || clean) of the next-token distributions at each token, in nats; ``loss_change`` how much
    worse (in nats) each token is predicted with the edits, null at the first; ``mean_loss_change`` its mean over the
    tokens that are not special."""

    tokens: list[str]
    position: int
    kl: list[float]
    loss_change: list[float | None]
    mean_loss_change: float | None
    raised: list[Shift]
    lowered: list[Shift]


class GeneratedToken(BaseModel):
    """A new token of one side: its log-probability (nats) under that side's own distribution."""

    text: str
    token_id: int
    logprob: float


class GenerateStep(BaseModel):
    """The ``number``-th new token of each side; null after a side has ended. ``kl``: KL(edited || unedited) in nats of
    the next-token distributions on the edited text so far."""

    number: int
    baseline: GeneratedToken | None
    edited: GeneratedToken | None
    kl: float | None


class GenerateResult(BaseModel):
    """Both sides' new text, and every step."""

    baseline: str
    edited: str
    steps: list[GenerateStep]
    mean_kl: float | None


class InterveneQuery(Asked):
    """/intervene's URL: the edits as four lists of one length, and how the text goes on. ``run`` names a kept run in
    the place of a long text. ``where``: all, generated, or places in the text such as ``3 5``."""

    text: str | None = Field(default=None, description="What is gone on from.", examples=[CITY])
    run: str | None = Field(default=None, max_length=60, description="A kept run whose text is gone on from.")
    chat: bool = Field(default=False, description="Take it as a user's message; the subject's answer is to follow.")
    feature: list[str] = Field(
        default=[], max_length=MAX_EDITS, description="SLUG/NUMBER of each edit.", examples=[[PLACES]]
    )
    kind: list[str] = Field(default=[], max_length=MAX_EDITS, description="Of each edit.", examples=[["add"]])
    strength: list[str] = Field(default=[], max_length=MAX_EDITS, description="Of each edit.", examples=[["1"]])
    where: list[str] = Field(default=[], max_length=MAX_EDITS, description="Of each edit.", examples=[["all"]])
    max_new: int = Field(default=40, ge=1, le=MOST_NEW, description="How many tokens are added at most.", examples=[20])
    temperature: float = Field(default=0.7, ge=0, le=10, allow_inf_nan=False, description="0: the likeliest token.")
    top_p: float = Field(default=1.0, gt=0, le=1, description="Of the likeliest tokens, up to this share.")
    seed: int = Field(default=0, ge=0, lt=1 << 53, description="Of the noise that both sides are drawn with.")


class NamedEdit(BaseModel):
    """An edit with the feature it is of."""

    feature: str
    label: str
    url: str
    kind: Kind
    strength: float
    where: str
    amount: float  # in units of the feature's activation; of scale, a factor
    max: float


class IntervenePage(BaseModel):
    """/intervene and its twin; ``generated`` and ``effect`` are null until there is text."""

    query: InterveneQuery
    text: str
    chat: bool
    edits: list[NamedEdit]
    saes: list[str]
    generated: GenerateResult | None
    effect: EffectResult | None


class AttributeBody(BaseModel):
    """POST /api/attribute: which latents the prediction after ``position`` (the last where it is left out) hangs on.
    ``token`` is the predicted one as text or id (the likeliest where it is left out), ``against`` another whose logit
    is taken off; ``kind`` logit or logprob."""

    model_config = ConfigDict(extra="forbid")  # a misspelt field is no wish for its default

    text: str = Field(description="What is read, with BOS put before it.")
    sae: str | list[str] | None = Field(default=None, description="SLUG or SLUG@REVISION; several of one subject.")
    chat: bool = Field(default=False, description="Take it as a user's message; the subject's answer is to follow.")
    position: int | None = Field(default=None, ge=0, description="After which token; left out, the last.")
    token: int | str | None = Field(default=None, description="What is explained; left out, the likeliest.")
    against: int | str | None = Field(default=None, description="One whose logit is taken off.")
    kind: Literal["logit", "logprob"] = Field(default="logit", description="What of it is explained.")
    top: int = Field(default=20, ge=1, le=100, description="How many latents to ablate by themselves.")


class AttributeQuery(Asked):
    """/attribute's URL."""

    text: str | None = Field(default=None, description="What is read, with BOS put before it.", examples=[EIFFEL])
    sae: list[str] = Field(
        default=[], max_length=16, description="SLUG or SLUG@REVISION; several of one subject.", examples=[[DEMO]]
    )
    chat: bool = Field(default=False, description="Take it as a user's message; the subject's answer is to follow.")
    position: int | None = Field(default=None, ge=0, description="After which token; left out, the last.")
    token: str | None = Field(
        default=None, max_length=100, description="What is explained; left out, the likeliest.", examples=["Paris"]
    )
    against: str | None = Field(
        default=None, max_length=100, description="One whose logit is taken off.", examples=["London"]
    )
    kind: Literal["logit", "logprob"] = Field(default="logit", description="What of it is explained.")


class AttributedLatent(BaseModel):
    """A latent's part in the metric: activation x gradient summed over positions, what the metric loses when it is
    ablated, what it adds by the residual stream alone, and where it acts (position, activation, act_grad)."""

    sae: str
    index: int
    label: str
    url: str
    act_grad: float
    exact: float
    direct: float | None
    places: list[tuple[int, float, float]]
    attention: bool  # whether it has heads and source tokens


class AttributedSAE(BaseModel):
    """One SAE as a whole: the sum over all latents, the error's and the decoder bias's own part, and what the metric
    loses without all latents, and without latents and error."""

    sae: str
    latents: float
    error: float
    bias: float
    exact_latents: float
    exact_all: float


class AttributeResult(BaseModel):
    """``metric`` is the value explained: the logit (or log-probability) of ``token``, less that of ``against``."""

    tokens: list[str]
    position: int
    token: str
    token_id: int
    against: str | None
    against_id: int | None
    kind: str
    metric: float
    latents: list[AttributedLatent]
    saes: list[AttributedSAE]


class AttributePage(BaseModel):
    """/attribute and its twin."""

    query: AttributeQuery
    chosen: list[str]
    result: AttributeResult | None
