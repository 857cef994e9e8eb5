"""Search: whose an SAE's vectors are, labels by word, sequences by token and examples by sequence."""

from alembic import op

revision = "0017"
down_revision = "0015"

STATEMENTS = (
    """
    CREATE TABLE embedding (
        sae_id integer PRIMARY KEY REFERENCES sae (id) ON DELETE CASCADE,
        model text NOT NULL,
        made timestamptz NOT NULL DEFAULT now()
    )
    """,
    """
    CREATE FUNCTION forget_embedding() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN NEW.embedding := NULL; RETURN NEW; END $$
    """,
    """
    CREATE TRIGGER explanation_changed BEFORE UPDATE OF text, label ON explanation FOR EACH ROW
    WHEN ((NEW.text, NEW.label) IS DISTINCT FROM (OLD.text, OLD.label)) EXECUTE FUNCTION forget_embedding()
    """,
    "CREATE INDEX explanation_unembedded ON explanation (sae_id, id) WHERE embedding IS NULL AND status = 'ok'",
    "CREATE INDEX latent_by_word ON latent USING gin (to_tsvector('english', label))",
    # Many examples are of one sequence, so that the index's entries share their keys.
    "CREATE INDEX example_by_sequence ON example (sequence_id)",
    "CREATE INDEX sequence_by_token ON sequence USING gin (token_ids)",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)
