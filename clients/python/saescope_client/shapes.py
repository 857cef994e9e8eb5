"""The objects that are asked for most; they have more fields, see /api/docs on the server."""

from typing import TypedDict


class SAE(TypedDict):
    """An SAE in a list."""

    slug: str
    revision: str
    subject: str
    hook: str
    layer: int | None
    architecture: str
    d_in: int
    n_latents: int
    dead: int
    corpus: str
    tokens: int
    url: str


class FeatureRow(TypedDict):
    """A feature in a table."""

    index: int
    label: str
    label_source: str
    label_score: float | None
    density: float
    max: float
    min: float
    url: str


class Hit(FeatureRow):
    """A feature that a search found."""

    sae: str
    address: str
    layer: int | None


class Example(TypedDict):
    """A context of a feature; ``interval`` is top, 0 to 9, random or near."""

    interval: str
    sign: int
    rank: int
    tokens: list[str]
    activations: list[float]
    position: int
    activation: float
    document: str


class TokenLogit(TypedDict):
    token: str
    token_id: int
    logit: float


class Feature(TypedDict):
    """A feature's page."""

    sae: str
    revision: str
    index: int
    label: str
    label_source: str
    label_score: float | None
    density: float
    fired: int
    counted: int
    max: float
    min: float
    promoted: list[TokenLogit]
    suppressed: list[TokenLogit]
    examples: list[Example]
