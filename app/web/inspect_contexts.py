"""The prompt inspector: what its URL says and what it shows, typed."""

from pydantic import BaseModel, ConfigDict, Field

from app.live.ranking import By
from app.web.api_examples import DEMO, EIFFEL
from app.web.contexts import SAECard
from app.web.fields import Asked, Label

NAMES = 400  # characters of an SAE's address, or of a pin


class InspectState(Asked):
    """How a prompt's reading is shown; with ``sae``, ``text``, ``chat`` and ``predict``, all of /inspect's URL."""

    token: int | None = Field(default=None, ge=0, description="Rank at this position alone.")
    sort: By = Field(default="strength", description="What features are ranked by.")
    top: int = Field(default=20, ge=1, le=500, description="How many features to show of each SAE.")
    densest: float | None = Field(default=None, gt=0, le=1, description="Leave out features of a greater density.")
    label: Label = Field(default="", max_length=100, description="Only features whose label holds this text.")
    pin: list[str] = Field(default=[], max_length=50, description="Features kept on top: SLUG/NUMBER.")


class InspectQuery(InspectState):
    """/inspect's URL. Values a form left empty are as good as missing."""

    sae: list[str] = Field(
        default=[], max_length=16, description="SLUG or SLUG@REVISION; several of one subject.", examples=[[DEMO]]
    )
    text: str | None = Field(
        default=None, description="What is read, with BOS put before it.", examples=[f"{EIFFEL} Paris"]
    )
    chat: bool = Field(default=False, description="Read the text as a user's message in the subject's chat template.")
    predict: bool = Field(default=False, description="Also what the subject expects at every position.")


class InspectBody(InspectState):
    """POST /api/inspect. ``sae`` is one SAE or several of one subject, and may be left out if there is one here.
    ``token`` limits the ranking to one position; ``keep`` stores the run under /inspect/{run}."""

    model_config = ConfigDict(extra="forbid")  # a misspelt field is no wish for its default

    text: str = Field(description="What is read, with BOS put before it.")
    sae: str | list[str] | None = Field(default=None, description="SLUG or SLUG@REVISION; several of one subject.")
    chat: bool = Field(default=False, description="Read the text as a user's message in the subject's chat template.")
    predict: bool = Field(default=False, description="Also what the subject expects at every position.")
    keep: bool = Field(default=False, description="Store the run under /inspect/{run}.")


class Expected(BaseModel):
    """A token the subject expects next, and how likely."""

    token: str
    token_id: int
    probability: float


class PromptToken(BaseModel):
    """A token of a prompt. ``counted`` is false for BOS and other special tokens, where no latent is read. Where
    predictions were asked for: ``probability`` is what the subject gave to this token, ``surprisal`` its negative
    logarithm in bits, ``entropy`` that of what it expects next, in bits."""

    text: str
    token_id: int
    counted: bool
    probability: float | None = None
    surprisal: float | None = None
    entropy: float | None = None


class PromptLatent(BaseModel):
    """A latent that fires on a prompt. ``activation`` is its strongest, at ``position``; ``count`` at how many tokens
    it fires, ``first`` the first of them."""

    index: int
    label: str
    label_source: str
    activation: float
    share: float
    strength: float
    position: int
    count: int
    first: int
    density: float
    promoted: list[str]
    activations: list[tuple[int, float]]
    url: str | None  # None where the revision is no longer kept
    pin: str


class PursuitStep(BaseModel):
    """One step of a matching pursuit at a token: the latent it chose, and the norm of what was left after it."""

    index: int
    label: str
    residual: float
    url: str | None


class SAEReading(BaseModel):
    """What one SAE makes of a prompt. ``latents`` are the strongest over the scope that the filters keep, ``active``
    how many are active there without filters. ``error`` is, at each token, the norm of what the SAE leaves out over
    the norm of what it reconstructs; None where nothing is read."""

    sae: str
    revision: str
    address: str
    hook: str
    kept: bool  # whether this revision is still here
    attention: bool  # whether it reads attention outputs, so that its latents have heads and source tokens
    active: int
    latents: list[PromptLatent]
    pinned: list[PromptLatent]
    error: list[float | None] | None
    steps: list[PursuitStep] | None  # of pursuits, at the token asked for, in order of selection


class InspectResult(BaseModel):
    """A prompt read by the subject and one or more of its SAEs."""

    run: str | None  # where it is kept: /inspect/{run}
    subject: str
    text: str
    chat: bool
    tokens: list[str]
    prompt: list[PromptToken]
    token: int | None
    expected: list[Expected] | None  # after the token asked for (after the last, where none is)
    sort: By
    saes: list[SAEReading]
    milliseconds: float
    batch: int  # how many prompts shared the forward pass


class InspectPage(BaseModel):
    """/inspect, /inspect/{run} and their twins; ``result`` is None until there is text."""

    saes: list[SAECard]
    chosen: list[str]
    query: InspectQuery
    run: str | None
    made: str | None
    limit_tokens: int  # of the text itself, BOS not counted
    limit_characters: int
    result: InspectResult | None
