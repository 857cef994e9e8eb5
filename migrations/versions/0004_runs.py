"""Runs of harvests, and procrastinate's own tables in a schema of their own.

procrastinate is held to one minor version: the day it is raised, its newer SQL migrations go into a migration here.
"""

from alembic import op
from procrastinate.schema import SchemaManager

revision = "0004"
down_revision = "0003"

RUN = """
CREATE TABLE run (
    id bigserial PRIMARY KEY,
    kind text NOT NULL,
    slugs text[] NOT NULL,
    command jsonb NOT NULL,
    state text NOT NULL CHECK (state IN ('queued', 'running', 'stopping', 'stopped', 'failed', 'done')),
    tokens bigint NOT NULL DEFAULT 0,
    total bigint,
    resumed bigint NOT NULL DEFAULT 0,
    seconds double precision NOT NULL DEFAULT 0,
    tokens_per_second real NOT NULL DEFAULT 0,
    message text,
    revisions text[] NOT NULL DEFAULT '{}',
    metrics jsonb,
    created timestamptz NOT NULL DEFAULT now(),
    started timestamptz,
    beat timestamptz,
    finished timestamptz
);

CREATE INDEX run_open ON run (id) WHERE state IN ('queued', 'running', 'stopping')
"""


def upgrade() -> None:
    for statement in RUN.split(";"):
        op.execute(statement)
    connection = op.get_bind()
    path = connection.exec_driver_sql("SELECT current_setting('search_path')").scalar_one()
    connection.exec_driver_sql("CREATE SCHEMA IF NOT EXISTS procrastinate")
    connection.exec_driver_sql("SET LOCAL search_path TO procrastinate, public")
    # Without parameters psycopg sends the text as it is: many statements at once, with colons and per cents in them.
    connection.exec_driver_sql(SchemaManager.get_schema(), execution_options={"no_parameters": True})
    connection.exec_driver_sql("SELECT set_config('search_path', %s, true)", (path,))
