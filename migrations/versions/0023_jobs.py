"""Runs of every kind, and the feature whose page asked for one; what search reads of latents, in less room."""

from alembic import op

revision = "0023"
down_revision = "0022"

STATEMENTS = (
    "ALTER TABLE run ADD COLUMN latent integer",
    "ALTER TABLE run ADD CONSTRAINT run_kind_check CHECK (kind IN ('harvest', 'explain', 'map', 'embed'))",
    # Jobs that wait have the name and the queue that all kinds share.
    "UPDATE procrastinate.procrastinate_jobs SET task_name = 'run', queue_name = 'jobs' WHERE task_name = 'harvest'",
    "CREATE INDEX run_of_latent ON run (latent, id) WHERE latent IS NOT NULL",
    # A label that an explanation gave is found by that explanation.
    "DROP INDEX latent_by_word",
    "CREATE INDEX latent_by_word ON latent USING gin (to_tsvector('english', label)) WHERE explanation_id IS NULL",
    "CREATE INDEX latent_kept ON latent (sae_id, index) INCLUDE (density, label_score)",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)
