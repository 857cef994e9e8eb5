"""Plain text and JSON lines on this machine, read one file and one line at a time."""

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path

from app.corpus.document import Columns, Document, Skipped, Unreadable, checked, printable
from app.errors import CorpusUnavailable

JSONL = (".jsonl", ".jsonl.gz", ".json.gz")


def listed(path: Path, *suffixes: str) -> list[Path]:
    """The file ``path``, or the files below the folder ``path`` (those with one of the suffixes), in order.

    Raises:
        CorpusUnavailable: there are none, or ``path`` is a pipe or a device, which may never end.
    """
    try:
        if path.is_dir():
            files = sorted(p for p in path.rglob("*") if p.name.lower().endswith(suffixes or "") and _is_file(p))
        else:
            files = [path] if path.exists() else []
            if files and not path.is_file():
                raise CorpusUnavailable(
                    f"{printable(str(path))} is {_kind(path)} and not a file; write its text to a file and give that.",
                    path=str(path),
                )
    except (OSError, ValueError) as error:
        raise CorpusUnavailable(f"{printable(str(path))} cannot be read: {why(error)}.", path=str(path)) from None
    if not files:
        wanted = "; give a file or a folder that is there"
        if path.is_dir():
            wanted = f": the folder holds no {' or '.join(suffixes)} file" if suffixes else ": the folder holds no file"
        raise CorpusUnavailable(f"No text at {printable(str(path))}{wanted}.", path=str(path))
    return files


def _kind(path: Path) -> str:
    return "a named pipe" if path.is_fifo() else "a socket" if path.is_socket() else "a device"


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # it cannot even be looked at: reading it fails, and says so
        return True


def why(error: Exception) -> str:
    """The reason in a few words."""
    match error:
        case UnicodeDecodeError():
            return "not UTF-8"
        case FileNotFoundError():
            return "gone"
        case EOFError() | zlib.error() | gzip.BadGzipFile():
            return "damaged"
        case OSError(strerror=str(reason)):
            return reason.lower()
    return str(error).partition("\n")[0] or type(error).__name__


def text(path: Path, skipped: Skipped) -> Iterator[Document]:
    """Every file below ``path`` as a document. Of a folder, those that are no text are skipped.

    Raises:
        CorpusUnavailable: there is no file, or the only one asked for is no text.
    """
    for file in listed(path):
        try:
            document = checked(Document(file.name, file.read_text(encoding="utf-8")))
        except (OSError, UnicodeDecodeError, Unreadable) as error:
            if file != path:
                skipped.add(str(file.relative_to(path)), why(error))
                continue
            says = f"cannot be read: {why(error)}"
            if isinstance(error, UnicodeDecodeError):
                says = f"is not UTF-8 text: {error.reason}"
            raise CorpusUnavailable(f"{printable(str(file))} {says}.", path=str(file)) from None
        yield document


def jsonl(path: Path, columns: Columns, skipped: Skipped) -> Iterator[Document]:
    """Every line of the files at ``path`` as a document; lines that are none are skipped.

    Raises:
        CorpusUnavailable: there is no file, or the first object lacks a column that is wanted.
    """
    first = True
    for file in listed(path, *JSONL):
        name, number = str(file.relative_to(path) if file != path else file.name), 0
        try:
            with gzip.open(file) if file.suffix.lower() == ".gz" else file.open("rb") as lines:
                for number, line in enumerate(lines, 1):
                    if not line.strip():
                        continue
                    try:
                        row = _object(line)
                        if first:
                            columns.check(row, f"Line {number} of {file}")
                            first = False
                        document = columns.document(row, f"{name}:{number}" if file != path else str(number))
                    except Unreadable as error:
                        skipped.add(f"{name}:{number}", str(error))
                        continue
                    yield document
        except (OSError, EOFError, zlib.error) as error:  # the rest of the file, however many lines that was
            skipped.add(f"{name}:{number + 1}" if number else name, why(error))


def _object(line: bytes) -> dict[str, object]:
    try:
        row = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise Unreadable("not UTF-8") from None
    except (ValueError, RecursionError):
        raise Unreadable("not a JSON object") from None
    if not isinstance(row, dict):
        raise Unreadable("not a JSON object")
    return row
