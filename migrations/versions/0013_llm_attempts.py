"""Every sending of a request to a language model, with what it may cost and what it did."""

from alembic import op

revision = "0013"
down_revision = "0012"

STATEMENTS = (
    """
    CREATE TABLE llm_attempt (
        id bigserial PRIMARY KEY,
        request_id bigint NOT NULL REFERENCES llm_request (id) ON DELETE CASCADE,
        job text NOT NULL,
        reserved double precision NOT NULL,
        cost double precision,
        outcome text NOT NULL DEFAULT 'sent',
        sent timestamptz NOT NULL DEFAULT now()
    )
    """,
    "CREATE INDEX llm_attempt_of_job ON llm_attempt (job)",
    "CREATE INDEX llm_attempt_of_request ON llm_attempt (request_id)",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)
