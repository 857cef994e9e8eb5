"""Lists of features, kept runs and regions of maps; notes on features."""

from alembic import op

revision = "0015"
down_revision = "0014"

STATEMENTS = (
    """
    CREATE TABLE list (
        id serial PRIMARY KEY,
        slug text NOT NULL UNIQUE,
        title text NOT NULL,
        description text NOT NULL DEFAULT '',
        tags text[] NOT NULL DEFAULT '{}',
        author text NOT NULL DEFAULT '',
        owner_id integer,
        made timestamptz NOT NULL DEFAULT now(),
        changed timestamptz NOT NULL DEFAULT now()
    )
    """,
    "CREATE INDEX list_by_change ON list (changed, id)",
    "CREATE INDEX list_by_tag ON list USING gin (tags)",
    """
    CREATE TABLE list_item (
        id bigserial PRIMARY KEY,
        list_id integer NOT NULL REFERENCES list (id) ON DELETE CASCADE,
        position integer NOT NULL,
        reference text NOT NULL,
        label text NOT NULL DEFAULT '',
        comment text NOT NULL DEFAULT '',
        tags text[] NOT NULL DEFAULT '{}',
        added timestamptz NOT NULL DEFAULT now(),
        UNIQUE (list_id, position) DEFERRABLE,
        UNIQUE (list_id, reference)
    )
    """,
    """
    CREATE TABLE note (
        id bigserial PRIMARY KEY,
        weights text NOT NULL,
        latent integer NOT NULL,
        slug text NOT NULL,
        revision text NOT NULL,
        text text NOT NULL,
        author text NOT NULL DEFAULT '',
        owner_id integer,
        made timestamptz NOT NULL DEFAULT now()
    )
    """,
    "CREATE INDEX note_by_latent ON note (weights, latent, id)",
    # Pages are known by their SAE's edition; a note changes the page of its feature.
    """
    CREATE FUNCTION count_edition_of_note() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        UPDATE sae SET edition = edition + 1 WHERE sha256 = NEW.weights;
        RETURN NULL;
    END $$
    """,
    "CREATE TRIGGER note_counts_edition AFTER INSERT ON note FOR EACH ROW EXECUTE FUNCTION count_edition_of_note()",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)
