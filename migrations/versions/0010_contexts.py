"""Contexts of the corpus by what fires in them, as an inverted index. Older harvests have none."""

from alembic import op

revision = "0010"
down_revision = "0009"

STATEMENTS = (
    """
    CREATE TABLE context (
        sae_id integer NOT NULL,
        id integer NOT NULL,
        sequence_id integer NOT NULL,
        start integer NOT NULL,
        norm real NOT NULL,
        PRIMARY KEY (sae_id, id)
    ) PARTITION BY LIST (sae_id)
    """,
    """
    CREATE TABLE posting (
        sae_id integer NOT NULL,
        latent integer NOT NULL,
        contexts bytea NOT NULL,
        weights bytea NOT NULL,
        offsets bytea NOT NULL,
        PRIMARY KEY (sae_id, latent)
    ) PARTITION BY LIST (sae_id)
    """,
    # Hardly any smaller compressed, and slower to read.
    *(
        f"ALTER TABLE posting ALTER COLUMN {column} SET STORAGE EXTERNAL"
        for column in ("contexts", "weights", "offsets")
    ),
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)
