"""Taking revisions out from under readers: first nobody finds them, then nobody reads them, then they go."""

import shutil
import time
from pathlib import Path

from sqlalchemy import ARRAY, ColumnElement, Connection, Engine, Text, cast, delete, func, select, text, update
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.exc import IntegrityError

from app.errors import HarvestRunning
from app.store import tables as t
from app.store.bulk import harvest_lock
from app.store.engine import explained
from app.store.run_queries import in_progress

PATIENCE = 30.0  # seconds for which readers of the old revision are waited for


def drop_older(engine: Engine, home: Path, slug: str, revision: str) -> list[str]:
    """Drop every revision of ``slug`` but ``revision``, as ``remove`` does; returns which."""
    with explained(), engine.begin() as connection:
        gone = _delete(connection, t.sae.c.slug == slug, t.sae.c.revision != revision, became="replaced")
    _clear(engine, home, gone)
    return list(gone)


def remove(engine: Engine, home: Path, slug: str, revision: str | None = None) -> list[str]:
    """Drop a revision, or all of ``slug``; returns which. With them go their partitions, corpora that no other harvest
    is over, and files in ``home`` that no other revision has.

    One transaction takes them from sight. A page that was being read goes on reading: the rows of a revision are
    dropped when the transactions that may have found it have ended.

    Raises:
        HarvestRunning: a run of it is under way or waits.
    """
    these = [t.sae.c.slug == slug] + ([t.sae.c.revision == revision] if revision else [])
    with harvest_lock(engine, slug):
        with explained(), engine.begin() as connection:
            folders = {str(home / path) for path in connection.execute(select(t.sae.c.path).where(*these)).scalars()}
            if (run := in_progress(connection, slug, folders)) is not None:
                raise HarvestRunning(
                    f"Run {run} works on {slug}; wait for it, or stop it with 'saescope harvests --stop {run}'.",
                    sae=slug,
                    run=run,
                )
            gone = _delete(connection, *these, became="removed")
        _clear(engine, home, gone)
    return list(gone)


def _delete(connection: Connection, *these: ColumnElement[bool], became: str) -> dict[str, str]:
    """Take revisions from sight, and tell the runs that made them what became of them: revision to path."""
    s, r = t.sae.c, t.run.c
    rows = connection.execute(delete(t.sae).where(*these).returning(s.slug, s.revision, s.path)).all()
    for slug, revision, _ in rows:
        gone = func.coalesce(r.facts["gone"], cast({}, JSONB)).op("||")(cast({f"{slug}@{revision}": became}, JSONB))
        made = r.slugs.contains([slug]) & r.revisions.contains([revision])
        facts = func.jsonb_set(r.facts, cast(["gone"], ARRAY(Text)), gone)
        connection.execute(update(t.run).where(made).values(facts=facts))
    return {revision: path for _, revision, path in rows}


def _clear(engine: Engine, home: Path, gone: dict[str, str]) -> None:
    """Once nobody reads what is gone, drop its rows and files."""
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
    with explained(), engine.connect() as connection:
        used = set(connection.execute(select(t.sae.c.path)).scalars())
    for path in set(gone.values()) - used:
        folder = (home / path).resolve()
        if folder.parent == (home / "saes").resolve():  # anything else was never ours
            shutil.rmtree(folder, ignore_errors=True)


def sweep(engine: Engine) -> None:
    """Drop the partitions of revisions there are no more, and corpora no harvest is over; takes no lock that a reader
    would wait for."""
    with explained(), engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        for table in t.PARTITIONED:
            for partition, pending in _orphans(connection, table.name):
                how = "FINALIZE" if pending else "CONCURRENTLY"
                connection.execute(text(f"ALTER TABLE {table.name} DETACH PARTITION {partition} {how}"))
                connection.execute(text(f"DROP TABLE {partition}"))
        for corpus in connection.execute(select(t.corpus.c.id).where(_unused())).scalars().all():
            try:
                connection.execute(delete(t.corpus).where(t.corpus.c.id == corpus, _unused()))
            except IntegrityError:  # a harvest over it was saved in this moment
                continue


def _unused() -> ColumnElement[bool]:
    return t.corpus.c.id.not_in(select(t.harvest.c.corpus_id))


def _orphans(connection: Connection, table: str) -> list[tuple[str, bool]]:
    """Partitions of ``table`` whose SAE is gone: (name, whether a detach of it was cut short)."""
    query = text(
        "SELECT c.relname, i.inhdetachpending FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid "
        "WHERE i.inhparent = to_regclass(:parent)"
    )
    children = connection.execute(query, {"parent": table}).all()
    known = set(connection.execute(select(t.sae.c.id)).scalars())
    return [(name, pending) for name, pending in children if int(name.rpartition("_")[2]) not in known]
