"""The tables of explanations. app.store.tables names them with the others.

``explanation``, ``example_set``, ``score`` and ``score_example`` have a partition an SAE. Their ids come from sequences
``explanation_id``, ``example_set_id`` and ``score_id``.
"""

from pgvector.sqlalchemy import HALFVEC
from sqlalchemy import (
    REAL,
    BigInteger,
    Boolean,
    Column,
    Computed,
    DateTime,
    Double,
    ForeignKey,
    Index,
    Integer,
    SmallInteger,
    Table,
    Text,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, TSVECTOR

from app.store.metadata import metadata

EMBEDDED = 384  # dimensions of an explanation's embedding

# ``label`` is the text in short, as cards show it; ``rule`` what a machine runs; ``raw`` a model's own words;
# ``parameters`` all that the method was given; ``author`` the person, where one wrote it; ``status`` is ok or failed.
explanation = Table(
    "explanation",
    metadata,
    Column("sae_id", Integer, primary_key=True, autoincrement=False),
    Column("id", BigInteger, primary_key=True, server_default=text("nextval('explanation_id')")),
    Column("latent", Integer, nullable=False),
    Column("sign", SmallInteger, nullable=False, server_default="1"),
    Column("method", Text, nullable=False),
    Column("version", Integer, nullable=False, server_default="1"),
    Column("model", Text),
    Column("author", Text),
    Column("parameters", JSONB, nullable=False, server_default=text("'{}'")),
    Column("text", Text, nullable=False),
    Column("label", Text, nullable=False),
    Column("rule", JSONB(none_as_null=True)),
    Column("raw", Text),
    Column("status", Text, nullable=False, server_default="ok"),
    Column("made", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("words", TSVECTOR, Computed("to_tsvector('english', text)", persisted=True)),
    Column("embedding", HALFVEC(EMBEDDED)),
    Index("explanation_of_latent", "sae_id", "latent", "id"),
    Index("explanation_by_method", "sae_id", "method", "latent"),
    Index("explanation_by_words", "words", postgresql_using="gin"),
    Index(
        "explanation_by_meaning",
        "embedding",
        postgresql_using="hnsw",
        postgresql_ops={"embedding": "halfvec_cosine_ops"},
    ),
    Index("explanation_unembedded", "sae_id", "id", postgresql_where=text("embedding IS NULL AND status = 'ok'")),
    postgresql_partition_by="LIST (sae_id)",
)

# Whose the vectors of an SAE's explanations are.
embedding = Table(
    "embedding",
    metadata,
    Column("sae_id", ForeignKey("sae.id", ondelete="CASCADE"), primary_key=True),
    Column("model", Text, nullable=False),
    Column("made", DateTime(timezone=True), nullable=False, server_default=func.now()),
)

# The texts that a person's explanation had before, numbered from 1.
explanation_edit = Table(
    "explanation_edit",
    metadata,
    Column("sae_id", ForeignKey("sae.id", ondelete="CASCADE"), primary_key=True),
    Column("explanation_id", BigInteger, primary_key=True, autoincrement=False),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("text", Text, nullable=False),
    Column("author", Text, nullable=False),
    Column("made", DateTime(timezone=True), nullable=False),
)

explanation_vote = Table(
    "explanation_vote",
    metadata,
    Column("sae_id", ForeignKey("sae.id", ondelete="CASCADE"), primary_key=True),
    Column("explanation_id", BigInteger, primary_key=True, autoincrement=False),
    Column("voter", Text, primary_key=True),
    Column("value", SmallInteger, nullable=False),
    Column("made", DateTime(timezone=True), nullable=False, server_default=func.now()),
)

# The windows a latent's explanations are chosen (val) or scored (test) on, one element each. kinds: places in
# app.explain.samples.KINDS; intervals and peaks: -1 where it does not fire; ``sample`` names the pass.
example_set = Table(
    "example_set",
    metadata,
    Column("sae_id", Integer, primary_key=True, autoincrement=False),
    Column("id", BigInteger, primary_key=True, server_default=text("nextval('example_set_id')")),
    Column("latent", Integer, nullable=False),
    Column("sign", SmallInteger, nullable=False, server_default="1"),
    Column("split", Text, nullable=False),
    Column("sample", Text, nullable=False),
    Column("seed", Integer, nullable=False),
    Column("width", SmallInteger, nullable=False),
    Column("hash", Text, nullable=False),
    Column("sequences", ARRAY(Integer), nullable=False),
    Column("starts", ARRAY(SmallInteger), nullable=False),
    Column("kinds", ARRAY(SmallInteger), nullable=False),
    Column("intervals", ARRAY(SmallInteger), nullable=False),
    Column("peaks", ARRAY(SmallInteger), nullable=False),
    Column("activations", ARRAY(REAL), nullable=False),
    Index("example_set_of_latent", "sae_id", "latent", "sign", "split"),
    postgresql_partition_by="LIST (sae_id)",
)

# ``headline`` is the one number a page shows, NULL where too little was asked or answered; ``control`` is what other
# latents' explanations score on the same examples; ``status`` is ok, few or unanswered.
score = Table(
    "score",
    metadata,
    Column("sae_id", Integer, primary_key=True, autoincrement=False),
    Column("id", BigInteger, primary_key=True, server_default=text("nextval('score_id')")),
    Column("explanation_id", BigInteger, nullable=False),
    Column("latent", Integer, nullable=False),
    Column("scorer", Text, nullable=False),
    Column("version", Integer, nullable=False, server_default="1"),
    Column("model", Text),
    Column("example_set_id", BigInteger),
    Column("status", Text, nullable=False, server_default="ok"),
    Column("headline", REAL),
    Column("n_pos", Integer, nullable=False),
    Column("n_neg", Integer, nullable=False),
    Column("n_failed", Integer, nullable=False, server_default="0"),
    Column("tp", Integer),
    Column("fp", Integer),
    Column("tn", Integer),
    Column("fn", Integer),
    Column("balanced_accuracy", REAL),
    Column("balanced_accuracy_random", REAL),
    Column("balanced_accuracy_hard", REAL),
    Column("precision", REAL),
    Column("recall", REAL),
    Column("f1", REAL),
    Column("auroc", REAL),
    Column("auprc", REAL),
    Column("correlation", REAL),
    Column("ci_low", REAL),
    Column("ci_high", REAL),
    Column("control", REAL),
    Column("facts", JSONB, nullable=False, server_default=text("'{}'")),
    Column("made", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Index("score_of_latent", "sae_id", "latent"),
    Index("score_of_explanation", "sae_id", "explanation_id"),
    Index("score_by_scorer", "sae_id", "scorer"),
    postgresql_partition_by="LIST (sae_id)",
)

# What was said on each example of the score's set: NULL where there was no answer. presented: what the scorer saw,
# where that is not the window as it stands.
score_example = Table(
    "score_example",
    metadata,
    Column("sae_id", Integer, primary_key=True, autoincrement=False),
    Column("score_id", BigInteger, primary_key=True, autoincrement=False),
    Column("predictions", ARRAY(Boolean), nullable=False),
    Column("probabilities", ARRAY(REAL)),
    Column("presented", ARRAY(Text)),
    Column("errors", ARRAY(Text)),
    postgresql_partition_by="LIST (sae_id)",
)

# How the scores of an SAE's explanations are distributed, by method and scorer; made anew with them.
score_summary = Table(
    "score_summary",
    metadata,
    Column("sae_id", ForeignKey("sae.id", ondelete="CASCADE"), primary_key=True),
    Column("method", Text, primary_key=True),
    Column("model", Text, primary_key=True),  # "" for none
    Column("scorer", Text, primary_key=True),
    Column("facts", JSONB, nullable=False),
    Column("made", DateTime(timezone=True), nullable=False, server_default=func.now()),
)

llm_request = Table(
    "llm_request",
    metadata,
    Column("id", BigInteger, primary_key=True),
    Column("key", Text, nullable=False, unique=True),
    Column("sae_id", ForeignKey("sae.id", ondelete="SET NULL")),
    Column("latent", Integer),
    Column("purpose", Text, nullable=False),
    Column("base_url", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("prompt_version", Integer, nullable=False),
    Column("request", JSONB, nullable=False),
    Column("state", Text, nullable=False, server_default="waiting"),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("response", Text),
    Column("status", Integer),
    Column("error", Text),
    Column("prompt_tokens", Integer),
    Column("completion_tokens", Integer),
    Column("cost", Double),
    Column("price_source", Text),
    Column("latency", REAL),
    Column("made", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("claimed", DateTime(timezone=True)),
    Column("answered", DateTime(timezone=True)),
    Index("llm_request_open", "id", postgresql_where=text("state <> 'done'")),
    Index("llm_request_of_sae", "sae_id"),
)
