"""Attribution graphs that were given to be shown."""

from alembic import op

revision = "0021"
down_revision = "0020"

STATEMENTS = (
    """
    CREATE TABLE graph (
        id text PRIMARY KEY,
        made timestamptz NOT NULL DEFAULT now(),
        title text NOT NULL,
        scan text NOT NULL,
        prompt text NOT NULL,
        nodes integer NOT NULL,
        links integer NOT NULL,
        data bytea NOT NULL
    )
    """,
    "CREATE INDEX graph_by_time ON graph (made, id)",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)
