"""JSON of other tools, a piece at a time, so that a file's size is no matter; what is hostile is refused.

A file may be gzipped. Nothing is taken that is nested deeply, unpacks to hundreds of times its size, holds a piece
longer than LONGEST, or numbers that are none.
"""

import gzip
import json
import math
import re
import zlib
from collections.abc import Iterator
from io import TextIOWrapper
from pathlib import Path
from typing import Any, BinaryIO, NoReturn, cast

from app.errors import BadRequest

LONGEST = 1 << 25  # characters of a line, or of an element of a list
CHUNK = 1 << 20
DEEPEST = 16
RATIO, FREE = 300, 1 << 26  # how many times its size a file may unpack to, beyond its first bytes
_MARK = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*(?:"|\\?\Z)|[][{}]', re.DOTALL)


def refuse(path: Path, what: str) -> NoReturn:
    raise BadRequest(f"{path} {what}", path=str(path))


class _Measured:
    """A gzipped file's bytes, unpacked: fewer than RATIO times its size."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self._path, self._file = path, file
        self._most = FREE + RATIO * path.stat().st_size
        self._read = 0

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self._read += len(data)
        if self._read > self._most:
            refuse(self._path, f"unpacks to more than {RATIO} times its size; unpack it yourself if you trust it.")
        return data

    read1 = read
    closed = False

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return False

    seekable = writable

    def flush(self) -> None:
        pass

    def close(self) -> None:
        self._file.close()


def _pieces(path: Path) -> Iterator[str]:
    """The text of a file, CHUNK characters at a time.

    Raises:
        BadRequest: it cannot be read, or is no UTF-8.
    """
    try:
        with path.open("rb") as plain:
            packed = path.suffix == ".gz" or plain.read(2) == b"\x1f\x8b"
            plain.seek(0)
            source = _Measured(path, cast(BinaryIO, gzip.GzipFile(fileobj=plain))) if packed else plain
            with TextIOWrapper(cast(BinaryIO, source), encoding="utf-8") as text:
                while piece := text.read(CHUNK):
                    yield piece
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        told = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        refuse(path, f"cannot be read: {told}.")


def lines(path: Path) -> Iterator[tuple[int, Any]]:
    """The numbers and values of a file of JSON lines; empty ones are passed over."""
    number, left = 0, ""
    for piece in _pieces(path):
        *whole, left = (left + piece).split("\n")
        for line in whole:
            number += 1
            if line.strip():
                yield number, parsed(path, f"line {number}", line)
        if len(left) > LONGEST:
            refuse(path, f"has a line {number + 1} of more than {LONGEST >> 20} MiB.")
    if left.strip():
        yield number + 1, parsed(path, f"line {number + 1}", left)


class Batch:
    """A file that is an object with a long list in it: ``elements`` reads the list, and then ``about`` has the rest."""

    def __init__(self, path: Path, name: str) -> None:
        self._path, self._name = path, name
        self.about: dict[str, Any] = {}

    def elements(self) -> Iterator[Any]:
        """
        Raises:
            BadRequest: the file is no JSON object with such a list.
        """
        path, outside, inside, stack = self._path, [], [], ""
        begun = there = False
        last = ""
        number = 0
        buffer, at, kept = "", 0, 0  # at: what has been looked at; kept: what has been put away
        pieces = _pieces(path)
        ended = False
        while not ended:
            piece = next(pieces, None)
            ended = piece is None
            buffer, at, kept = buffer[kept:] + (piece or ""), at - kept, 0
            while (mark := _MARK.search(buffer, at)) is not None:
                found = mark[0]
                if found[0] == '"' and mark.end() == len(buffer) and not ended and not _closed(found):
                    break  # its end is still to come
                at = mark.end()
                if found[0] == '"':
                    last = found if len(stack) == 1 else last
                    continue
                if found in "[{":
                    stack += found
                    if len(stack) > DEEPEST:
                        refuse(path, f"is nested more than {DEEPEST} deep.")
                    if stack == "{[" and last == f'"{self._name}"':
                        if begun:
                            refuse(path, f"holds {self._name!r} twice.")
                        begun = there = True
                        outside.append(buffer[kept:at])
                        kept = at
                    continue
                if not stack or stack[-1] + found not in ("[]", "{}"):
                    refuse(path, f"is no JSON: a {found!r} closes nothing.")
                stack = stack[:-1]
                if there and stack == "{[" and found == "}":
                    inside.append(buffer[kept:at])
                    text = "".join(inside).lstrip(" \t\r\n")
                    if number and not text.startswith(","):
                        refuse(path, f"is no JSON: a comma is missing before {self._name} {number}.")
                    yield parsed(path, f"{self._name} {number}", text[1:] if number else text)
                    number, inside, kept = number + 1, [], at
                elif there and stack == "{":
                    if buffer[kept : at - 1].strip(" \t\r\n"):
                        refuse(path, f"holds {self._name!r} that are no objects.")
                    there, kept = False, at - 1
            if len(buffer) - kept > LONGEST:
                refuse(path, f"holds a piece of more than {LONGEST >> 20} MiB.")
            at = max(at, kept)
        outside.append(buffer[kept:])
        about = parsed(path, "it", "".join(outside))
        if not begun or not isinstance(about, dict):
            refuse(path, f"is no object with a list {self._name!r}.")
        self.about = about


def _closed(text: str) -> bool:
    """Whether a string that starts with a quotation mark ends with one of its own."""
    if len(text) < 2 or text[-1] != '"':
        return False
    body = text[1:-1]
    return (len(body) - len(body.rstrip("\\"))) % 2 == 0


def parsed(path: Path, what: str, text: str) -> Any:
    """
    Raises:
        BadRequest: it is no JSON, nested too deeply, or holds NaN or an infinite number.
    """

    def no_number(name: str) -> NoReturn:
        raise ValueError(f"{name} is no number")

    def number(digits: str) -> float:
        value = float(digits)
        if not math.isfinite(value):
            raise ValueError(f"{digits[:20]} is too large a number")
        return value

    depth = 0
    for mark in _MARK.finditer(text):
        depth += (mark[0] in "[{") - (mark[0] in "]}")
        if depth > DEEPEST:
            refuse(path, f"is nested more than {DEEPEST} deep at {what}.")
    try:
        return json.loads(text, parse_constant=no_number, parse_float=number)
    except ValueError as error:
        told = error.msg.lower() if isinstance(error, json.JSONDecodeError) else str(error)[:80]
        refuse(path, f"is no JSON at {what}: {told}.")
    except RecursionError:
        refuse(path, f"is nested too deeply at {what}.")
