"""Which lists a feature is on: found by its reference, and pages know when any list changes.

An SAE's row would be the place to count that, but an explanation's transaction holds it for as long as it writes."""

from alembic import op

revision = "0024"
down_revision = "0023"

COUNTED = (
    ("items_added", "INSERT ON list_item"),
    ("items_removed", "DELETE ON list_item"),
    ("list_edited", "UPDATE OF title, visibility, owner_id ON list"),
)
STATEMENTS = (
    "CREATE INDEX list_item_by_reference ON list_item (reference)",
    "CREATE TABLE list_edition (number bigint NOT NULL)",
    "INSERT INTO list_edition VALUES (0)",
    """
    CREATE FUNCTION next_list_edition() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        UPDATE list_edition SET number = number + 1;
        RETURN NULL;
    END $$
    """,
    *(
        f"CREATE TRIGGER {name} AFTER {event} FOR EACH STATEMENT EXECUTE FUNCTION next_list_edition()"
        for name, event in COUNTED
    ),
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)
