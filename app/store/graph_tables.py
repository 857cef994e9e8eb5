"""Attribution graphs that were given to be shown. app.store.tables names it with the others."""

from sqlalchemy import Column, DateTime, Index, Integer, LargeBinary, Table, Text, func

from app.store.metadata import metadata

# data: as app.interop.graphs packs them.
graph = Table(
    "graph",
    metadata,
    Column("id", Text, primary_key=True),
    Column("made", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("title", Text, nullable=False),
    Column("scan", Text, nullable=False),
    Column("prompt", Text, nullable=False),
    Column("nodes", Integer, nullable=False),
    Column("links", Integer, nullable=False),
    Column("data", LargeBinary, nullable=False),
    Index("graph_by_time", "made", "id"),
)
