"""Bring a database to the newest schema."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.util.exc import CommandError
from sqlalchemy import Engine

from app.errors import DatabaseUnavailable
from app.store.engine import explained

ROOT = Path(__file__).resolve().parents[2]


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
