"""The text that SAEs are trained on, as sequences of the subject's tokens."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from app.corpus.chat import as_chat, rendered
from app.corpus.sequences import SHORTEST, cut
from app.corpus.sequences import Sequence as Tokens
from app.corpus.sources import Document, documents
from app.errors import BadRequest, CorpusUnavailable
from app.subject.load import Subject


def read(
    corpus: Sequence[str], subject: Subject, packages: Path, context: int, *, tokens: int | None = None,
    chat: bool = False,
) -> list[Tokens]:  # fmt: skip
    """The sequences of every SPEC or SPEC@TOKENS of ``corpus``, one after another, ``tokens`` tokens in all. Chats, and
    with ``chat`` plain documents too, go through the subject's template.

    Raises:
        BadRequest: what follows '@' is no number, or the context is too short.
        CorpusUnavailable: a corpus cannot be read, or there is no text of 16 tokens.
    """
    least = SHORTEST + (subject.bos_id is not None)
    if context < least:
        raise BadRequest(f"--context is {context}; for {subject.name} it is at least {least}.", context=context)
    found: list[Tokens] = []
    left = tokens
    for spec in corpus:
        source, limit = limited(spec)
        most = min(limit, left) if limit is not None and left is not None else limit if left is None else left
        if most is not None and most < SHORTEST:
            break
        texts = _plain(documents(source, packages), subject, chat=chat)
        new = list(cut(texts, subject.encode, bos_id=subject.bos_id, context=context, tokens=most))
        found += new
        if left is not None:
            left -= sum(len(s.token_ids) - (subject.bos_id is not None) for s in new)
    if not found:
        raise CorpusUnavailable(f"The corpus ({', '.join(corpus)}) holds no text of at least {SHORTEST} tokens.")
    return found


def limited(spec: str) -> tuple[str, int | None]:
    """``pkg:brown@1000`` -> (``pkg:brown``, 1000)."""
    source, _, limit = spec.partition("@")
    if limit and not limit.isdigit():
        raise BadRequest(f"{spec!r}: what follows '@' is a number of tokens.", corpus=spec)
    return source, int(limit) if limit else None


def _plain(found: Iterator[Document], subject: Subject, *, chat: bool) -> Iterator[Document]:
    for document in found:
        told = as_chat(document) if chat else document
        if told.messages is None:
            yield document
            continue
        try:
            yield Document(document.name, rendered(told, subject.tokenizer))
        except CorpusUnavailable:  # the template refuses this one
            continue
