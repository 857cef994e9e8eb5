"""Texts compared: two prompts, or the texts of two sides; what is asked and what is answered, typed."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from app.live.alignment import Kind
from app.web.contexts import SAECard
from app.web.fields import Asked, Label
from app.web.inspect_contexts import PromptToken

MOST_TEXTS = 32  # a side


class _Filters(Asked):
    """What both comparisons are asked. Values a form left empty are as good as missing."""

    chat: bool = Field(default=False, description="Read each text as a user's message in the subject's chat template.")
    top: int = Field(default=10, ge=1, le=200, description="How many features to show in each list of an SAE.")
    densest: float | None = Field(default=None, gt=0, le=1, description="Leave out features of a greater density.")
    label: Label = Field(default="", max_length=100, description="Only features whose label holds this text.")


class _TwoPrompts(_Filters):
    text: str | None = Field(default=None, description="The first text.")
    run: str | None = Field(default=None, max_length=60, description="Instead of it: a run that was kept.")
    other: str | None = Field(default=None, description="The second text.")
    other_run: str | None = Field(default=None, max_length=60, description="Instead of it: a run that was kept.")
    at: int | None = Field(default=None, ge=0, description="Compare at this place of the alignment alone.")
    pin: list[str] = Field(default=[], max_length=50, description="Features kept on top: SLUG/NUMBER.")


class TwoPromptsQuery(_TwoPrompts):
    """/inspect/compare's URL."""

    sae: list[str] = Field(default=[], max_length=16, description="SLUG or SLUG@REVISION; several of one subject.")


class TwoPromptsBody(_TwoPrompts):
    """POST /api/inspect/compare. ``sae`` is one SAE or several of one subject, and may be left out if there is one
    here, or where kept runs are compared."""

    model_config = ConfigDict(extra="forbid")  # a misspelt field is no wish for its default

    sae: str | list[str] | None = None


class ReadPrompt(BaseModel):
    """A text as it was read; ``run`` is where it is kept."""

    text: str
    chat: bool
    run: str | None
    tokens: list[PromptToken]


class AlignedColumn(BaseModel):
    """A token of the first text beside one of the second, by position; null where there is none."""

    kind: Kind
    first: int | None
    second: int | None


class LatentOn(BaseModel):
    """A latent on one text: its activation of greatest magnitude in scope, at ``position`` (null where it is silent),
    its share of the harvest's maximum, with its sign, and its whole row."""

    activation: float
    share: float
    position: int | None
    activations: list[tuple[int, float]]


class DifferentLatent(BaseModel):
    """A latent on two texts; ``difference`` is its strength on the first less that on the second, with signs."""

    index: int
    label: str
    label_source: str
    density: float
    max: float  # max|a| in the harvest; of a revision that is gone, on these texts
    difference: float
    first: LatentOn
    second: LatentOn
    url: str | None  # None where the revision is no longer kept
    pin: str


class SAEDifferences(BaseModel):
    """What one SAE makes of two texts; the counts are those of features that the filters keep."""

    sae: str
    revision: str
    address: str
    hook: str
    kept: bool
    only_first_count: int
    only_second_count: int
    both_count: int
    only_first: list[DifferentLatent]
    only_second: list[DifferentLatent]
    both: list[DifferentLatent]
    pinned: list[DifferentLatent]


class TwoPromptsResult(BaseModel):
    """Two texts, their tokens lined up, and what fires on one and not on the other."""

    subject: str
    first: ReadPrompt
    second: ReadPrompt
    columns: list[AlignedColumn]
    at: int | None
    saes: list[SAEDifferences]
    milliseconds: float
    batch: int  # how many prompts shared the forward pass


class TwoPromptsPage(BaseModel):
    """/inspect/compare and its twin; ``result`` is null until there are two texts."""

    saes: list[SAECard]
    chosen: list[str]
    query: TwoPromptsQuery
    texts: tuple[str, str]
    limit_tokens: int
    limit_characters: int
    result: TwoPromptsResult | None


class _Contrast(_Filters):
    on: Literal["every", "any"] = Field(default="every", description="Fires on every text of the first side, or any.")
    over: float = Field(default=0, ge=0, le=10, allow_inf_nan=False, description="A feature fires where its share is greater.")  # fmt: skip  # noqa: E501
    here_run: list[str] = Field(default=[], max_length=MOST_TEXTS, description="Kept runs of the first side.")
    there_run: list[str] = Field(default=[], max_length=MOST_TEXTS, description="Kept runs of the second side.")


class ContrastQuery(_Contrast):
    """/inspect/contrast's URL; every line of ``here`` and ``there`` is a text."""

    here: list[str] = Field(default=[], max_length=MOST_TEXTS, description="Texts of the first side, one a line.")
    there: list[str] = Field(default=[], max_length=MOST_TEXTS, description="Texts of the second side, one a line.")
    sae: list[str] = Field(default=[], max_length=16, description="SLUG or SLUG@REVISION; several of one subject.")


class ContrastBody(_Contrast):
    """POST /api/inspect/contrast. Each of ``here`` and ``there`` is one text, line breaks and all."""

    model_config = ConfigDict(extra="forbid")  # a misspelt field is no wish for its default

    here: list[str] = Field(default=[], max_length=MOST_TEXTS)
    there: list[str] = Field(default=[], max_length=MOST_TEXTS)
    sae: str | list[str] | None = None


class ContrastLatent(BaseModel):
    """A latent that fires on the first side and not on the second: ``strength`` is the least over those texts of the
    first side on which it fires, ``count`` how many these are."""

    index: int
    label: str
    label_source: str
    density: float
    max: float
    strength: float
    count: int
    here: list[LatentOn]
    there: list[LatentOn]
    url: str | None
    pin: str


class SAEContrast(BaseModel):
    """One SAE's latents that tell the sides apart, the strongest; ``found`` is how many there are."""

    sae: str
    revision: str
    address: str
    hook: str
    kept: bool
    found: int
    latents: list[ContrastLatent]


class ContrastResult(BaseModel):
    """The texts of both sides and what fires on the first alone."""

    subject: str
    here: list[ReadPrompt]
    there: list[ReadPrompt]
    on: Literal["every", "any"]
    over: float
    saes: list[SAEContrast]
    batch: int  # the most texts that shared a forward pass


class ContrastPage(BaseModel):
    """/inspect/contrast and its twin; ``result`` is null until there are texts."""

    saes: list[SAECard]
    chosen: list[str]
    query: ContrastQuery
    here: str
    there: str
    limit_tokens: int
    limit_texts: int
    result: ContrastResult | None
