"""Where, on which tokens, in which documents and with whom a latent fires. Older harvests have none of it."""

from alembic import op

revision = "0003"
down_revision = "0002"

STATEMENTS = (
    """
    ALTER TABLE latent
        ADD COLUMN place_counts integer[],
        ADD COLUMN first_fired bigint,
        ADD COLUMN last_fired bigint,
        ADD COLUMN token_mean_ids integer[],
        ADD COLUMN token_mean_values real[],
        ADD COLUMN token_probability_ids integer[],
        ADD COLUMN token_probability_values real[],
        ADD COLUMN token_probability_seen integer[],
        ADD COLUMN coactive_ids integer[],
        ADD COLUMN coactive_phi real[],
        ADD COLUMN coactive_together integer[],
        ADD COLUMN documents bigint,
        ADD COLUMN document_ids integer[],
        ADD COLUMN document_fires integer[]
    """,
    "ALTER TABLE harvest ADD COLUMN facts jsonb NOT NULL DEFAULT '{}'",
    """
    CREATE TABLE document (
        corpus_id integer NOT NULL REFERENCES corpus (id) ON DELETE CASCADE,
        id integer NOT NULL,
        name text NOT NULL,
        PRIMARY KEY (corpus_id, id)
    )
    """,
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)
