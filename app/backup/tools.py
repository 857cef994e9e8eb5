"""pg_dump and pg_restore: those in PATH where they fit the server, else those that come with the embedded one."""

import os
import re
import shutil
import subprocess
from pathlib import Path

from sqlalchemy import URL

from app.errors import BackupFailed
from app.store.embedded import programs


def tool(name: str, major: int) -> Path:
    """``name`` of the server's own major version if there is one, else a newer one.

    Raises:
        BackupFailed: there is none.
    """
    found: dict[int, Path] = {}
    for path in (shutil.which(name), programs() / name):
        if path is not None and (program := Path(path)).is_file():
            found.setdefault(_major(program), program)
    fitting = sorted(version for version in found if version >= major)
    if not fitting:
        raise BackupFailed(
            f"The server is PostgreSQL {major}, and no {name} of that version is in PATH; install its client programs.",
            wanted=major,
        )
    return found[fitting[0]]


def connection(url: URL) -> tuple[str, dict[str, str]]:
    """The argument and the environment that lead a program to the database; the password is in the latter alone."""
    plain = URL.create("postgresql", url.username, None, url.host, url.port, url.database, url.query).render_as_string()
    secret = {} if url.password is None else {"PGPASSWORD": str(url.password)}
    return f"--dbname={plain}", {**os.environ, **secret}


def run(command: list[str], environment: dict[str, str], what: str) -> str:
    """What it prints.

    Raises:
        BackupFailed: with the first line of what it complains of.
    """
    done = subprocess.run(command, env=environment, capture_output=True, text=True, errors="replace")
    if done.returncode:
        raise BackupFailed(f"{what}: {complaint(done.stderr)}")
    return done.stdout


def complaint(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    named = next((line for line in lines if "error" in line.lower()), lines[0] if lines else "it said nothing")
    return f"{named.rstrip('.')}."


def _major(path: Path) -> int:
    told = subprocess.run([path, "--version"], capture_output=True, text=True).stdout
    found = re.search(r"\(PostgreSQL\) (\d+)", told)
    return int(found[1]) if found else 0
