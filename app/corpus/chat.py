"""Chats as the text that a subject reads."""

from typing import Any

from app.corpus.document import Document
from app.errors import BadRequest, CorpusUnavailable


def as_chat(document: Document) -> Document:
    """A plain document as a chat of one user message; a chat as it is."""
    if document.messages is not None:
        return document
    return Document(document.name, "", ({"role": "user", "content": document.text},))


def rendered(document: Document, tokenizer: Any, *, reply: bool = False) -> str:
    """The document's text; of a chat, what the tokenizer's template makes of it, its special tokens written out;
    ``reply`` adds how an answer begins.

    Raises:
        BadRequest: the tokenizer has no chat template.
        CorpusUnavailable: the template refuses this chat, such as two messages of one role in a row.
    """
    if document.messages is None:
        return document.text
    if not tokenizer.chat_template:
        raise BadRequest(
            "The subject's tokenizer has no chat template; give plain text, or a subject that was trained on chats."
        )
    try:
        return str(tokenizer.apply_chat_template([*document.messages], tokenize=False, add_generation_prompt=reply))
    except Exception as error:  # a template is a program of its own and raises what it likes
        reason = str(error).partition("\n")[0].rstrip(".") or type(error).__name__
        raise CorpusUnavailable(
            f"The chat template refuses the chat {document.name!r}: {reason}.", document=document.name
        ) from None
