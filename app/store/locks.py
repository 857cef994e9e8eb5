"""Rights of which one process at a time has each."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Engine, text

from app.errors import SaescopeError
from app.store.engine import explained


@contextmanager
def sole_right(engine: Engine, name: str, taken: SaescopeError) -> Iterator[None]:
    """Hold the only right to ``name`` in this database; it goes with the connection, however that ends.

    Raises:
        taken: another process holds it.
    """
    key = {"name": name}
    with explained(), engine.connect() as connection:
        if not connection.execute(text("SELECT pg_try_advisory_lock(hashtextextended(:name, 7))"), key).scalar():
            raise taken
        connection.commit()
        try:
            yield
        finally:
            connection.execute(text("SELECT pg_advisory_unlock(hashtextextended(:name, 7))"), key)
            connection.commit()
