"""Evaluations: what was measured of an SAE, or imported of it."""

from alembic import op

revision = "0018"
down_revision = "0017"

STATEMENTS = (
    """
    CREATE TABLE evaluation (
        id bigserial PRIMARY KEY,
        key text NOT NULL UNIQUE,
        weights text NOT NULL,
        subject text,
        "group" text NOT NULL,
        parameters jsonb NOT NULL,
        "values" jsonb NOT NULL,
        details jsonb NOT NULL,
        corpus text,
        tokens bigint,
        seed integer,
        source text,
        version text NOT NULL,
        seconds double precision,
        made timestamptz NOT NULL DEFAULT now()
    )
    """,
    "CREATE INDEX evaluation_by_weights ON evaluation (weights, id)",
    # Pages are known by their SAE's edition; an evaluation changes the pages of all harvests of its weights.
    """
    CREATE FUNCTION count_edition_of_evaluation() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        UPDATE sae SET edition = edition + 1 WHERE sha256 = NEW.weights;
        RETURN NULL;
    END $$
    """,
    """
    CREATE TRIGGER evaluation_counts_edition AFTER INSERT ON evaluation
    FOR EACH ROW EXECUTE FUNCTION count_edition_of_evaluation()
    """,
    # They go with the last revision that has these weights.
    """
    CREATE FUNCTION forget_evaluations() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        DELETE FROM evaluation WHERE weights = OLD.sha256
            AND NOT EXISTS (SELECT FROM sae WHERE sha256 = OLD.sha256);
        RETURN NULL;
    END $$
    """,
    "CREATE TRIGGER sae_forgets_evaluations AFTER DELETE ON sae FOR EACH ROW EXECUTE FUNCTION forget_evaluations()",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)
