"""What other places show of a feature or an SAE: hover cards, link previews, embeds."""

from typing import Literal

from pydantic import BaseModel

from app.web.contexts import Glimpse


class FeatureCard(BaseModel):
    """/saes/{sae}/features/{i}/card and its twin: a latent in a few lines."""

    sae: str
    revision: str
    address: str  # slug, or slug@revision where it was asked for by revision
    index: int
    label: str
    label_source: str
    label_score: float | None
    density: float
    max: float
    min: float
    promoted: list[str]
    example: Glimpse | None  # None where it never fired
    url: str


class Preview(BaseModel):
    """The tags by which other sites show a link to a page. URLs are absolute."""

    title: str
    description: str
    url: str
    image: str
    oembed: str | None


class OEmbed(BaseModel):
    """/oembed, as https://oembed.com has it."""

    version: Literal["1.0"] = "1.0"
    type: Literal["rich"] = "rich"
    title: str
    provider_name: Literal["saescope"] = "saescope"
    provider_url: str
    html: str
    width: int
    height: int
    thumbnail_url: str
    thumbnail_width: int
    thumbnail_height: int


class Panels(BaseModel):
    """What an embedded feature shows; ``examples`` is how many."""

    stats: bool = True
    examples: int = 3
    histogram: bool = True
    logits: bool = False
    tokens: bool = False
    neighbours: bool = False
    coactive: bool = False
    theme: Literal["system", "light", "dark"] = "system"
