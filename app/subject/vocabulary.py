"""A subject's tokens, read here or by a process of its own.

transformers brings torch along, which a web server that asks inference services does without.
"""

import json
import subprocess
import sys
from pathlib import Path

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


def vocabulary_beside(path: Path) -> Vocabulary:
    """The same by a process of its own.

    Raises:
        SubjectUnavailable: there is no tokenizer in ``path``, or it cannot be read in five minutes.
    """
    command = [sys.executable, "-m", "app.subject.vocabulary", str(path)]
    try:
        done = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, timeout=SECONDS, check=True)
        told = json.loads(done.stdout)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        raise SubjectUnavailable(
            f"The tokenizer at {path} could not be read by a process of its own: {type(error).__name__}.",
            path=str(path),
        ) from error
    if "error" in told:
        raise SubjectUnavailable(told["error"], path=str(path))
    return Vocabulary([token.encode("latin-1") for token in told["tokens"]])


def main() -> None:
    try:
        told = {"tokens": [token.decode("latin-1") for token in vocabulary_here(Path(sys.argv[1])).token_bytes]}
    except SaescopeError as error:
        told = {"error": error.message}  # type: ignore[dict-item]
    sys.stdout.write(json.dumps(told))


if __name__ == "__main__":
    main()
