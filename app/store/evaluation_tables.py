"""Evaluations of SAEs. app.store.tables names the table with the others."""

from sqlalchemy import BigInteger, Column, DateTime, Double, Index, Integer, Table, Text, func
from sqlalchemy.dialects.postgresql import JSONB

from app.store.metadata import metadata

# An evaluation is of weights and a subject (its hash; NULL where it was imported), whatever harvest shows it. ``key``
# is a hash of all that decides it. ``source`` is the file an imported one came from; ``version`` is saescope's, or
# what the file says of its maker.
evaluation = Table(
    "evaluation",
    metadata,
    Column("id", BigInteger, primary_key=True),
    Column("key", Text, nullable=False, unique=True),
    Column("weights", Text, nullable=False),
    Column("subject", Text),
    Column("group", Text, nullable=False),
    Column("parameters", JSONB, nullable=False),
    Column("values", JSONB, nullable=False),
    Column("details", JSONB, nullable=False),
    Column("corpus", Text),
    Column("tokens", BigInteger),
    Column("seed", Integer),
    Column("source", Text),
    Column("version", Text, nullable=False),
    Column("seconds", Double),
    Column("made", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Index("evaluation_by_weights", "weights", "id"),
)
