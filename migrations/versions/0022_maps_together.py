"""Maps of several SAEs in one frame, how their latents are spread, and who named a group."""

from alembic import op

revision = "0022"
down_revision = "0021"

STATEMENTS = (
    "ALTER TABLE map ADD COLUMN beside text[] NOT NULL DEFAULT '{}'",
    "ALTER TABLE map ADD COLUMN together text",
    "ALTER TABLE map ADD COLUMN structure jsonb NOT NULL DEFAULT '{}'",
    'ALTER TABLE map DROP CONSTRAINT map_sae_id_method_on_key, ADD UNIQUE (sae_id, method, "on", beside)',
    "CREATE INDEX map_by_version ON map (version)",
    "ALTER TABLE map_cluster ADD COLUMN named_by text",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)
