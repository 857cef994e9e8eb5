"""What pages of lists and notes show, typed; and what their forms and the API may say."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from app.roles import Visibility
from app.store.lists import MOST_ITEMS, Way
from app.store.plain import storable
from app.web.contexts import Glimpse, Note

MOST_TAGS, LONGEST_TAG = 20, 40
LONGEST_NOTE = 10_000


def _text(text: str) -> str:
    """As it is kept: with line ends of one kind, without white space around it."""
    if text != storable(text):
        raise PydanticCustomError("text", "it holds a NUL or half of a surrogate pair")
    return text.replace("\r\n", "\n").replace("\r", "\n").strip()


def _line(text: str) -> str:
    return " ".join(_text(text).split())


def _several(given: object) -> object:
    return given.split(",") if isinstance(given, str) else given


def _tags(given: list[str]) -> list[str]:
    tags = list(dict.fromkeys(tag for text in given if (tag := _line(text).lower())))
    if any("," in tag for tag in tags):
        raise PydanticCustomError("tags", "a tag holds no comma")
    if any(len(tag) > LONGEST_TAG for tag in tags):
        raise PydanticCustomError("tags", f"a tag is longer than {LONGEST_TAG} characters")
    if len(tags) > MOST_TAGS:
        raise PydanticCustomError("tags", f"there are more than {MOST_TAGS} tags")
    return tags


Title = Annotated[str, Field(max_length=200), AfterValidator(_line), Field(min_length=1)]
Description = Annotated[str, Field(max_length=4000), AfterValidator(_text)]
Comment = Annotated[str, Field(max_length=1000), AfterValidator(_text)]
Author = Annotated[str, Field(max_length=100), AfterValidator(_line)]
NoteText = Annotated[str, Field(max_length=LONGEST_NOTE), AfterValidator(_text)]
Tags = Annotated[list[str], BeforeValidator(_several), AfterValidator(_tags)]
Kind = Literal["feature", "run", "region"]
Shown = Literal["team", "public"]
_SEEN = "In team mode, who may see it: private, team or public."
_TAGS = "Words to find it by; in a form, separated by commas."


class ItemBody(BaseModel):
    """An item: a feature (``sae``, ``index``), a kept prompt run (``run``), or a region of a map (``sae``, ``map``,
    ``level``, ``region``). Without a revision the newest is meant."""

    model_config = ConfigDict(extra="forbid")

    kind: Kind = Field(description="feature, run or region.")
    sae: str | None = Field(default=None, description="The SAE's slug.")
    revision: str | None = Field(default=None, description="Its revision.")
    index: int | None = Field(default=None, ge=0, description="The feature's number.")
    run: str | None = Field(default=None, description="The run's name, as in /inspect/{run}.")
    map: str | None = Field(default=None, description="The map's version.")
    level: int | None = Field(default=None, ge=0, le=1, description="0 is a region, 1 a cluster in one.")
    region: int | None = Field(default=None, ge=0, description="The region's or cluster's number on that level.")
    label: Annotated[str, Field(max_length=1000), AfterValidator(_line)] = Field(
        default="", description="What it is called; shown where it is not here."
    )
    comment: Comment = Field(default="", description="What you want to say of it.")
    tags: Tags = Field(default=[], description=_TAGS)


class ListBody(BaseModel):
    """POST /api/lists: a new list; an exported one is just that."""

    model_config = ConfigDict(extra="forbid")

    title: Title = Field(description="What it is called.")
    description: Description = Field(default="", description="What it is for.")
    tags: Tags = Field(default=[], description=_TAGS)
    author: Author = Field(default="", description="Who made it.")
    visibility: Visibility = Field(default="team", description=_SEEN)
    items: list[ItemBody] = Field(default=[], max_length=MOST_ITEMS, description="What it holds, in order.")


class ListEdit(BaseModel):
    """POST /api/lists/{name}/edit: what is left out stays."""

    model_config = ConfigDict(extra="forbid")

    title: Title | None = Field(default=None, description="What it is called; its address stays.")
    description: Description | None = Field(default=None, description="What it is for.")
    tags: Tags | None = Field(default=None, description=_TAGS)
    author: Author | None = Field(default=None, description="Who made it.")
    visibility: Visibility | None = Field(default=None, description=_SEEN)


class ItemsBody(BaseModel):
    """POST /api/lists/{name}/items: put at the end; what the list has already stays as it is."""

    model_config = ConfigDict(extra="forbid")

    items: list[ItemBody] = Field(min_length=1, max_length=MOST_ITEMS, description="What to add, in order.")


class ItemEdit(BaseModel):
    """POST /api/lists/{name}/items/{item}/edit: what is left out stays."""

    model_config = ConfigDict(extra="forbid")

    comment: Comment | None = Field(default=None, description="What you want to say of it.")
    tags: Tags | None = Field(default=None, description=_TAGS)
    move: Way | None = Field(default=None, description="up, down, first or last.")


class NoteBody(BaseModel):
    """POST /api/saes/{slug}/features/{index}/note. An empty text takes the note away; its history stays."""

    model_config = ConfigDict(extra="forbid")

    text: NoteText = Field(description="Plain text; an empty line parts paragraphs.")
    author: Author = Field(default="", description="Who writes it.")
    visibility: Shown = Field(default="team", description="In team mode, who may see this version: team or public.")
    after: int | None = Field(
        default=None,
        ge=0,
        lt=2**63,
        description="The version you read (0 for none); refused where there is another since.",
    )


class ListForm(BaseModel):
    """The forms that make and edit a list."""

    title: Title
    description: Description = ""
    tags: Tags = []
    author: Author = ""
    visibility: Visibility | None = None  # as it is; of a new list, the team's


class ItemForm(BaseModel):
    comment: Comment = ""
    tags: Tags = []


class AddForm(BaseModel):
    """Adds to a new list called ``title``, else to the list ``list``."""

    items: str
    list: str = ""
    title: Annotated[str, Field(max_length=200), AfterValidator(_line)] = ""
    comment: Comment = ""


class NoteForm(BaseModel):
    text: NoteText = ""
    author: Author = ""
    visibility: Shown = "team"
    after: int = Field(default=0, ge=0, lt=2**63)


class ListedFeature(BaseModel):
    """A feature of a list. ``example`` is the middle of its strongest context; None where it never fired."""

    sae: str
    revision: str
    index: int
    label: str
    label_source: str
    label_score: float | None
    density: float
    max: float
    min: float
    example: Glimpse | None


class ListedRun(BaseModel):
    """A kept prompt run of a list; ``text`` is its beginning, ``length`` the characters of all of it."""

    run: str
    subject: str
    text: str
    length: int
    saes: list[str]
    made: datetime


class ListedRegion(BaseModel):
    """A region of a map (level 0), or a cluster in one (level 1)."""

    sae: str
    revision: str
    map: str
    level: int
    region: int
    method: str
    on: str
    name: str
    terms: list[str]
    size: int


class Listed(BaseModel):
    """An item of a list. Of ``feature``, ``run`` and ``region`` the one that ``kind`` names is there, unless ``gone``
    says why not. ``newer`` leads to the same number in a newer revision; ``newer_says`` whether that is the same
    feature."""

    id: int
    kind: Kind
    reference: str
    label: str
    comment: str
    tags: list[str]
    added: datetime | None
    url: str | None
    gone: str | None
    newer: str | None
    newer_says: str | None
    feature: ListedFeature | None = None
    run: ListedRun | None = None
    region: ListedRegion | None = None


class ListSummary(BaseModel):
    """A list without its items."""

    name: str
    title: str
    description: str
    tags: list[str]
    author: str
    visibility: Visibility
    made: datetime
    changed: datetime
    count: int
    url: str


class ListsPage(BaseModel):
    """/lists and its twin."""

    items: list[ListSummary]
    next: str | None
    tags: list[str]
    q: str
    tag: str
    cursor: str | None


class ListPage(ListSummary):
    """/lists/{name} and its twin: a page of its items. ``share`` leads to an address that holds the list itself, where
    it is short enough."""

    items: list[Listed]
    next: str | None
    cursor: str | None
    share: str | None


class SharedPage(BaseModel):
    """/lists/shared and its twin: a list that its address holds."""

    title: str
    items: list[Listed]
    given: str


class AddPage(BaseModel):
    """/lists/add: what is to be added, and where to."""

    items: list[Listed]
    given: str
    lists: list[ListSummary]


class NotesPage(BaseModel):
    """/saes/{sae}/features/{i}/notes and its twin: the note's versions, the newest first; one with
    no text took it away."""

    sae: str
    revision: str
    address: str
    index: int
    items: list[Note]
    next: str | None = None
