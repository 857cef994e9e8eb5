"""Folders that live as long as a block of code, and go with it even if it was killed: by the next one's hand."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from app.disk import room


@contextmanager
def scratch(work: Path, kind: str) -> Iterator[Path]:
    """A new folder ``work/{kind}-{pid}-...``; those of processes that are no more are removed first."""
    with room(work, "Files to work with"):
        work.mkdir(parents=True, exist_ok=True)
    for left in work.glob(f"{kind}-*-*"):
        owner = left.name.split("-")[1]
        if owner.isdigit() and not Path(f"/proc/{owner}").exists() and Path("/proc").exists():
            shutil.rmtree(left, ignore_errors=True)
    with room(work, "Files to work with"):
        made = tempfile.TemporaryDirectory(dir=work, prefix=f"{kind}-{os.getpid()}-")
    with made as folder:
        yield Path(folder)
