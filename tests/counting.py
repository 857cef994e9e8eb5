"""How many queries a page asks the database."""

from contextlib import contextmanager

from sqlalchemy import event


@contextmanager
def counted_queries(client):
    """The statements the app of ``client`` sends while the block runs."""
    engine = client.app.state.saescope.database.sync_engine
    statements = []

    def note(connection, cursor, statement, *rest):
        statements.append(statement)

    event.listen(engine, "before_cursor_execute", note)
    try:
        yield statements
    finally:
        event.remove(engine, "before_cursor_execute", note)
