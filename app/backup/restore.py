"""Restoring a backup into an empty database and a home without SAEs."""

import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from sqlalchemy import URL, Engine, text

from app.backup.archive import Archive, opened
from app.backup.manifest import DUMP, FOLDERS, HOME, Manifest
from app.backup.tools import complaint, connection, run, tool
from app.errors import BackupFailed, BackupInvalid, DiskFull
from app.store.engine import explained, sync_engine
from app.store.migrate import known, migrate

AT_ONCE = 4_000  # things in a dump that one transaction can make within the server's usual locks
SLACK = 1 << 30
_THINGS = text(
    "SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname !~ '^pg_' AND "
    "n.nspname <> 'information_schema' "
    "AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = c.oid AND d.deptype = 'e')"
)


def restore(url: URL, home: Path, path: Path, say: Callable[[str], None] = lambda _: None) -> Manifest:
    """Everything of the backup at ``path``, brought up to this version's schema; nothing if something is amiss.

    The dump says what the database runs, with all its rights: restore what you trust.

    Raises:
        BackupInvalid: the backup is damaged, or of a newer saescope.
        BackupFailed: there is something in the database or the home, or a program refuses.
        DiskFull, DatabaseUnavailable.
    """
    with opened(path) as archive:
        _check_version(archive)
        taken = next(
            (folder for folder in FOLDERS if (home / folder).is_dir() and any((home / folder).iterdir())), None
        )
        if taken is not None:
            raise BackupFailed(f"{home / taken} is not empty; restore into a new home.", path=str(home / taken))
        engine = sync_engine(url)
        try:
            major = _check_empty(engine)
            _check_room(archive, home)
            home.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=home, prefix="restore-") as scratch:
                folder = Path(scratch)
                say("Checking and copying the files")
                archive.extract(folder)
                say("Restoring the database")
                _fill(engine, url, folder / DUMP, major, archive.manifest.database_bytes)
                for name in FOLDERS:
                    if (folder / HOME / name).is_dir():
                        shutil.rmtree(home / name, ignore_errors=True)  # it is empty
                        (folder / HOME / name).rename(home / name)
            migrate(engine)
        finally:
            engine.dispose()
        return archive.manifest


def _check_version(archive: Archive) -> None:
    schema = archive.manifest.schema_revision
    if not known(schema):
        raise BackupInvalid(
            f"{archive.path} is of saescope {archive.manifest.saescope} with schema {schema[:20]!r}, which this "
            "version does not know; update saescope.",
            schema_revision=schema,
        )


def _check_empty(engine: Engine) -> int:
    """The server's major version."""
    with explained(), engine.connect() as link:
        if things := int(link.execute(_THINGS).scalar_one()):
            raise BackupFailed(
                f"The database holds {things} tables and indexes already; restore into an empty one, such as that of "
                "a new --home.",
                things=things,
            )
        return int(link.execute(text("SHOW server_version_num")).scalar_one()) // 10_000


def _check_room(archive: Archive, home: Path) -> None:
    there = next(folder for folder in (home, *home.absolute().parents) if folder.exists())
    needed, free = archive.size + archive.manifest.database_bytes, shutil.disk_usage(there).free
    if free < needed:
        raise DiskFull(
            f"{needed / 2**30:.1f} GiB are needed at {there}, and {free / 2**30:.1f} GiB are free; make room there.",
            path=str(there),
        )


def _fill(engine: Engine, url: URL, dump: Path, major: int, most: int) -> None:
    """pg_restore, in one transaction where that is possible; ended if the database grows far beyond ``most`` bytes."""
    place, environment = connection(url)
    program = str(tool("pg_restore", major))
    things = run([program, "--list", str(dump)], environment, "The dump cannot be read").count("\n")
    whole = things <= AT_ONCE
    command = [program, "--exit-on-error", "--no-owner", "--no-privileges", place, str(dump)]
    if whole:
        command.insert(1, "--single-transaction")
    with tempfile.TemporaryFile("w+", errors="replace") as said:
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=said)
        grown = False
        try:
            while process.poll() is None and not grown:
                grown = _size(engine) > 2 * most + SLACK
                if not grown:
                    time.sleep(0.2)
        finally:
            process.kill()
            process.wait()
        if grown and process.returncode:  # it had not ended before
            raise BackupInvalid("The dump makes far more than its manifest says; it was not restored.")
        said.seek(0)
        if process.returncode:
            half = "" if whole else " The database is half restored: make it anew before you try again."
            raise BackupFailed(f"The database could not be restored: {complaint(said.read())}{half}")


def _size(engine: Engine) -> int:
    with explained(), engine.connect() as link:
        return int(link.execute(text("SELECT pg_database_size(current_database())")).scalar_one())
