"""What a token looks like: ids to bytes, and bytes to text people can read."""

import codecs
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any


def _byte_table() -> dict[int, int]:
    """For str.translate: code point -> byte of the byte-level BPE alphabet (GPT-2, Radford et al. 2019). Printable
    Latin-1 bytes stand for themselves, the rest follow from U+0100 on; what stands for no byte goes beyond Latin-1."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return dict.fromkeys(others, 0xFFFF) | {0x100 + place: byte for place, byte in enumerate(others)}


@dataclass(frozen=True)
class Vocabulary:
    """Every token's bytes, by id."""

    token_bytes: list[bytes]

    @classmethod
    def of(cls, tokenizer: Any) -> "Vocabulary":
        known: dict[str, int] = tokenizer.get_vocab()
        names = [""] * (max(known.values()) + 1)
        for name, index in known.items():
            names[index] = name
        if any(name.startswith("Ġ") for name in names):
            table = _byte_table()
            token_bytes = [_byte_level_bytes(name, table) for name in names]
        else:
            token_bytes = [_sentencepiece_bytes(name) for name in names]
        for name in tokenizer.all_special_tokens:
            if name in known:
                token_bytes[known[name]] = name.encode()
        return cls(token_bytes)

    def __len__(self) -> int:
        return len(self.token_bytes)

    @cached_property
    def _whole(self) -> dict[int, str]:
        """The text of every token that is valid UTF-8 by itself, as nearly all are, by id."""
        texts = ((i, _text(token)) for i, token in enumerate(self.token_bytes))
        return {i: text for i, text in texts if text is not None}

    def bytes_of(self, token_id: int) -> bytes:
        """The token's bytes; an id beyond the vocabulary (padded embeddings have some) is named."""
        if 0 <= token_id < len(self.token_bytes):
            return self.token_bytes[token_id]
        return f"<id {token_id}>".encode()

    def text(self, token_id: int) -> str:
        """One token on its own; bytes that are no whole character stay visible as ``\\xNN``."""
        text = self._whole.get(token_id)
        return text if text is not None else self.bytes_of(token_id).decode("utf-8", errors="backslashreplace")

    def texts(self, token_ids: Sequence[int]) -> list[str]:
        """``text`` of each."""
        with suppress(KeyError):
            return list(map(self._whole.__getitem__, token_ids))
        return list(map(self.text, token_ids))

    def pieces(self, token_ids: Sequence[int]) -> list[str]:
        """A run of tokens as text, one string per token.

        A character whose bytes span several tokens stands whole at the token that completes it, and the
        tokens before it that hold only a part of it are empty. Joined, the pieces are the text. Bytes that
        never become a character are shown as U+FFFD.
        """
        known, inside = self._whole, False
        with suppress(KeyError):
            return list(map(known.__getitem__, token_ids))
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        pieces = []
        for i in token_ids:
            text = known.get(i)
            if inside or text is None:
                text = decoder.decode(self.bytes_of(i))
                inside = bool(decoder.getstate()[0])  # of a character whose end is still to come
            pieces.append(text)
        if pieces:
            pieces[-1] += decoder.decode(b"", final=True)
        return pieces


def _text(token: bytes) -> str | None:
    try:
        return token.decode()
    except UnicodeDecodeError:
        return None


def _byte_level_bytes(name: str, table: dict[int, int]) -> bytes:
    try:
        return name.translate(table).encode("latin-1")
    except UnicodeEncodeError:  # an added token, written as it is
        return name.encode()


def _sentencepiece_bytes(name: str) -> bytes:
    """A low line stands for a space, <0xNN> for a raw byte."""
    if len(name) == 6 and name.startswith("<0x") and name.endswith(">"):
        return bytes([int(name[3:5], 16)])
    return name.replace("\u2581", " ").encode()
