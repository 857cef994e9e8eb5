"""What each page shows, typed. A page's ``.json`` twin is its context, dumped."""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel

from app.web.evaluation_contexts import EvaluationSummary
from app.web.explain_contexts import Explanation, SAEScores
from app.web.place_contexts import FeatureMap

Order = Literal["asc", "desc"]


class Histogram(BaseModel):
    """``counts[i]`` values lie in ``[edges[i], edges[i + 1])``; one edge more than counts."""

    edges: list[float]
    counts: list[int]


class TokenLogit(BaseModel):
    """A token of the vocabulary and the latent's direct effect on its logit, per unit of activation."""

    token: str
    token_id: int
    logit: float


class Glimpse(BaseModel):
    """The part of a latent's strongest context around its peak, for one line: ``tokens`` and their ``activations``
    with the peak at ``position``; ``maximum`` is the latent's own max|activation|."""

    tokens: list[str]
    activations: list[float]
    position: int
    maximum: float


class Neighbour(BaseModel):
    """Another latent, by cosine of the decoder rows. ``example`` is None where it never fired."""

    index: int
    cosine: float
    label: str
    url: str
    example: Glimpse | None = None


class Coactive(BaseModel):
    """A latent that fires where this one does: phi is the correlation of the two firings, ``together`` at how many
    positions both do, ``example`` its own strongest context."""

    index: int
    phi: float
    together: int
    label: str
    url: str
    example: Glimpse | None = None


class TopToken(BaseModel):
    """A token the latent fires on. ``mean`` is its mean activation over the token's occurrences, silent ones as 0;
    ``probability`` how often it fires there, of ``seen`` occurrences."""

    token: str
    token_id: int
    mean: float | None = None
    probability: float | None = None
    seen: int | None = None


class Profile(BaseModel):
    """How often it fires by place in the sequence: ``shares[i]`` of the positions from place ``edges[i]`` up to the
    next edge. ``first`` and ``last`` are its shares of the sequences' first and last positions."""

    edges: list[int]
    shares: list[float]
    first: float
    last: float
    sequences: int


class DocumentFires(BaseModel):
    """A document and at how many of its positions the latent fires."""

    document: str
    fires: int


class Usage(BaseModel):
    """Where, on what and with whom a latent fires, over the whole harvest. ``coactive`` is counted over
    ``coactive_positions``, which are all there were if ``coactive_exact``."""

    profile: Profile
    tokens_by_mean: list[TopToken]
    tokens_by_probability: list[TopToken]
    token_counts_exact: bool
    coactive: list[Coactive]
    coactive_exact: bool
    coactive_positions: int
    documents: int
    top_documents: list[DocumentFires]


class Example(BaseModel):
    """A window of a sequence. ``position`` indexes ``tokens``: ``activations[position] == activation``.

    ``tokens`` are pieces of text, one per token; a character spread over several tokens stands at the last of
    them. ``start`` is where the window begins in its sequence.
    """

    interval: str
    sign: int  # -1 where the context is one of negative activations
    rank: int
    tokens: list[str]
    token_ids: list[int]
    activations: list[float]
    position: int
    activation: float
    document: str
    sequence: int
    start: int


class ExampleGroup(BaseModel):
    """The examples of one interval; ``low`` and ``high`` bound |activation| (None for the top examples)."""

    interval: str
    sign: int
    title: str
    low: float | None
    high: float | None
    contexts: int
    folded: int  # drawn for this interval too, but shown among the top examples already
    examples: list[Example]


class Metrics(BaseModel):
    """Quality of the SAE over ``tokens`` positions of the harvest; null where there were none, or where it is not
    defined."""

    fvu: float | None = None
    explained_variance: float | None = None
    cosine: float | None = None
    norm_ratio: float | None = None
    l0: float | None = None
    tokens: int = 0
    # With the reconstruction, or zeros, in the place of the activations, over recovery_tokens predictions:
    ce_original: float | None = None
    ce_sae: float | None = None
    ce_zero: float | None = None
    ce_recovered: float | None = None
    kl_recovered: float | None = None
    recovery_tokens: int | None = None


class Imported(BaseModel):
    """Another tool's files in the place of a harvest. ``unread``: contexts left out, since their tokens are not known
    for sure; ``silent``: left out, since nothing in them fires; ``missing``: latents the files do not tell of."""

    tool: str
    folder: str
    contexts: int
    unread: int
    silent: int
    missing: int


class Harvest(BaseModel):
    """Where the numbers come from."""

    corpus: str
    corpus_sha256: str
    tokens: int
    sequences: int
    documents: int
    context: int
    seconds: float
    tokens_per_second: float
    finished: str
    subject_dtype: str
    skipped: int = 0  # documents that could not be read
    skipped_named: list[str] = []  # the first of them, each with the reason
    halved: bool = False  # whether batches were halved for want of memory
    imported: Imported | None = None


class SAECard(BaseModel):
    """An SAE in a list."""

    slug: str
    revision: str
    subject: str
    hook: str
    layer: int | None  # of the first place it reads, where its name says so
    architecture: str
    d_in: int
    n_latents: int
    dead: int
    metrics: Metrics
    corpus: str
    tokens: int
    url: str


class SAEList(BaseModel):
    """/saes.json."""

    items: list[SAECard]
    next: str | None = None


class LatentRow(BaseModel):
    """A latent in a table."""

    index: int
    label: str
    label_source: str
    density: float
    max: float
    min: float
    url: str


class Revision(BaseModel):
    """A harvest of an SAE that is kept."""

    revision: str
    corpus: str
    tokens: int
    finished: str
    url: str


class SAEPage(BaseModel):
    """/saes/{sae} and its twin."""

    sae: str
    revision: str
    address: str  # slug, or slug@revision on a pinned page: what stands for the SAE in URLs
    subject: str
    reads: list[str]
    writes: list[str]
    architecture: str
    d_in: int
    n_latents: int
    extra: dict[str, int | float | str | bool]
    weights_sha256: str
    alive: int
    dead: int
    metrics: Metrics
    harvest: Harvest
    density_histogram: Histogram  # edges in log10(density), latents that never fire left out
    revisions: list[Revision]  # every one that is kept, the newest first
    scores: SAEScores | None = None  # None where nothing has been explained
    evaluations: list[EvaluationSummary] = []


class FeatureTest(BaseModel):
    """One latent on a text of the reader's own. ``activations`` has one value a token."""

    text: str
    tokens: list[str]
    activations: list[float]
    strongest: float
    position: int | None  # of the strongest; None where it does not fire
    share: float


class Note(BaseModel):
    """What people wrote on a feature, as plain text; ``revision`` is the harvest on whose page."""

    id: int
    text: str
    author: str
    visibility: str
    made: datetime
    sae: str
    revision: str


class OnList(BaseModel):
    """A list that a feature is on."""

    title: str
    url: str


class FeaturePage(BaseModel):
    """/saes/{sae}/features/{i} and its twin."""

    sae: str
    revision: str
    address: str  # slug, or slug@revision on a pinned page: what stands for the SAE in URLs
    index: int
    n_latents: int
    label: str
    label_source: str
    label_score: float | None
    density: float
    fired: int
    counted: int
    max: float
    min: float
    mean: float | None  # None, as std, where another tool's files do not tell
    std: float | None
    decoder_norm: float
    encoder_decoder_cosine: float | None  # None where encoder and decoder live in different spaces
    head_shares: list[float] | None  # attention-output SAEs: each head's share of the squared decoder norm
    histogram: Histogram
    promoted: list[TokenLogit]
    suppressed: list[TokenLogit]
    neighbours: list[Neighbour]
    usage: Usage | None  # None for harvests older than these statistics
    examples: list[Example]
    explanations: list[Explanation]
    model: str | None = None  # the language model that its button asks
    subject: str
    architecture: str
    harvest: Harvest
    map: FeatureMap | None = None
    test: FeatureTest | None = None  # where ?text= was given
    note: Note | None = None
    lists: list[OnList] = []


class HomePage(BaseModel):
    """/ : every SAE, one feature to try, and what runs here."""

    saes: list[SAECard]
    featured: LatentRow | None
    featured_example: Example | None
    hardware: str


class ErrorPage(BaseModel):
    """A refusal as a page. ``back`` is the page of the SAE it came from; ``request`` the id by which the log knows a
    request that was not the reader's fault."""

    status: int
    title: str
    back: str | None
    code: str
    message: str
    request: str | None = None
