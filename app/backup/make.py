"""Making a backup: the database as pg_dump has it, the files of SAEs, and a manifest of their sums, in one tar file.

What can be made again is left out: models, packages, tokens of corpora, activations, checkpoints.
"""

import hashlib
import io
import tarfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from fnmatch import fnmatch
from pathlib import Path
from typing import IO

from sqlalchemy import URL, select, text

from app import __version__
from app.backup.manifest import DUMP, FOLDERS, HOME, MANIFEST, Entry, Manifest
from app.backup.tools import connection, run, tool
from app.disk import room
from app.errors import BackupFailed
from app.store import tables as t
from app.store.engine import explained, sync_engine
from app.store.migrate import revision


def back_up(url: URL, home: Path, to: Path, say: Callable[[str], None] = lambda _: None) -> Manifest:
    """Write a backup to the file ``to``, all of it or nothing. Pages may be read and harvests go on meanwhile: the
    database is one moment's, and files are kept for as long as it names them.

    Raises:
        BackupFailed: ``to`` exists, the database is empty, or a program refuses. DiskFull, DatabaseUnavailable.
    """
    if to.exists():
        raise BackupFailed(f"{to} exists already; give another name.", path=str(to))
    if not to.absolute().parent.is_dir():
        raise BackupFailed(f"There is no folder {to.absolute().parent} for the backup.", path=str(to))
    facts, major = _facts(url)
    partial, dump = to.with_name(f"{to.name}.partial"), to.with_name(f"{to.name}.dump.partial")
    try:
        with room(to, "The backup"):
            say("Dumping the database")
            place, environment = connection(url)
            dump.touch(mode=0o600)
            command = [str(tool("pg_dump", major)), "--format=custom", "--no-owner", "--no-privileges", place]
            run([*command, f"--file={dump}"], environment, "The database could not be dumped")
            say("Copying the files of SAEs")
            partial.touch(mode=0o600)
            with tarfile.open(partial, "w:", format=tarfile.PAX_FORMAT) as archive:
                entries = [_add(archive, DUMP, dump)]
                entries += [_add(archive, name, file) for name, file in _files(home)]
                manifest = facts.model_copy(update={"entries": entries})
                told = manifest.model_dump_json(indent=1).encode()
                member = tarfile.TarInfo(MANIFEST)
                member.size = len(told)
                archive.addfile(member, io.BytesIO(told))
            partial.rename(to)
    finally:
        dump.unlink(missing_ok=True)
        partial.unlink(missing_ok=True)
    return manifest


def _facts(url: URL) -> tuple[Manifest, int]:
    engine = sync_engine(url)
    try:
        with explained(), engine.connect() as link:
            schema = revision(link)
            if schema is None:
                raise BackupFailed("The database is empty: there is nothing to back up.")
            version = str(link.execute(text("SHOW server_version")).scalar_one())
            major = int(link.execute(text("SHOW server_version_num")).scalar_one()) // 10_000
            size = int(link.execute(text("SELECT pg_database_size(current_database())")).scalar_one())
            models = [str(path) for path in link.execute(select(t.subject.c.path).order_by(t.subject.c.id)).scalars()]
    finally:
        engine.dispose()
    made = datetime.now(UTC)
    return Manifest(
        format=1, saescope=__version__, made=made, schema_revision=schema, postgres=version, database_bytes=size,
        left_out=models, entries=[],
    ), major  # fmt: skip


_AGAIN = ("training/activations/*", "training/*/checkpoint.pt")  # patterns of what can be made again


def _files(home: Path) -> Iterator[tuple[str, Path]]:
    """Regular files alone, and none that is being written."""
    for folder in FOLDERS:
        for file in sorted((home / folder).rglob("*")):
            inside = file.relative_to(home)
            kept = not any(part.endswith(".partial") for part in inside.parts)
            kept = kept and not any(fnmatch(inside.as_posix(), pattern) for pattern in _AGAIN)
            if kept and file.is_file() and not file.is_symlink():
                yield f"{HOME}/{inside.as_posix()}", file


def _add(archive: tarfile.TarFile, name: str, file: Path) -> Entry:
    """Hashed as it is read."""
    with file.open("rb") as stream:
        member = archive.gettarinfo(fileobj=stream, arcname=name)
        member.uid = member.gid = 0
        member.uname = member.gname = ""
        hashed = _Hashed(stream)
        archive.addfile(member, hashed)
    return Entry(name=name, size=member.size, sha256=hashed.digest.hexdigest())


class _Hashed:
    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self.digest = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        found = self._stream.read(size)
        self.digest.update(found)
        return found
