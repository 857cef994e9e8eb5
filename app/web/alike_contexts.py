"""Contexts of the corpus that look like a prompt: what is asked and what is answered, typed."""

from pydantic import BaseModel, ConfigDict, Field

from app.web.fields import Asked
from app.web.inspect_contexts import NAMES


class AlikeScope(Asked):
    """Which of a text's tokens are compared, and which of the contexts found are told."""

    token: int | None = Field(default=None, ge=0, description="Compare what fires at this token alone.")
    to: int | None = Field(default=None, ge=0, description="With token: at the tokens from that to this one.")
    top: int = Field(default=10, ge=1, le=100, description="How many contexts to tell.")
    after: int = Field(default=0, ge=0, le=10_000_000, description="How many of the most alike to leave out.")


class AlikeQuery(AlikeScope):
    """/contexts's URL. Values a form left empty are as good as missing."""

    text: str | None = None
    run: str | None = Field(default=None, max_length=40, description="A kept run, in the place of text.")
    sae: str | None = Field(default=None, max_length=NAMES, description="SLUG or SLUG@REVISION.")
    chat: bool = Field(default=False, description="Read the text as a user's message in the subject's chat template.")


class AlikeBody(AlikeScope):
    """POST /api/inspect/contexts. ``sae`` may be left out if there is one here."""

    model_config = ConfigDict(extra="forbid")  # a misspelt field is no wish for its default

    text: str = Field(description="What is read, with BOS put before it.")
    sae: str | None = Field(default=None, description="SLUG or SLUG@REVISION.")
    chat: bool = Field(default=False, description="Read the text as a user's message in the subject's chat template.")


class SharedLatent(BaseModel):
    """A latent of both vectors. ``part`` is what it adds to the similarity; ``strength`` and ``position`` are its
    strength in the prompt and the token it is strongest at, ``context_strength`` and ``context_position`` those in the
    context."""

    index: int
    label: str
    url: str
    part: float
    strength: float
    position: int
    context_strength: float
    context_position: int


class AlikeContext(BaseModel):
    """A context: ``tokens`` from place ``start`` of a sequence of the corpus. ``parts`` has for each token what the
    shared latents that are strongest there add to the similarity."""

    similarity: float
    sequence: int
    start: int
    document: str
    tokens: list[str]
    token_ids: list[int]
    parts: list[float]
    shared: list[SharedLatent]  # the largest part first
    text: str  # without special tokens
    url: str  # where it is inspected


class AlikeResult(BaseModel):
    """The contexts of greatest similarity to a prompt, or to some tokens of it: the cosine of their strengths, over
    the ``latents`` strongest of each. ``active`` latents fire at those tokens, ``compared`` are in the vector. Of
    ``seen`` contexts of ``width`` tokens ``kept`` are a sample, of which ``found`` have a similarity above 0. ``next``
    is the ``after`` of those that follow."""

    sae: str
    revision: str
    address: str
    subject: str
    corpus: str
    text: str
    chat: bool
    run: str | None
    tokens: list[str]
    counted: list[bool]
    token: int | None
    to: int | None
    active: int
    compared: int
    latents: int
    width: int
    kept: int
    seen: int
    found: int
    items: list[AlikeContext]
    next: int | None


class AlikePage(BaseModel):
    """/contexts and its twin; ``result`` is None until there is text."""

    query: AlikeQuery
    saes: list[str]
    chosen: str | None
    limit_tokens: int
    limit_characters: int
    result: AlikeResult | None
