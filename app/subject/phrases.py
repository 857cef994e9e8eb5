"""A phrase as token ids, by the tokenizer's file alone: without transformers, and so without torch."""

from functools import lru_cache
from pathlib import Path

from tokenizers import Tokenizer

from app.errors import SubjectUnavailable


def variants(path: Path, phrase: str) -> list[list[int]]:
    """Token ids that a text may have where ``phrase`` stands: with a space before it and without, as it is typed and in
    lower case, capitals, and with its words' first letters large.

    Raises:
        SubjectUnavailable: there is no tokenizer.json in ``path``.
    """
    tokenizer = _load(path, (path / "tokenizer.json").stat().st_mtime_ns if _there(path) else 0)
    found: dict[tuple[int, ...], None] = {}
    for typed in dict.fromkeys((phrase, phrase.lower(), phrase.title(), phrase.upper())):
        for text in (f" {typed}", typed):
            found.setdefault(tuple(tokenizer.encode(text, add_special_tokens=False).ids))
    return [list(ids) for ids in found if ids]


def _there(path: Path) -> bool:
    try:
        return (path / "tokenizer.json").is_file()
    except OSError:
        return False


@lru_cache(8)
def _load(path: Path, _changed: int) -> Tokenizer:
    try:
        return Tokenizer.from_file(str(path / "tokenizer.json"))
    except Exception:  # tokenizers raises plain Exception
        raise SubjectUnavailable(
            f"The tokenizer at {path} has no tokenizer.json that can be read, so no phrase can be looked up.",
            path=str(path),
        ) from None
