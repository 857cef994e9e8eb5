"""Which lists a feature is on: found by its reference, and pages know when that changes."""

from alembic import op

revision = "0024"
down_revision = "0023"

NAMED = "slug || '@' || revision IN (SELECT split_part(reference, '/', 1) FROM {items})"
STATEMENTS = (
    "CREATE INDEX list_item_by_reference ON list_item (reference)",
    # Pages are known by their SAE's edition; what is done to a list changes the pages of the features on it.
    f"""
    CREATE FUNCTION count_edition_of_items() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        UPDATE sae SET edition = edition + 1 WHERE {NAMED.format(items="changed")};
        RETURN NULL;
    END $$
    """,
    """
    CREATE TRIGGER items_added AFTER INSERT ON list_item REFERENCING NEW TABLE AS changed
        FOR EACH STATEMENT EXECUTE FUNCTION count_edition_of_items()
    """,
    """
    CREATE TRIGGER items_removed AFTER DELETE ON list_item REFERENCING OLD TABLE AS changed
        FOR EACH STATEMENT EXECUTE FUNCTION count_edition_of_items()
    """,
    f"""
    CREATE FUNCTION count_edition_of_list() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        UPDATE sae SET edition = edition + 1 WHERE {NAMED.format(items="list_item WHERE list_id = NEW.id")};
        RETURN NULL;
    END $$
    """,
    """
    CREATE TRIGGER list_counts_edition AFTER UPDATE OF title, visibility, owner_id ON list
        FOR EACH ROW EXECUTE FUNCTION count_edition_of_list()
    """,
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)
