"""The tables, as SQLAlchemy sees them. migrations/ makes them; a test keeps the two in step.

``sae`` has one row a harvest: (slug, revision). Its id is the LIST partition key of the tables in ``PARTITIONED``.
"""

from sqlalchemy import (
    REAL,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from app.store.account_tables import account as account
from app.store.account_tables import account_link as account_link
from app.store.account_tables import account_session as account_session
from app.store.account_tables import api_token as api_token
from app.store.account_tables import audit as audit
from app.store.account_tables import share as share
from app.store.evaluation_tables import evaluation as evaluation
from app.store.explain_tables import embedding as embedding
from app.store.explain_tables import example_set as example_set
from app.store.explain_tables import explanation as explanation
from app.store.explain_tables import explanation_edit as explanation_edit
from app.store.explain_tables import explanation_vote as explanation_vote
from app.store.explain_tables import llm_request as llm_request
from app.store.explain_tables import score as score
from app.store.explain_tables import score_example as score_example
from app.store.explain_tables import score_summary as score_summary
from app.store.graph_tables import graph as graph
from app.store.llm_tables import llm_attempt as llm_attempt
from app.store.metadata import metadata

subject = Table(
    "subject",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("path", Text, nullable=False),
    Column("facts", JSONB, nullable=False),
    Column("sha256", Text, unique=True),  # of config, weights and vocabulary; NULL in rows older than it
)

corpus = Table(
    "corpus",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", Text, nullable=False),
    Column("sha256", Text, nullable=False, unique=True),
    Column("context", Integer, nullable=False),
    Column("sequences", Integer, nullable=False),
    Column("documents", Integer, nullable=False),
    Column("tokens", BigInteger, nullable=False),
)

sequence = Table(
    "sequence",
    metadata,
    Column("corpus_id", ForeignKey("corpus.id", ondelete="CASCADE"), primary_key=True),
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("token_ids", ARRAY(Integer), nullable=False),
    Column("document", Text, nullable=False),
    Index("sequence_by_token", "token_ids", postgresql_using="gin"),
)

document = Table(
    "document",
    metadata,
    Column("corpus_id", ForeignKey("corpus.id", ondelete="CASCADE"), primary_key=True),
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("name", Text, nullable=False),
)

sae = Table(
    "sae",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("slug", Text, nullable=False),
    Column("revision", Text, nullable=False),
    Column("subject_id", ForeignKey("subject.id"), nullable=False),
    Column("reads", ARRAY(Text), nullable=False),
    Column("writes", ARRAY(Text), nullable=False),
    Column("architecture", Text, nullable=False),
    Column("d_in", Integer, nullable=False),
    Column("n_latents", Integer, nullable=False),
    Column("signed", Integer, nullable=False),
    Column("config", JSONB, nullable=False),
    Column("path", Text, nullable=False),
    Column("sha256", Text, nullable=False),
    Column("edition", Integer, nullable=False, server_default="0"),  # a trigger counts the updates of its latents
    UniqueConstraint("slug", "revision"),
)

harvest = Table(
    "harvest",
    metadata,
    Column("sae_id", ForeignKey("sae.id", ondelete="CASCADE"), primary_key=True),
    Column("corpus_id", ForeignKey("corpus.id"), nullable=False),
    Column("parameters", JSONB, nullable=False),
    Column("metrics", JSONB, nullable=False),
    Column("density_edges", ARRAY(REAL), nullable=False),
    Column("density_counts", ARRAY(Integer), nullable=False),
    Column("tokens", BigInteger, nullable=False),
    Column("dead", Integer, nullable=False),
    Column("seconds", Double, nullable=False),
    Column("finished", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("facts", JSONB, nullable=False, server_default=text("'{}'")),
)

latent = Table(
    "latent",
    metadata,
    Column("sae_id", Integer, primary_key=True, autoincrement=False),
    Column("index", Integer, primary_key=True, autoincrement=False),
    Column("fired", BigInteger, nullable=False),
    Column("density", REAL, nullable=False),
    Column("mean", REAL, nullable=False),
    Column("std", REAL, nullable=False),
    Column("maximum", REAL, nullable=False),
    Column("minimum", REAL, nullable=False),
    Column("histogram_first", SmallInteger, nullable=False),
    Column("histogram", ARRAY(Integer), nullable=False),
    Column("histogram_negative", ARRAY(Integer), nullable=False),
    Column("promoted_ids", ARRAY(Integer), nullable=False),
    Column("promoted_logits", ARRAY(REAL), nullable=False),
    Column("suppressed_ids", ARRAY(Integer), nullable=False),
    Column("suppressed_logits", ARRAY(REAL), nullable=False),
    Column("neighbour_ids", ARRAY(Integer), nullable=False),
    Column("neighbour_cosines", ARRAY(REAL), nullable=False),
    Column("decoder_norm", REAL, nullable=False),
    Column("encoder_decoder_cosine", REAL, nullable=False),
    Column("label", Text, nullable=False),
    Column("label_source", Text, nullable=False),
    Column("label_score", REAL),
    Column("explanation_id", BigInteger),  # of the label, where it is an explanation's
    Column("harvest_label", Text),  # what the label was before that, and its source
    Column("harvest_label_source", Text),
    Column("head_shares", ARRAY(REAL)),
    Column("place_counts", ARRAY(Integer)),
    Column("first_fired", BigInteger),
    Column("last_fired", BigInteger),
    Column("token_mean_ids", ARRAY(Integer)),
    Column("token_mean_values", ARRAY(REAL)),
    Column("token_probability_ids", ARRAY(Integer)),
    Column("token_probability_values", ARRAY(REAL)),
    Column("token_probability_seen", ARRAY(Integer)),
    Column("coactive_ids", ARRAY(Integer)),
    Column("coactive_phi", ARRAY(REAL)),
    Column("coactive_together", ARRAY(Integer)),
    Column("documents", BigInteger),
    Column("document_ids", ARRAY(Integer)),
    Column("document_fires", ARRAY(Integer)),
    Index("latent_by_density", "sae_id", "density", "index"),
    Index("latent_by_maximum", "sae_id", "maximum", "index"),
    Index("latent_by_label", "sae_id", text('lower(left(label, 100) COLLATE "C")'), "index"),
    Index("latent_by_score", "sae_id", "label_score", "index"),
    Index("latent_by_source", "sae_id", "label_source", "index"),
    Index("latent_on_first", "sae_id", text("(2 * first_fired > fired)"), "index"),
    Index("latent_on_last", "sae_id", text("(2 * last_fired > fired)"), "index"),
    Index("latent_by_token", text("(token_probability_ids || token_mean_ids || promoted_ids)"), postgresql_using="gin"),
    Index(
        "latent_by_word",
        text("to_tsvector('english', label)"),
        postgresql_using="gin",
        postgresql_where=text("explanation_id IS NULL"),
    ),
    Index("latent_kept", "sae_id", "index", postgresql_include=["density", "label_score"]),
    postgresql_partition_by="LIST (sae_id)",
)

example = Table(
    "example",
    metadata,
    Column("sae_id", Integer, primary_key=True, autoincrement=False),
    Column("latent", Integer, primary_key=True, autoincrement=False),
    Column("sign", SmallInteger, primary_key=True, autoincrement=False),
    Column("interval", SmallInteger, primary_key=True, autoincrement=False),
    Column("rank", SmallInteger, primary_key=True, autoincrement=False),
    Column("sequence_id", Integer, nullable=False),
    Column("position", Integer, nullable=False),
    Column("start", Integer, nullable=False),
    Column("activation", REAL, nullable=False),
    Column("offsets", ARRAY(SmallInteger), nullable=False),
    Column("shares", LargeBinary, nullable=False),
    Index("example_by_sequence", "sequence_id"),
    postgresql_partition_by="LIST (sae_id)",
)

context = Table(
    "context",
    metadata,
    Column("sae_id", Integer, primary_key=True, autoincrement=False),
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("sequence_id", Integer, nullable=False),
    Column("start", Integer, nullable=False),
    Column("norm", REAL, nullable=False),
    postgresql_partition_by="LIST (sae_id)",
)

# A latent and the contexts it is strong in: int32 ids (ascending), fp16 weights and uint8 offsets, little-endian.
posting = Table(
    "posting",
    metadata,
    Column("sae_id", Integer, primary_key=True, autoincrement=False),
    Column("latent", Integer, primary_key=True, autoincrement=False),
    Column("contexts", LargeBinary, nullable=False),
    Column("weights", LargeBinary, nullable=False),
    Column("offsets", LargeBinary, nullable=False),
    postgresql_partition_by="LIST (sae_id)",
)

map_ = Table(
    "map",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("sae_id", ForeignKey("sae.id", ondelete="CASCADE"), nullable=False),
    Column("method", Text, nullable=False),
    Column("on", Text, nullable=False),
    Column("version", Text, nullable=False),  # of its content; part of its tiles' addresses
    Column("parameters", JSONB, nullable=False),
    Column("facts", JSONB, nullable=False),
    Column("quality", JSONB, nullable=False),
    Column("placed", Integer, nullable=False),
    Column("unplaced", Integer, nullable=False),
    Column("clustered", Integer, nullable=False),
    Column("frame", ARRAY(Double), nullable=False),
    Column("raster", LargeBinary, nullable=False),
    Column("seconds", Double, nullable=False),
    Column("made", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("beside", ARRAY(Text), nullable=False, server_default="{}"),  # slug@revision of SAEs in the same frame
    Column("together", Text),  # the same for maps in one frame
    Column("structure", JSONB, nullable=False, server_default=text("'{}'")),
    UniqueConstraint("sae_id", "method", "on", "beside"),
    Index("map_by_version", "version"),
)

map_point = Table(
    "map_point",
    metadata,
    Column("sae_id", Integer, primary_key=True, autoincrement=False),
    Column("map_id", Integer, primary_key=True, autoincrement=False),
    Column("latent", Integer, primary_key=True, autoincrement=False),
    Column("layout_x", REAL, nullable=False),
    Column("layout_y", REAL, nullable=False),
    Column("x", Integer, nullable=False),
    Column("y", Integer, nullable=False),
    Column("rank", Integer, nullable=False),
    Column("z", SmallInteger, nullable=False),
    Column("region", Integer),
    Column("cluster", Integer),
    Index("map_point_by_region", "sae_id", "map_id", "region", "rank"),
    Index("map_point_by_cluster", "sae_id", "map_id", "cluster", "rank"),
    Index("map_point_by_place", text("point(x, y)"), postgresql_using="gist"),
    postgresql_partition_by="LIST (sae_id)",
)

map_cluster = Table(
    "map_cluster",
    metadata,
    Column("map_id", ForeignKey("map.id", ondelete="CASCADE"), primary_key=True),
    Column("level", SmallInteger, primary_key=True, autoincrement=False),
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("parent", Integer),
    Column("name", Text, nullable=False),
    Column("terms", ARRAY(Text), nullable=False),
    Column("scores", ARRAY(REAL), nullable=False),
    Column("size", Integer, nullable=False),
    Column("alive", Integer, nullable=False),
    Column("density", REAL),
    Column("centre", Integer, nullable=False),
    Column("x", Integer, nullable=False),
    Column("y", Integer, nullable=False),
    Column("named_by", Text),  # a language model; else its terms
)

map_tile = Table(
    "map_tile",
    metadata,
    Column("map_id", ForeignKey("map.id", ondelete="CASCADE"), primary_key=True),
    Column("z", SmallInteger, primary_key=True, autoincrement=False),
    Column("x", Integer, primary_key=True, autoincrement=False),
    Column("y", Integer, primary_key=True, autoincrement=False),
    Column("points", LargeBinary, nullable=False),
    Column("colours", LargeBinary, nullable=False),  # one byte a point and colour, colour after colour
)

PARTITIONED = (latent, example, context, posting, map_point, explanation, example_set, score, score_example)

TOP = 10  # the interval code of top contexts; 0 to 9 are the tenths of the activation range
RANDOM, NEAR = 11, 12  # contexts in which the latent does not fire

run = Table(
    "run",
    metadata,
    Column("id", BigInteger, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("slugs", ARRAY(Text), nullable=False),
    Column("command", JSONB, nullable=False),
    Column("state", Text, nullable=False),
    Column("tokens", BigInteger, nullable=False, server_default="0"),
    Column("total", BigInteger),
    Column("resumed", BigInteger, nullable=False, server_default="0"),
    Column("seconds", Double, nullable=False, server_default="0"),
    Column("tokens_per_second", REAL, nullable=False, server_default="0"),
    Column("message", Text),
    Column("revisions", ARRAY(Text), nullable=False, server_default="{}"),
    Column("metrics", JSONB(none_as_null=True)),
    Column("created", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("started", DateTime(timezone=True)),
    Column("beat", DateTime(timezone=True)),
    Column("finished", DateTime(timezone=True)),
    Column("facts", JSONB, nullable=False, server_default=text("'{}'")),  # app.store.runs tells which
    Column("latent", Integer),  # whose page asked for it
    Index("run_of_latent", "latent", "id", postgresql_where=text("latent IS NOT NULL")),
    Index("run_open", "id", postgresql_where=text("state IN ('queued', 'running', 'stopping')")),
)

inspection = Table(
    "inspection",
    metadata,
    Column("id", Text, primary_key=True),
    Column("made", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("subject", Text, nullable=False),
    Column("text", Text, nullable=False),
    Column("chat", Boolean, nullable=False),
    Column("slugs", ARRAY(Text), nullable=False),
    Column("revisions", ARRAY(Text), nullable=False),
    Column("data", LargeBinary, nullable=False),
    Column("owner_id", ForeignKey("account.id", ondelete="SET NULL")),
    Column("visibility", Text, nullable=False, server_default="team"),
    Index("inspection_by_owner", "owner_id"),
)

# Who may see a list, a note or a kept run: app.store.reader.
list_ = Table(
    "list",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("slug", Text, nullable=False, unique=True),
    Column("title", Text, nullable=False),
    Column("description", Text, nullable=False, server_default=""),
    Column("tags", ARRAY(Text), nullable=False, server_default="{}"),
    Column("author", Text, nullable=False, server_default=""),
    Column("owner_id", ForeignKey("account.id", ondelete="SET NULL")),
    Column("visibility", Text, nullable=False, server_default="team"),
    Column("made", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("changed", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Index("list_by_change", "changed", "id"),
    Index("list_by_tag", "tags", postgresql_using="gin"),
    Index("list_by_owner", "owner_id"),
)

list_item = Table(
    "list_item",
    metadata,
    Column("id", BigInteger, primary_key=True),
    Column("list_id", ForeignKey("list.id", ondelete="CASCADE"), nullable=False),
    Column("position", Integer, nullable=False),
    Column("reference", Text, nullable=False),  # app.store.references tells how it is written
    Column("label", Text, nullable=False, server_default=""),  # what it was called when it was added
    Column("comment", Text, nullable=False, server_default=""),
    Column("tags", ARRAY(Text), nullable=False, server_default="{}"),
    Column("added", DateTime(timezone=True), nullable=False, server_default=func.now()),
    UniqueConstraint("list_id", "position", deferrable=True),
    UniqueConstraint("list_id", "reference"),
    Index("list_item_by_reference", "reference"),
)

# One row; a trigger raises it with every change of a list's title, visibility, owner or of what it holds.
list_edition = Table("list_edition", metadata, Column("number", BigInteger, nullable=False))

# Every version of every note; the newest of a latent is its note. A note belongs to the weights, whatever is harvested.
note = Table(
    "note",
    metadata,
    Column("id", BigInteger, primary_key=True),
    Column("weights", Text, nullable=False),
    Column("latent", Integer, nullable=False),
    Column("slug", Text, nullable=False),
    Column("revision", Text, nullable=False),
    Column("text", Text, nullable=False),
    Column("author", Text, nullable=False, server_default=""),
    Column("owner_id", ForeignKey("account.id", ondelete="SET NULL")),
    Column("visibility", Text, nullable=False, server_default="team"),
    Column("made", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Index("note_by_latent", "weights", "latent", "id"),
)
