"""Reading a backup that may be damaged, or made by somebody who means harm.

Members are plain files, named in the manifest, as long as it says; they are written where their names lead inside one
folder, by this code and not by tarfile. The tar is not compressed, so they are no larger than the file itself.
"""

import hashlib
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import ValidationError

from app.backup.manifest import LONGEST, MANIFEST, Entry, Manifest
from app.disk import room
from app.errors import BackupInvalid

MEMBERS = 1_000_000
CHUNK = 1 << 20


class Archive:
    """A backup whose manifest has been read and agrees with its members."""

    def __init__(
        self, path: Path, tar: tarfile.TarFile, manifest: Manifest, members: dict[str, tarfile.TarInfo]
    ) -> None:
        self.path, self.manifest = path, manifest
        self._tar, self._members = tar, members

    @property
    def size(self) -> int:
        return sum(entry.size for entry in self.manifest.entries)

    def verify(self) -> None:
        """
        Raises:
            BackupInvalid: a file is not what the manifest says.
        """
        for entry in self.manifest.entries:
            for _ in self._chunks(entry):
                pass

    def extract(self, folder: Path) -> None:
        """Write every file below ``folder``, which is empty.

        Raises:
            BackupInvalid: a file is not what the manifest says. DiskFull.
        """
        for entry in self.manifest.entries:
            to = folder.joinpath(*entry.name.split("/"))
            with room(to, "A file of the backup"):
                to.parent.mkdir(parents=True, exist_ok=True)
                with to.open("xb") as stream:
                    for chunk in self._chunks(entry):
                        stream.write(chunk)

    def _chunks(self, entry: Entry) -> Iterator[bytes]:
        digest = hashlib.sha256()
        stream = self._tar.extractfile(self._members[entry.name])
        assert stream is not None  # it is a plain file
        with _damage(self.path), stream:
            while chunk := stream.read(CHUNK):
                digest.update(chunk)
                yield chunk
        if digest.hexdigest() != entry.sha256:
            raise BackupInvalid(f"{entry.name} in {self.path} is damaged: its SHA-256 is not the manifest's.")


@contextmanager
def opened(path: Path) -> Iterator[Archive]:
    """
    Raises:
        BackupInvalid: it is no backup, was cut short, or holds what its manifest does not name.
    """
    if not path.is_file():
        raise BackupInvalid(f"There is no backup at {path}.", path=str(path))
    with _damage(path), tarfile.open(path, "r:") as tar:
        members: dict[str, tarfile.TarInfo] = {}
        for member in tar:
            if member.name in members or len(members) >= MEMBERS:
                raise BackupInvalid(f"{path} holds {member.name[:100]!r} twice, or far too many files.")
            if not (member.type in (tarfile.REGTYPE, tarfile.AREGTYPE) and not member.issparse()):
                raise BackupInvalid(f"{member.name[:100]!r} in {path} is no plain file; backups hold nothing else.")
            members[member.name] = member
        manifest = _manifest(path, tar, members.pop(MANIFEST, None))
        sizes = {entry.name: entry.size for entry in manifest.entries}
        if len(sizes) != len(manifest.entries) or sizes != {name: member.size for name, member in members.items()}:
            raise BackupInvalid(f"The files in {path} are not those that its manifest names.", path=str(path))
        yield Archive(path, tar, manifest, members)


def _manifest(path: Path, tar: tarfile.TarFile, member: tarfile.TarInfo | None) -> Manifest:
    stream = None if member is None or member.size > LONGEST else tar.extractfile(member)
    if stream is None:
        raise BackupInvalid(f"{path} has no manifest: it is no backup of saescope's, or was cut short.", path=str(path))
    try:
        return Manifest.model_validate_json(stream.read())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "JSON"
        raise BackupInvalid(
            f"The manifest of {path} does not fit at {where}: {first['msg']}.", path=str(path)
        ) from None


@contextmanager
def _damage(path: Path) -> Iterator[None]:
    try:
        yield
    except (tarfile.TarError, EOFError, UnicodeError, OverflowError) as error:
        raise BackupInvalid(f"{path} cannot be read as a backup: {error or type(error).__name__}.") from None
