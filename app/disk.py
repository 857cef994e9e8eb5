"""Disks that are full, files that may not be larger, folders that cannot be written; what a folder holds."""

import errno
import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from app.errors import DiskFull

_NUMBER = re.compile(r"\[Errno (\d+)\]|\(os error (\d+)\)")
_REMEDIES = {
    errno.ENOSPC: "free some space there",
    errno.EDQUOT: "free some space there",
    errno.EFBIG: "raise the limit on the size of files (ulimit -f)",
}


@contextmanager
def room(path: Path, what: str) -> Iterator[None]:
    """A block that writes ``what`` to ``path``. Removing what is half written is the block's own affair.

    Raises:
        DiskFull: it cannot be written, and what to do.
    """
    try:
        yield
    except DiskFull:
        raise
    except Exception as error:  # torch and safetensors have errors of their own around the system's
        number = _number(error)
        if number is None:
            raise
        remedy = _REMEDIES.get(number, "see that the folder can be written")
        raise DiskFull(
            f"{what} could not be written to {path}: {os.strerror(number).lower()}; {remedy} and start again.",
            path=str(path),
        ) from error


def _number(error: BaseException) -> int | None:
    """The system's number of the error that it is, wraps or was raised while handling; None where there is none."""
    for one in (error, error.__cause__, error.__context__):
        if isinstance(one, OSError) and one.errno is not None:
            return one.errno
        if one is not None and (found := _NUMBER.search(str(one))):
            return int(found[1] or found[2])
    return None


def sha256_of(folder: Path) -> str:
    """Over the contents of its files, one after another in the order of their names; not of folders in it, where what
    was made of it may lie."""
    digest = hashlib.sha256()
    for file in sorted(path for path in folder.iterdir() if path.is_file()):
        with file.open("rb") as stream:
            while chunk := stream.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()
