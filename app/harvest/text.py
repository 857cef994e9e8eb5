"""From a corpus's spec to sequences of the subject's tokens, read ahead of the harvest."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from app.corpus.chat import as_chat, rendered
from app.corpus.document import corpus_name
from app.corpus.scratch import scratch
from app.corpus.sequences import SHORTEST, Sequence, cut
from app.corpus.sources import Document, Skipped, documents
from app.corpus.store import TokenStore
from app.errors import BadRequest, CorpusUnavailable
from app.subject.load import Subject


@dataclass(frozen=True)
class Text:
    """What to read: a corpus spec, at most ``tokens`` tokens of it, in sequences of at most ``context``. ``pack`` puts
    documents one after another; ``chat`` makes plain documents into a user's message in the subject's template;
    ``prepend_bos`` is the SAE's policy."""

    spec: str
    context: int
    tokens: int | None = None
    prepend_bos: bool = True
    pack: bool = False
    chat: bool = False

    @property
    def name(self) -> str:
        """What the corpus is called in pages."""
        return corpus_name(self.spec, chat=self.chat, pack=self.pack)


@contextmanager
def sequences(text: Text, subject: Subject, home: Path, skipped: Skipped) -> Iterator[TokenStore]:
    """The corpus, its first sequences readable while the later ones are still tokenised. Documents that cannot be
    read are added to ``skipped``.

    Raises:
        BadRequest: sequences longer than the subject reads or shorter than is kept, or packed though it has no token
            to stand between them.
        CorpusUnavailable (when read): no text is long enough.
    """
    if text.context > subject.max_context:
        raise BadRequest(f"--context is {text.context:,}; {subject.name} reads at most {subject.max_context:,} tokens.")
    bos_id = subject.bos_id if text.prepend_bos else None
    least = SHORTEST + (bos_id is not None)
    if text.context < least:
        why = f": BOS, and {SHORTEST} tokens of text" if bos_id is not None else ""
        raise BadRequest(f"--context is {text.context}; for {subject.name} it is at least {least}{why}.")
    separator = subject.separator_id if text.pack else None
    if text.pack and separator is None:
        raise BadRequest(f"{subject.name} has neither EOS nor BOS to stand between packed documents; leave --pack out.")

    def read() -> Iterator[Sequence]:
        found = _readable(documents(text.spec, home / "packages", skipped), text, subject, skipped)
        empty = True
        for sequence in cut(
            found, subject.encode, bos_id=bos_id, context=text.context, tokens=text.tokens, separator=separator
        ):
            empty = False
            yield sequence
        if empty:
            remedy = "give more text" if text.pack else "give longer documents, or put short ones together with --pack"
            raise CorpusUnavailable(f"{text.name} holds no text of {SHORTEST} tokens; {remedy}.", corpus=text.spec)

    with scratch(home / "work", "tokens") as folder, TokenStore(folder) as store:
        store.fill(read)
        yield store


def _readable(found: Iterator[Document], text: Text, subject: Subject, skipped: Skipped) -> Iterator[Document]:
    """Documents as plain text, chats through the subject's template."""
    for document in found:
        chat = as_chat(document) if text.chat else document
        if chat.messages is None:
            yield document
            continue
        try:
            yield Document(document.name, rendered(chat, subject.tokenizer))
        except CorpusUnavailable as error:
            skipped.add(document.name, error.message)
