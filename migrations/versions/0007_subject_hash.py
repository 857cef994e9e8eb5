"""A subject is its weights, not its folder's name: rows know the hash of what they are. Older ones have none until
they are harvested with again."""

from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    op.execute("ALTER TABLE subject ADD COLUMN sha256 text UNIQUE")
