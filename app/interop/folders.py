"""Folders that are written whole or not at all."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from app.disk import room
from app.errors import BadRequest


def check_free(out: Path) -> None:
    """
    Raises:
        BadRequest: ``out`` holds something, or the folder it is to be in is not there.
    """
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise BadRequest(f"{out} is no folder; give one that is not there yet, or is empty.", path=str(out))
    if out.is_dir() and any(out.iterdir()):
        raise BadRequest(f"{out} is not empty; give a folder that is not there yet, or is empty.", path=str(out))
    if not out.parent.is_dir():
        raise BadRequest(f"There is no folder {out.parent} to write {out.name} in.", path=str(out))


@contextmanager
def beside(out: Path) -> Iterator[Path]:
    """A folder to be filled, that takes the place of ``out`` at the end, and is gone if there is no such end.

    Raises:
        BadRequest: ``out`` is not free. DiskFull: it cannot be written.
    """
    check_free(out)
    with room(out, "The export"):
        folder = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
        try:
            yield folder
            folder.chmod(0o755)
            folder.replace(out)  # an empty folder gives way
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
