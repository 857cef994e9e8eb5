"""Each attention head's share of a latent's decoder, for SAEs on attention outputs."""

from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.execute("ALTER TABLE latent ADD COLUMN head_shares real[]")
