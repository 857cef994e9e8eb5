"""What was sent to language models, attempt by attempt. app.store.tables names it with the others."""

from sqlalchemy import BigInteger, Column, DateTime, Double, ForeignKey, Index, Table, Text, func

from app.store.metadata import metadata

# ``reserved`` is the most it could cost, in USD, written before it is sent; it counts as spent while ``cost`` is NULL.
# outcome: sent (under way, or its process was killed), answered, refused (an HTTP status came back) or lost.
llm_attempt = Table(
    "llm_attempt",
    metadata,
    Column("id", BigInteger, primary_key=True),
    Column("request_id", ForeignKey("llm_request.id", ondelete="CASCADE"), nullable=False),
    Column("job", Text, nullable=False),
    Column("reserved", Double, nullable=False),
    Column("cost", Double),
    Column("outcome", Text, nullable=False, server_default="sent"),
    Column("sent", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Index("llm_attempt_of_job", "job"),
    Index("llm_attempt_of_request", "request_id"),
)
