"""Taking revisions out from under readers: first nobody finds them, then nobody reads them, then they go."""

import time

from sqlalchemy import Connection, Engine, delete, select, text

from app.store import tables as t
from app.store.engine import explained

PATIENCE = 30.0  # seconds for which readers of the old revision are waited for


def drop_older(engine: Engine, slug: str, revision: str) -> int:
    """Drop every revision of ``slug`` but ``revision``; returns how many. A page that was being read goes on reading:
    the rows of a revision are dropped when the transactions that may have found it have ended."""
    with explained(), engine.begin() as connection:
        gone = delete(t.sae).where(t.sae.c.slug == slug, t.sae.c.revision != revision).returning(t.sae.c.id)
        dropped = len(connection.execute(gone).all())
    with explained(), engine.connect() as connection:
        since = connection.execute(text("SELECT clock_timestamp()")).scalar_one()
        connection.rollback()
        older = text(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() "
            "AND state <> 'idle' AND xact_start < :since"
        )
        until = time.monotonic() + PATIENCE
        while connection.execute(older, {"since": since}).scalar_one() and time.monotonic() < until:
            connection.rollback()
            time.sleep(0.05)
    sweep(engine)
    return dropped


def sweep(engine: Engine) -> None:
    """Drop the partitions of revisions there are no more, and corpora no harvest is over; takes no lock that a reader
    would wait for."""
    with explained(), engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        for table in t.PARTITIONED:
            for partition, pending in _orphans(connection, table.name):
                how = "FINALIZE" if pending else "CONCURRENTLY"
                connection.execute(text(f"ALTER TABLE {table.name} DETACH PARTITION {partition} {how}"))
                connection.execute(text(f"DROP TABLE {partition}"))
        used = select(t.harvest.c.corpus_id)
        connection.execute(delete(t.corpus).where(t.corpus.c.id.not_in(used)))


def _orphans(connection: Connection, table: str) -> list[tuple[str, bool]]:
    """Partitions of ``table`` whose SAE is gone: (name, whether a detach of it was cut short)."""
    query = text(
        "SELECT c.relname, i.inhdetachpending FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid "
        "WHERE i.inhparent = to_regclass(:parent)"
    )
    children = connection.execute(query, {"parent": table}).all()
    known = set(connection.execute(select(t.sae.c.id)).scalars())
    return [(name, pending) for name, pending in children if int(name.rpartition("_")[2]) not in known]
