"""A subject's tokens, read here or by a process of its own.

transformers brings torch along, which a web server that asks inference services does without.
"""

import hashlib
import json
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from app.errors import SaescopeError, SubjectUnavailable
from app.subject.tokens import Vocabulary

SECONDS = 300.0


def vocabulary_here(path: Path) -> Vocabulary:
    """
    Raises:
        SubjectUnavailable: there is no tokenizer in ``path``.
    """
    from app.subject.load import load_vocabulary

    return load_vocabulary(path)


def vocabulary_beside(path: Path, memory: Path) -> Vocabulary:
    """The same by a process of its own; ``memory`` is a folder that keeps it until a file in ``path`` changes.

    Raises:
        SubjectUnavailable: there is no tokenizer in ``path``, or it cannot be read in five minutes.
    """
    try:
        return _of(json.loads(_kept(path, memory).read_text()))
    except (OSError, ValueError, KeyError, TypeError):  # not there, or damaged: it is only a memory
        told = _asked(path)
    if "error" in told:
        raise SubjectUnavailable(told["error"], path=str(path))
    with suppress(OSError):
        memory.mkdir(parents=True, exist_ok=True)
        known = _kept(path, memory)
        partial = known.with_name(f"{known.name}.{os.getpid()}")
        partial.write_text(json.dumps(told))
        partial.rename(known)
    return _of(told)


def states(path: Path) -> tuple[tuple[str, int, int], ...]:
    """Name, bytes and time of change of each file in the folder ``path``."""
    stats = [(file.name, file.stat()) for file in sorted(path.iterdir())]
    return tuple((name, stat.st_size, stat.st_mtime_ns) for name, stat in stats)


def _kept(path: Path, memory: Path) -> Path:
    state = [str(path.resolve()), *states(path)]
    return memory / f"{hashlib.sha256(json.dumps(state).encode()).hexdigest()[:16]}.json"


def _of(told: dict[str, Any]) -> Vocabulary:
    return Vocabulary([token.encode("latin-1") for token in told["tokens"]])


def _asked(path: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "app.subject.vocabulary", str(path)]
    try:
        done = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, timeout=SECONDS, check=True)
        told: dict[str, Any] = json.loads(done.stdout)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        raise SubjectUnavailable(
            f"The tokenizer at {path} could not be read by a process of its own: {type(error).__name__}.",
            path=str(path),
        ) from error
    return told


def main() -> None:
    told: dict[str, Any]
    try:
        told = {"tokens": [token.decode("latin-1") for token in vocabulary_here(Path(sys.argv[1])).token_bytes]}
    except SaescopeError as error:
        told = {"error": error.message}
    sys.stdout.write(json.dumps(told))


if __name__ == "__main__":
    main()
