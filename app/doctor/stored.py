"""The database, and the files of what is in it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Connection, Engine, select, text

from app.disk import sha256_of
from app.doctor.finding import Finding, fault, fine, note
from app.errors import SaescopeError
from app.harvest.subjects import HASHES
from app.settings import Settings
from app.store import tables as t
from app.store.engine import database_url, explained, sync_engine
from app.store.migrate import known, newest, revision
from app.subject.identity import changed, lies_at, weight_files

OLDEST = 150_000  # PostgreSQL 15, as server_version_num has it
SMALL = 256 << 20  # bytes of SAEs that are read whole without --full


def database(settings: Settings, *, full: bool = False) -> Iterator[Finding]:
    """Of an embedded database that has not been made yet nothing is made."""
    data = settings.home / "postgres"
    if settings.database_url is None and not (data / "PG_VERSION").is_file():
        yield note("database", f"There is none at {data} yet.", "saescope serve or saescope demo makes it.")
        return
    try:
        with _opened(settings) as engine, explained(), engine.connect() as connection:
            yield from _server(connection)
            made = list(_schema(connection))
            yield from made
            if all(found.state == "ok" for found in made):
                yield from _subjects(connection, settings.home, full=full)
                yield from _saes(connection, settings.home, full=full)
    except SaescopeError as error:
        yield fault("database", error.message, "Start it, and check SAESCOPE_DATABASE_URL and its password.")


@contextmanager
def _opened(settings: Settings) -> Iterator[Engine]:
    engine = sync_engine(database_url(settings))
    try:
        yield engine
    finally:
        engine.dispose()


def _server(connection: Connection) -> Iterator[Finding]:
    number = int(connection.execute(text("SHOW server_version_num")).scalar_one())
    version = connection.execute(text("SHOW server_version")).scalar_one().split()[0]
    size = connection.execute(text("SELECT pg_database_size(current_database())")).scalar_one()
    if number < OLDEST:
        yield fault("database", f"PostgreSQL {version} is too old.", "Move to PostgreSQL 15 or newer.")
    else:
        yield fine("database", f"PostgreSQL {version}, {size / 1e9:.2f} GB")
    found = connection.execute(
        text("SELECT installed_version, default_version FROM pg_available_extensions WHERE name = 'vector'")
    ).first()
    if found is None:
        yield fault(
            "pgvector", "The server does not have the extension vector.",
            "Install pgvector for this PostgreSQL, or use the image pgvector/pgvector.",
        )  # fmt: skip
    else:
        yield fine("pgvector", found[0] or f"{found[1]}, not in use yet")
    connections = int(connection.execute(text("SHOW max_connections")).scalar_one())
    if connections < 30:
        yield fault(
            "connections", f"The server takes {connections}, and one saescope may use 25.", "Raise max_connections."
        )


def _schema(connection: Connection) -> Iterator[Finding]:
    have, want = revision(connection), newest()
    if have == want:
        yield fine("schema", f"revision {have}, the newest")
    elif have is None:
        yield note("schema", "The database is empty.", "saescope serve makes its tables.")
    elif known(have):
        yield note(
            "schema", f"It is at revision {have}, behind {want}.",
            "Make a backup; the next saescope serve brings it up to date.",
        )  # fmt: skip
    else:
        yield fault("schema", f"Its revision {have} is of a newer saescope.", "Update saescope.")


def _subjects(connection: Connection, home: Path, *, full: bool) -> Iterator[Finding]:
    """Files that are there and unchanged since they were hashed (size, inode, times); ``full`` hashes them again."""
    s = t.subject.c
    for name, path, sha256 in connection.execute(select(s.name, s.path, s.sha256).order_by(s.id)):
        what, folder = f"subject {name}", home / path
        again = f"Put the model back at {folder}, or harvest with the one there is; stored pages work without it."
        if not (folder / "config.json").is_file() or not all(file.is_file() for file in weight_files(folder)):
            yield fault(what, f"Its files are not at {folder}, so no prompt can be read.", again)
        elif full and sha256 is not None and not lies_at(folder, sha256, None):
            yield fault(what, f"What lies at {folder} is another model than was harvested with.", again)
        elif not full and changed(folder, home / HASHES):
            yield note(
                what,
                f"Files at {folder} were changed since they were hashed.",
                "saescope doctor --full reads them all.",
            )
        else:
            yield fine(what, f"{folder}{', its hash is right' if full and sha256 else ''}")


def _saes(connection: Connection, home: Path, *, full: bool) -> Iterator[Finding]:
    """Small SAEs are hashed, large ones with ``full`` only."""
    s = t.sae.c
    rows = connection.execute(select(s.slug, s.path, s.sha256).distinct().order_by(s.slug)).all()
    right = 0
    for slug, path, sha256 in rows:
        what, folder = f"SAE {slug}", home / path
        remedy = f"Put its files back at {folder}, from a backup say; stored pages work without them."
        if not folder.is_dir():
            yield fault(what, f"Its files are not at {folder}, so no prompt can be read with it.", remedy)
            continue
        size = sum(file.stat().st_size for file in folder.iterdir() if file.is_file())
        if (full or size <= SMALL) and sha256_of(folder) != sha256:
            yield fault(what, f"Its files at {folder} are not those that were harvested with.", remedy)
            continue
        right += full or size <= SMALL
    if rows:
        sized = "" if right == len(rows) else "; --full reads the large ones"
        yield fine("SAEs", f"{len(rows)} in the database, the hashes of {right} were looked at{sized}")
