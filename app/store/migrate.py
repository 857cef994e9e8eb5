"""Bring a database to the newest schema."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util.exc import CommandError
from sqlalchemy import Connection, Engine

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
    config = _config()
    with explained(), engine.begin() as connection:
        config.attributes["connection"] = connection
        try:
            command.upgrade(config, "head")
        except CommandError as error:
            raise DatabaseUnavailable(
                f"The database's schema is not one this version knows ({error}); update saescope."
            ) from error


@cache
def newest() -> str:
    """The schema's revision that this code is for."""
    return str(_scripts().get_current_head())


def revision(connection: Connection) -> str | None:
    """The schema's revision of a database; None where nothing has been made yet."""
    return MigrationContext.configure(connection).get_current_revision()


def known(revision: str) -> bool:
    """Whether this code has that revision, so that it can bring it up to date."""
    return revision in {script.revision for script in _scripts().walk_revisions()}


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(ROOT / "migrations"))
    return config


def _scripts() -> ScriptDirectory:
    return ScriptDirectory.from_config(_config())
