"""The SAE's own files: in normal form in a folder of the home while it is harvested, and for good once it is saved."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from app.corpus.scratch import scratch
from app.disk import room, sha256_of
from app.sae.base import SAE
from app.sae.formats import save


@contextmanager
def artefact(sae: SAE, home: Path) -> Iterator[tuple[Path, str]]:
    """The SAE in normal form in a folder of its own, and the SHA-256 of its files; the folder goes at the end."""
    with scratch(home / "work", "sae") as folder:
        with room(folder, "A copy of the SAE"):
            save(folder, sae)
        yield folder, sha256_of(folder)


@contextmanager
def kept(folder: Path, to: Path) -> Iterator[Path]:
    """A copy of the SAE in the home, for inspection after the original has moved; taken back if the block fails."""
    fresh = not to.is_dir()
    if fresh:
        partial = to.with_name(to.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        try:
            with room(to, "The SAE's files"):
                shutil.copytree(folder, partial)
                partial.rename(to)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    try:
        yield to
    except BaseException:
        if fresh:
            shutil.rmtree(to, ignore_errors=True)
        raise
