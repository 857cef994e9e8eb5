"""Indexes for the feature table: by label, by score, and for the filters that keep few of many latents."""

from alembic import op

revision = "0006"
down_revision = "0005"

STATEMENTS = (
    # An explanation may be longer than an index entry, so labels are sorted by how they begin.
    'CREATE INDEX latent_by_label ON latent (sae_id, lower(left(label, 100) COLLATE "C"), index)',
    "CREATE INDEX latent_by_score ON latent (sae_id, label_score, index)",
    "CREATE INDEX latent_by_source ON latent (sae_id, label_source, index)",
    # As columns rather than conditions of the indexes: so ANALYZE counts how many latents they hold of.
    "CREATE INDEX latent_on_first ON latent (sae_id, (2 * first_fired > fired), index)",
    "CREATE INDEX latent_on_last ON latent (sae_id, (2 * last_fired > fired), index)",
    "CREATE INDEX latent_by_token ON latent USING gin ((token_probability_ids || token_mean_ids || promoted_ids))",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)
