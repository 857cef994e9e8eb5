"""The label a latent has before anything has explained it."""

import re
from collections import Counter


def vocabulary_label(promoted: list[str], most: int = 3) -> str:
    """``promotes Paris, London, Rome``: the promoted tokens, trimmed, each once whatever its case."""
    seen: dict[str, str] = {}
    for token in promoted:
        shown = shown_token(token)
        seen.setdefault(shown.casefold(), shown)
    return "promotes " + ", ".join(list(seen.values())[:most])


START = "start of a text"
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_SPACE = {" ": "(space)", "\n": "(line break)", "\n\n": "(paragraph break)", "\t": "(tab)"}


def shown_token(token: str) -> str:
    """A token as a label shows it: trimmed, control characters as ``\\x00``, and by name where nothing but space is
    left."""
    shown = _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", token.strip())
    return shown or _SPACE.get(token) or ("(line breaks)" if "\n" in token else "(spaces)")


def peak_label(tokens: list[str], most: int = 3) -> str:
    """``own, its``: the tokens on which the top contexts peak, the most frequent first, whatever their case.

    Tokens that are only part of a character are left out where there are others. Once a token holds half of the
    peaks, those that peak only once are left out. Empty for a dead latent.
    """
    tokens = [t for t in tokens if "\\x" not in t] or tokens
    shown: dict[str, str] = {}
    counts: Counter[str] = Counter()
    for token in tokens:
        text = shown_token(token)
        shown.setdefault(text.casefold(), text)
        counts[text.casefold()] += 1
    ranked = counts.most_common(most)
    if ranked and 2 * ranked[0][1] >= len(tokens):
        ranked = [ranked[0], *((text, count) for text, count in ranked[1:] if count > 1)]
    return ", ".join(shown[text] for text, _ in ranked)
