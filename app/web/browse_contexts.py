"""What the feature table shows, typed; and what its URL may say."""

from typing import Literal

from pydantic import BaseModel, Field

from app.store.browse import Sort
from app.web.contexts import LatentRow, Order


class BrowseQuery(BaseModel):
    """The feature table's state in the URL, as it was typed, so that a form that does not fit can be shown again. What
    is empty or left out keeps every feature."""

    q: str = Field(default="", description="Text the label holds.")
    source: str = Field(default="", description="Where the label comes from, such as top-tokens.")
    density_min: str = Field(default="", description="Least share of tokens it fires on.")
    density_max: str = Field(default="", description="Greatest share of tokens it fires on.")
    max_min: str = Field(default="", description="Least maximum activation.")
    max_max: str = Field(default="", description="Greatest maximum activation.")
    score_min: str = Field(default="", description="Least score of the label.")
    score_max: str = Field(default="", description="Greatest score of the label.")
    fires: str = Field(default="", description="positive, negative or both: the signs of its activations.")
    state: str = Field(default="", description="alive or dead.")
    on: str = Field(
        default="", description="first or last: more than half of its firings are on that position of the sequences."
    )
    token: str = Field(default="", description="A token it fires on or promotes.")
    index: list[str] = Field(default=[], description="These features only: 1,2,3.")
    map: str = Field(default="", description="Version of a map; what follows is on this one, else on the SAE's first.")
    region: str = Field(default="", description="Number of a region of the map, or none.")
    cluster: str = Field(default="", description="Number of a cluster of the map, or none.")
    within: str = Field(
        default="", description="Corners of an outline on the map, such as 0,0 900,0 900,500; two span a rectangle."
    )
    sort: Sort = "index"
    order: Order | None = None
    cursor: str = ""

    def given(self) -> dict[str, str]:
        """The filters that are given, as a URL writes them."""
        out = {name: getattr(self, name) for name in FILTERS if name != "index"}
        out["index"] = ",".join(part.strip() for text in self.index for part in text.split(",") if part.strip())
        return {name: value for name, value in out.items() if value}

    def way(self) -> Order:
        return self.order or ("asc" if self.sort in ("index", "label") else "desc")

    def ordered(self) -> dict[str, str]:
        """``given`` with the order, unless it is the usual one."""
        usual = self.sort == "index" and self.way() == "asc"
        return self.given() if usual else {**self.given(), "sort": self.sort, "order": self.way()}


class BrowseListQuery(BrowseQuery):
    """The same with a page's length."""

    limit: int = Field(default=50, ge=1, le=500)


FILTERS = (
    "q", "source", "density_min", "density_max", "max_min", "max_max", "score_min", "score_max", "fires", "state", "on",
    "token", "index", "map", "region", "cluster", "within",
)  # fmt: skip


class BrowseRow(LatentRow):
    """A latent in the feature table. ``tokens`` are those it fires on most surely (most promoted, where none is known);
    ``matches`` says in which way the token asked for is one of its own."""

    label_score: float | None
    tokens: list[str]
    matches: list[str]


class TableToken(BaseModel):
    """A token of the vocabulary that reads as the text asked for."""

    token: str
    token_id: int


class LatentPage(BaseModel):
    """A page of the feature table; ``next`` is the cursor of the following one. ``found`` counts what the filters keep,
    up to ten thousand unless ``found_exact``; ``tokens`` are those that ``token`` was taken to mean."""

    items: list[BrowseRow]
    next: str | None
    found: int
    found_exact: bool
    tokens: list[TableToken]


class Bar(BaseModel):
    """A bar of a histogram; ``url`` is the table with only what lies in it."""

    low: float
    high: float
    count: int
    chosen: bool
    url: str
    fragment: str


class LatentTable(BaseModel):
    """The feature table with its state. ``address`` is what stands for the SAE in URLs; ``place`` is the page the table
    stands on; ``error`` is what does not fit in the filters."""

    sae: str
    address: str
    signed: bool
    place: Literal["sae", "features"]
    query: BrowseQuery
    given: dict[str, str]
    ordered: dict[str, str]
    sort: Sort
    order: Order
    cursor: str | None
    sources: list[str]
    density_bars: list[Bar]
    score_bars: list[Bar]
    page: LatentPage
    error: str | None = None
    status: int = 200  # of the answer that shows it
