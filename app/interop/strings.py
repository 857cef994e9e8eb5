"""Tokens as other tools write them, as text, back to the ids of a tokenizer.

Files write a token's own text, or its name in the vocabulary as SAEDashboard changes it (a space for Ġ and so on); of a
byte-level tokenizer the two differ for all that is not ASCII, and the same text may mean another token in either. Which
of the two a file does is told by which of them fits more of it. Where a text stands for several tokens, the context is
tokenised anew; if that gives other tokens, its ids are not known.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Literal

from app.subject.tokens import Vocabulary

Way = Literal["texts", "names"]
# What SAEDashboard 0.7 replaces in names, in this order.
CHANGED = {
    "âĢĶ": "—", "âĢĵ": "–", "âĢľ": "“", "âĢĿ": "”", "âĢĺ": "‘", "âĢĻ": "’", "âĢĭ": " ", "Ġ": " ", "Ċ": "\n",
    "ĉ": "\t",
}  # fmt: skip


class Strings:
    """A tokenizer's tokens by what files call them."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._vocabulary = Vocabulary.of(tokenizer)
        self._texts: dict[str, list[int]] = {}
        self._names: dict[str, list[int]] = {}
        for name, number in tokenizer.get_vocab().items():
            self._texts.setdefault(self._vocabulary.text(number), []).append(number)
            changed = name
            for old, new in CHANGED.items():
                changed = changed.replace(old, new)
            for form in {name, changed, changed.replace("▁", " ")}:
                self._names.setdefault(form, []).append(number)

    def way(self, contexts: Iterable[Sequence[str]]) -> Way:
        """How these contexts, some of a file's, are written; where both fit as well, names, as SAEDashboard writes."""
        fits = {"texts": 0, "names": 0}
        for tokens in contexts:
            fits["texts"] += all(token in self._texts for token in tokens)
            fits["names"] += all(token in self._names for token in tokens)
        return "texts" if fits["texts"] > fits["names"] else "names"

    def ids(self, tokens: Sequence[str], way: Way) -> list[int] | None:
        """The ids of a context, or None where they are not known for sure."""
        known = self._texts if way == "texts" else self._names
        choices = [known.get(token, []) for token in tokens]
        if not all(choices):
            return None
        first = [choice[0] for choice in choices]
        if all(len(choice) == 1 for choice in choices):
            return first
        text = b"".join(map(self._vocabulary.bytes_of, first)).decode(errors="replace")
        again = self._tokenizer.encode(text, add_special_tokens=False)
        if len(again) == len(choices) and all(i in choice for i, choice in zip(again, choices, strict=True)):
            return [int(i) for i in again]
        return None
