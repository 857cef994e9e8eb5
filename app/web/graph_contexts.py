"""What the pages of attribution graphs show, typed."""

from datetime import datetime

from pydantic import BaseModel


class GraphSummary(BaseModel):
    """A graph in the list."""

    name: str
    title: str
    scan: str
    prompt: str
    nodes: int
    links: int
    made: datetime
    url: str


class GraphsPage(BaseModel):
    items: list[GraphSummary]
    cursor: str | None
    next: str | None


class GraphNode(BaseModel):
    """``layer`` is E for embeddings; ``index`` the latent that a feature's node is of; ``feature_url`` and
    ``feature_label`` the page and label of the feature here that it is taken for."""

    id: str
    kind: str
    layer: str
    position: int
    index: int | None
    label: str
    influence: float | None
    activation: float | None
    probability: float | None
    feature_url: str | None = None
    feature_label: str | None = None


class GraphEdge(BaseModel):
    """A node beside the chosen one, and the weight of the link between them."""

    node: GraphNode
    weight: float
    url: str


class GraphChosen(BaseModel):
    """The strongest links of a node, of as many as there are."""

    node: GraphNode
    incoming: list[GraphEdge]
    outgoing: list[GraphEdge]
    incoming_count: int
    outgoing_count: int


class GraphSAE(BaseModel):
    """An SAE whose features the nodes of a layer are taken for. ``chosen``: by the reader, not by the graph's scan."""

    layer: int
    sae: str
    chosen: bool


class GraphPage(BaseModel):
    """``pinned`` are the ids of nodes that whoever made it had marked."""

    name: str
    title: str
    scan: str
    prompt: str
    tokens: list[str]
    made: datetime
    links: int
    layers: list[str]
    nodes: list[GraphNode]
    pinned: list[str]
    saes: list[GraphSAE]
    chosen: GraphChosen | None
