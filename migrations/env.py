"""Alembic's entry: runs on the connection that app.store.migrate hands over."""

from alembic import context

from app.settings import load_settings
from app.store.engine import database_url, sync_engine
from app.store.tables import metadata


def run(connection: object) -> None:
    context.configure(connection=connection, target_metadata=metadata)  # type: ignore[arg-type]
    with context.begin_transaction():
        context.run_migrations()


given = context.config.attributes.get("connection")
if given is not None:
    run(given)
else:
    with sync_engine(database_url(load_settings())).begin() as own:
        run(own)
