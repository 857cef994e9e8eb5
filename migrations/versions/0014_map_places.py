"""The latents within an outline on a map are found by an index; a map that comes or goes changes its SAE's pages."""

from alembic import op

revision = "0014"
down_revision = "0013"

STATEMENTS = (
    "CREATE INDEX map_point_by_place ON map_point USING gist (point(x, y))",
    """
    CREATE TRIGGER map_made AFTER INSERT ON map REFERENCING NEW TABLE AS changed
        FOR EACH STATEMENT EXECUTE FUNCTION next_edition()
    """,
    """
    CREATE TRIGGER map_gone AFTER DELETE ON map REFERENCING OLD TABLE AS changed
        FOR EACH STATEMENT EXECUTE FUNCTION next_edition()
    """,
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)
