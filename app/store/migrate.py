"""Bring a database to the newest schema."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.util.exc import CommandError
from sqlalchemy import Engine

from app.errors import DatabaseUnavailable
from app.settings import Settings
from app.store.engine import database_url, explained, sync_engine

ROOT = Path(__file__).resolve().parents[2]


@contextmanager
def migrated(settings: Settings) -> Iterator[Engine]:
    """The settings' database with the newest schema; let go at the end."""
    engine = sync_engine(database_url(settings))
    try:
        migrate(engine)
        yield engine
    finally:
        engine.dispose()


def migrate(engine: Engine) -> None:
    """Run the migrations this database has not seen; does nothing when it is up to date.

    Raises:
        DatabaseUnavailable: no answer, or a schema newer than this saescope knows.
    """
    config = Config()
    config.set_main_option("script_location", str(ROOT / "migrations"))
    with explained(), engine.begin() as connection:
        config.attributes["connection"] = connection
        try:
            command.upgrade(config, "head")
        except CommandError as error:
            raise DatabaseUnavailable(
                f"The database's schema is not one this version knows ({error}); update saescope."
            ) from error
