"""Sequences on disk: written by a thread that tokenises ahead, read by the harvest behind it."""

import os
import threading
from array import array
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from app.corpus.sequences import CorpusHash, Sequence, others
from app.disk import room

READ = 1 << 22  # bytes at a time; whole ids


class TokenStore:
    """A corpus of which the memory holds 16 bytes a sequence and 8 a document; the ids and names lie in files.

    ``fill`` starts the thread; ``__getitem__`` waits for a sequence that is still to come and raises IndexError
    once it is clear that it never will. ``len`` waits for the end. Errors of the source are raised in the reader.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._ids = (folder / "ids.i4").open("w+b", buffering=1 << 20)
        self._text = (folder / "names").open("w+b", buffering=1 << 20)
        self._begins, self._documents = array("q", [0]), array("q")
        self._names = array("q", [0])  # where each document's name ends; documents without a sequence have none
        self._joins: dict[int, tuple[tuple[int, str], ...]] = {}
        self._state = threading.Condition()
        self._hash = CorpusHash()
        self._readable = 0
        self._done, self._stopped = False, False
        self._error: BaseException | None = None
        self._thread: threading.Thread | None = None

    def fill(self, sequences: Callable[[], Iterator[Sequence]]) -> None:
        """Take everything ``sequences()`` yields, on a thread of its own."""
        self._thread = threading.Thread(target=self._take, args=(sequences,), name="tokenise", daemon=True)
        self._thread.start()

    def _take(self, sequences: Callable[[], Iterator[Sequence]]) -> None:
        try:
            for sequence in sequences():
                if self._stopped:
                    return
                with self._room():
                    self._add(sequence)
            with self._room():
                self._publish()
        except BaseException as error:
            self._error = error
        finally:
            with self._state:
                self._done = True
                self._state.notify_all()

    def _room(self) -> AbstractContextManager[None]:
        return room(self._folder, "The tokens of the corpus")

    def _add(self, sequence: Sequence) -> None:
        self._hash.add(sequence)
        self._ids.write(sequence.token_ids.astype("<i4").tobytes())
        number = len(self._documents)
        self._begins.append(self._begins[-1] + len(sequence.token_ids))
        self._documents.append(sequence.number)
        if sequence.joins:
            self._joins[number] = sequence.joins
        for document, name in enumerate((sequence.document, *(name for _, name in sequence.joins)), sequence.number):
            self._register(document, name.encode())
        if number % 64 == 63:
            self._publish()

    def _register(self, document: int, name: bytes) -> None:
        while len(self._names) < document + 1:
            self._names.append(self._names[-1])
        if len(self._names) == document + 1:
            self._text.write(name)
            self._names.append(self._names[-1] + len(name))

    def _publish(self) -> None:
        self._ids.flush()
        self._text.flush()
        with self._state:
            self._readable = len(self._documents)
            self._state.notify_all()

    def _wait(self, ready: Callable[[], bool]) -> None:
        with self._state:
            self._state.wait_for(lambda: ready() or self._done)
        if self._error is not None and not ready():
            raise self._error

    @property
    def complete(self) -> bool:
        """Whether the last sequence is there."""
        return self._done and self._error is None

    def __len__(self) -> int:
        self._wait(lambda: False)
        return self._readable

    def __getitem__(self, number: int) -> Sequence:
        if number >= self._readable:
            self._wait(lambda: number < self._readable)
        if not 0 <= number < self._readable:
            raise IndexError(number)
        begin, end = self._begins[number], self._begins[number + 1]
        ids = np.frombuffer(os.pread(self._ids.fileno(), 4 * (end - begin), 4 * begin), dtype="<i4").astype(np.int32)
        document = self._documents[number]
        return Sequence(ids, self.name(document), document, self._joins.get(number, ()))

    def __iter__(self) -> Iterator[Sequence]:
        number = 0
        while True:
            try:
                sequence = self[number]
            except IndexError:
                return
            yield sequence
            number += 1

    def lengths(self) -> npt.NDArray[np.int64]:
        """Tokens in each sequence; waits for the end."""
        return np.diff(np.frombuffer(self._begins, dtype=np.int64)[: len(self) + 1])

    def counted(self, special_ids: Collection[int]) -> int:
        """Tokens that are none of ``special_ids``; waits for the end, and reads the file once."""
        end, at, found = 4 * self._begins[len(self)], 0, 0
        while at < end:
            part = os.pread(self._ids.fileno(), min(READ, end - at), at)
            found += others(np.frombuffer(part, dtype="<i4"), special_ids)
            at += len(part)
        return found

    def names(self) -> Iterator[tuple[int, str]]:
        """Every document with a sequence: its number and its name."""
        for document in range(len(self._names) - 1):
            if self._names[document] < self._names[document + 1]:
                yield document, self.name(document)

    def name(self, document: int) -> str:
        begin, end = self._names[document], self._names[document + 1]
        return os.pread(self._text.fileno(), end - begin, begin).decode()

    def sha256(self) -> str:
        """Of the whole corpus, as corpus_hash computes it; waits for the end."""
        self._wait(lambda: False)
        return self._hash.hexdigest()

    def close(self) -> None:
        """Stop the thread and let the files go; they are the caller's to delete."""
        self._stopped = True
        if self._thread is not None:
            with suppress(RuntimeError):  # a Ctrl-C came as it was being started
                self._thread.join(timeout=10)  # a source that waits for the network may not come back
        for file in (self._ids, self._text):
            with suppress(OSError):  # of a full disk, which has been told
                file.close()

    def __enter__(self) -> "TokenStore":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()
