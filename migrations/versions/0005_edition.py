"""An SAE's edition counts the changes made to its latents after the harvest, whoever makes them, so that a page's
ETag needs one row to tell whether anything on the page has changed."""

from alembic import op

revision = "0005"
down_revision = "0004"

STATEMENTS = (
    "ALTER TABLE sae ADD COLUMN edition integer NOT NULL DEFAULT 0",
    """
    CREATE FUNCTION next_edition() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        UPDATE sae SET edition = edition + 1 WHERE id IN (SELECT DISTINCT sae_id FROM changed);
        RETURN NULL;
    END
    $$
    """,
    """
    CREATE TRIGGER latent_edited AFTER UPDATE ON latent REFERENCING NEW TABLE AS changed
        FOR EACH STATEMENT EXECUTE FUNCTION next_edition()
    """,
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)
