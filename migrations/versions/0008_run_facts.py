"""What a run has to say besides its progress: its stage, its checkpoint, what it skipped, and the like."""

from alembic import op

revision = "0008"
down_revision = "0007"

STATEMENTS = (
    "ALTER TABLE run ADD COLUMN facts jsonb NOT NULL DEFAULT '{}'",
    # Of runs before this it is not known what their checkpoints hold: what they had read, at most.
    "UPDATE run SET facts = jsonb_build_object('kept', tokens) WHERE state <> 'done' AND tokens > 0",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)
