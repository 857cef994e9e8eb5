"""Prompts that were kept: what /inspect/{run} shows."""

from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    op.execute("""
        CREATE TABLE inspection (
            id text PRIMARY KEY,
            made timestamptz NOT NULL DEFAULT now(),
            subject text NOT NULL,
            text text NOT NULL,
            chat boolean NOT NULL,
            slugs text[] NOT NULL,
            revisions text[] NOT NULL,
            data bytea NOT NULL
        )
    """)
