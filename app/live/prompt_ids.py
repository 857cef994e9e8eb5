"""A prompt's tokens."""

from app.corpus.chat import as_chat, rendered
from app.corpus.document import Document
from app.errors import EmptyText, TextTooLong
from app.subject.load import Subject


def prompt_ids(subject: Subject, text: str, *, chat: bool, reply: bool, limit: int) -> list[int]:
    """The ids of ``text``, BOS included. ``chat``: in the subject's chat template, as a user's message; ``reply``: its
    answer is to follow. ``limit``: the most tokens, beside the subject's own limit.

    Raises:
        EmptyText, TextTooLong: with the limit and what was given.
        BadRequest: there is no chat template.
    """
    if not text.strip():
        raise EmptyText("There is no text; give at least one word.")
    if chat:
        text = rendered(as_chat(Document("the text", text)), subject.tokenizer, reply=reply)
    ids = subject.encode(text)
    if chat and ids[:1] == [subject.bos_id]:  # some templates write it themselves
        del ids[0]
    bos = [subject.bos_id] if subject.bos_id is not None else []
    limit = min(limit, subject.max_context)
    if len(ids) + len(bos) > limit:
        raise TextTooLong(
            f"The text has {len(ids):,} tokens; the limit is {limit - len(bos):,}.",
            tokens=len(ids),
            limit=limit - len(bos),
        )
    return bos + ids
