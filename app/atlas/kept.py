"""Work on an SAE that need not be done again once it was cut short: arrays in files, whole or not at all. They lie with
the SAE's files and go with them."""

import hashlib
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from app.disk import room

Arrays = dict[str, np.ndarray[Any, Any]]
FOLDER = "maps"
VERSION = 1  # of what the arrays mean


class Kept:
    """Arrays by what they were made from; ``what`` they are, for a refusal of the disk."""

    def __init__(self, sae: Path, folder: str = FOLDER, what: str = "What the map has so far") -> None:
        self.folder, self.what = sae / folder, what

    def get(self, kind: str, of: dict[str, Any], make: Callable[[], Arrays]) -> Arrays:
        """The arrays ``make`` makes, or what it made before ``of`` the same; ``of`` is all that decides them."""
        path = self._path(kind, of)
        found = _load(path)
        if found is None:
            found = make()
            _save(path, found, self.what)
        return found

    def put(self, kind: str, of: dict[str, Any], arrays: Arrays) -> None:
        """What ``get`` is to find.

        Raises:
            DiskFull: it cannot be written.
        """
        _save(self._path(kind, of), arrays, self.what)

    def _path(self, kind: str, of: dict[str, Any]) -> Path:
        told = json.dumps([VERSION, kind, of], sort_keys=True)
        return self.folder / f"{kind}-{hashlib.sha256(told.encode()).hexdigest()[:16]}.npz"


def _load(path: Path) -> Arrays | None:
    """None where there is nothing, or nothing that can be read."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as held:
            return {name: held[name] for name in held.files}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile):
        return None


def _save(path: Path, arrays: Arrays, what: str) -> None:
    partial = path.with_name(f"{path.name}.partial")  # one process is at it at a time
    try:
        with room(path, what):
            path.parent.mkdir(parents=True, exist_ok=True)
            with partial.open("wb") as file:
                np.savez(file, **arrays)  # type: ignore[arg-type]
            partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
