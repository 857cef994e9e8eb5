"""The browser's libraries: fetched once by lock file into static/vendor."""

import hashlib
import shutil
import subprocess
import tempfile
from pathlib import Path

from app.corpus.npm import npm_command
from app.errors import AssetsMissing, PackageUnavailable

ROOT = Path(__file__).resolve().parents[2]
VENDOR = ROOT / "static" / "vendor"
FILES = {
    "htmx.min.js": "htmx.org/dist/htmx.min.js",
    "plotly-strict.min.js": "plotly.js-strict-dist-min/plotly-strict.min.js",
}


def assets_ready() -> bool:
    stamp = VENDOR / "lock.sha256"
    return stamp.is_file() and stamp.read_text() == _lock() and all((VENDOR / name).is_file() for name in FILES)


def install_assets() -> None:
    """Fetch what package-lock.json names, unless it is there already.

    Raises:
        AssetsMissing: npm is missing or failed; nothing in static/vendor has changed.
    """
    if assets_ready():
        return
    with tempfile.TemporaryDirectory() as scratch:
        for name in ("package.json", "package-lock.json"):
            shutil.copy(ROOT / name, scratch)
        try:
            command = [*npm_command(), "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        except PackageUnavailable as error:
            raise AssetsMissing(error.message) from error
        done = subprocess.run(command, cwd=scratch, capture_output=True, text=True)
        if done.returncode:
            lines = [line for line in done.stderr.splitlines() if "error" in line.lower()] or ["npm said nothing."]
            raise AssetsMissing(f"The browser's libraries could not be fetched: {lines[0].strip()}")
        VENDOR.mkdir(parents=True, exist_ok=True)
        for name, source in FILES.items():
            partial = VENDOR / f"{name}.partial"
            shutil.copy(Path(scratch) / "node_modules" / source, partial)
            partial.rename(VENDOR / name)
    (VENDOR / "lock.sha256").write_text(_lock())


def _lock() -> str:
    return hashlib.sha256((ROOT / "package-lock.json").read_bytes()).hexdigest()
