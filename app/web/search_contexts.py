"""Search: what its URL says and what it shows, typed."""

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, Field
from pydantic_core import PydanticCustomError

from app.store.plain import storable
from app.web.browse_contexts import TableToken
from app.web.contexts import Glimpse
from app.web.fields import Asked
from app.web.inspect_contexts import NAMES

Mode = Literal["meaning", "tokens", "text", "examples", "vector"]


def _storable(text: str) -> str:
    if text != storable(text):
        raise PydanticCustomError("text", "no text holds a NUL or half of a surrogate pair")
    return text


Typed = Annotated[str, AfterValidator(_storable)]


class SearchQuery(Asked):
    """/search's URL. Bounds are as they were typed, so that a form that does not fit can be shown again."""

    q: Typed = Field(
        default="",
        max_length=200_000,
        description="What is looked for; in mode vector SLUG/NUMBER or a JSON list.",
        examples=["capital of France"],
    )
    mode: Mode = Field(default="meaning", description="What of the features is searched.")
    sae: Typed = Field(default="", max_length=NAMES, description="One SAE, SLUG or SLUG@REVISION; empty is all.")
    layer: int | None = Field(default=None, ge=0, description="Only SAEs that read this layer.")
    method: Typed = Field(default="", max_length=100, description="What the explanation was made by.")
    fires: Literal["", "positive", "negative"] = Field(default="", description="The sign of the activations meant.")
    density_min: Typed = Field(default="", max_length=40, description="Least share of tokens it fires on.")
    density_max: Typed = Field(default="", max_length=40, description="Greatest share of tokens it fires on.")
    score_min: Typed = Field(default="", max_length=40, description="Least score of its label.")
    score_max: Typed = Field(default="", max_length=40, description="Greatest score of its label.")
    top: int = Field(default=20, ge=1, le=100, description="How many features to tell.")
    after: int = Field(default=0, ge=0, le=10_000, description="How many of the first to leave out.")


class Piece(BaseModel):
    """A part of a text; ``marked`` where it is a word that was asked for."""

    text: str
    marked: bool


class Matched(BaseModel):
    """A text that matched: an explanation, made by ``method`` with ``model`` or written by ``author``, or (method null)
    the label."""

    pieces: list[Piece]
    method: str | None
    model: str | None
    author: str | None


class Mentions(BaseModel):
    """Of a feature's examples those that hold the phrase, and of these those in which it is strongest on it.
    ``example`` is the strongest of the latter, else of the former, around the phrase, which is the tokens from
    ``first`` up to ``end``."""

    examples: int
    peaks: int
    example: Glimpse
    first: int
    end: int
    document: str


class Fires(BaseModel):
    """How strongly a feature fires on the text asked with: its strongest activation, at ``position``."""

    activation: float
    share: float
    strength: float
    position: int
    activations: list[tuple[int, float]]


class ListedWord(BaseModel):
    """A word that the subject lists; ``share`` of the feature's firings are on it."""

    text: str
    share: float


class ListedFirings(BaseModel):
    """The words that ``subject`` lists and the feature fires on, the greatest share first; ``share``: all together."""

    subject: str
    share: float
    words: list[ListedWord]


class SearchHit(BaseModel):
    """A feature that was found, and why: ``words`` is what holds the words, ``meaning`` what is near in meaning where
    that is another explanation, ``cosine`` how near, ``listed`` what it fires on that its subject lists. Of the other
    modes: in which lists the token is, what it does on the text, in how many examples the phrase is, and the decoder
    row's cosine (``cosine``)."""

    sae: str
    address: str
    layer: int | None
    index: int
    label: str
    label_source: str
    label_score: float | None
    density: float
    max: float
    min: float
    url: str
    words: Matched | None = None
    meaning: Matched | None = None
    cosine: float | None = None
    listed: ListedFirings | None = None
    tokens: list[str] | None = None
    fires: Fires | None = None
    mentions: Mentions | None = None


class Jump(BaseModel):
    """A feature that what was typed is the number of."""

    sae: str
    index: int
    url: str


class SubjectList(BaseModel):
    """What ``subject`` was found to list for what was asked: its first words."""

    subject: str
    words: list[str]


class SearchResult(BaseModel):
    """What was found. ``found`` counts features, which are at least so many if ``more``; by meaning it counts those
    that hold the words, and null is said where words were not looked for. ``notes`` say what limits the answer:
    what is missing, and how to get it."""

    found: int | None
    more: bool
    any_word: bool = False  # none holds all of the words, so those with any of them are told
    by_meaning: bool = False
    exact: bool = True  # whether the meaning was compared with every explanation
    lists: list[SubjectList] = []
    notes: list[str]
    read: list[str] | None = None  # the text's tokens, where it was read
    meant: list[TableToken] | None = None  # what the token was taken as
    items: list[SearchHit]
    next: int | None


class SearchPage(BaseModel):
    """/search and its twin; ``result`` is null until something is asked, ``error`` is what does not fit."""

    query: SearchQuery
    saes: list[str]
    layers: list[int]
    methods: list[str]
    signed: bool
    jumps: list[Jump]
    result: SearchResult | None
    error: str | None = None
    status: int = 200
