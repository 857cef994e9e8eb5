"""What a corpus is made of: documents, the columns they are read from, and what had to be left out."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from app.errors import CorpusUnavailable

NAMED = 20


class Document(NamedTuple):
    """name: what pages call it. messages: a chat, each ``{"role": str, "content": str}``; text is '' then."""

    name: str
    text: str
    messages: tuple[dict[str, str], ...] | None = None


def corpus_name(spec: str, *, chat: bool, pack: bool) -> str:
    """What a corpus is called in pages."""
    return spec + " (chats)" * chat + " (packed)" * pack


@dataclass
class Skipped:
    """Documents that were left out. named: the first 20, each with the reason in a few words."""

    count: int = 0
    named: list[tuple[str, str]] = field(default_factory=list)
    within: "Skipped | None" = None

    def add(self, name: str, reason: str, count: int = 1) -> None:
        """``name`` may stand for several documents that were lost together, such as the rest of a file."""
        self.count += count
        if len(self.named) < NAMED:
            self.named.append((printable(name), printable(reason)))
        if self.within is not None:
            self.within.add(name, reason, count)

    def sentence(self) -> str:
        """``2 documents were skipped: a.txt (not UTF-8), b.txt (gone)``; '' where there were none."""
        if not self.count:
            return ""
        what = "1 document was" if self.count == 1 else f"{self.count:,} documents were"
        names = ", ".join(f"{name} ({reason})" for name, reason in self.named)
        return f"{what} skipped: {names}{' and others' if self.count > NAMED else ''}"


class Unreadable(Exception):
    """What is no document; the message says why in a few words."""


class Columns(NamedTuple):
    """Where a row's text or chat, and its name, are found. None: 'text', else 'messages'; 'id'."""

    text: str | None = None
    messages: str | None = None
    id: str | None = None

    def check(self, there: Collection[str], where: str) -> list[str]:
        """The columns to read of those ``there``.

        Raises:
            CorpusUnavailable: one is missing; names those that are there.
        """
        body = self.text or self.messages or ("text" if "text" in there else "messages")
        missing = next((name for name in (body, self.id) if name is not None and name not in there), None)
        if missing is not None:
            wanted = repr(missing) if missing in self else "'text' or 'messages'"
            names = printable(", ".join(list(there)[:NAMED])) or "none"
            raise CorpusUnavailable(f"{where} has no column {wanted}; it has: {names}.", column=missing)
        name = self.id or ("id" if "id" in there else None)
        return [body] if name in (None, body) else [body, str(name)]

    def document(self, row: Mapping[str, object], otherwise: str) -> Document:
        """The row's document, named ``otherwise`` where it has no id.

        Raises:
            Unreadable: there is no text or chat in it, or none that a database can hold.
        """
        given = row.get(self.id or "id")
        name = otherwise if given is None or given == "" else str(given)
        if self.messages or (not self.text and "text" not in row and "messages" in row):
            return checked(Document(name, "", _chat(row.get(self.messages or "messages"))))
        text = row.get(self.text or "text")
        if not isinstance(text, str):
            raise Unreadable("no text" if text is None else f"its text is of type {type(text).__name__}")
        return checked(Document(name, text))


def _chat(value: object) -> tuple[dict[str, str], ...]:
    if value is None or value == []:
        raise Unreadable("no messages")
    chat = []
    for message in value if isinstance(value, list) else [value]:
        role, content = (message.get("role"), message.get("content")) if isinstance(message, dict) else (None, None)
        if not isinstance(role, str) or not isinstance(content, str):
            raise Unreadable("a message without a role and a content that are text")
        chat.append({"role": role, "content": content})
    if not isinstance(value, list):
        raise Unreadable("its messages are not a list")
    return tuple(chat)


def checked(document: Document) -> Document:
    """The document, if a database can hold it: no NUL in its name, no half of a surrogate pair anywhere.

    Raises:
        Unreadable: it cannot.
    """
    if "\0" in document.name:
        raise Unreadable("a NUL in its name")
    said = [part for message in document.messages or () for part in message.values()]
    if any(_halved(part) for part in (document.name, document.text, *said)):
        raise Unreadable("half of a surrogate pair")
    return document


def _halved(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def printable(text: str) -> str:
    """``text`` for a message: nothing in it moves the cursor or fails to be encoded."""
    return "".join(ch if ch.isprintable() else "\N{REPLACEMENT CHARACTER}" for ch in text)
