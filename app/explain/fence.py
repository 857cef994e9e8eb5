"""Corpus text inside a prompt: on one line, without anything that means something to the prompt or to the reader of the
answer, its marked tokens between ``<<`` and ``>>``."""

import re
from collections.abc import Sequence

MARKER = "EXPLANATION:"
OPEN, CLOSE = "<<", ">>"
LONGEST = 300  # characters of an explanation

# The marker, the highlights, the fences, and what chat templates put between turns.
_MEANT = re.compile(
    r"explanation\s*:|<{2,}|>{2,}|\[/?text[^\]\n]{0,8}\]|<\|[^|<>\s]{1,40}\|>|</?s>|\[/?INST\]|</?think>|"
    r"<(?:start|end)_of_turn>",
    re.IGNORECASE,
)
_BREAKS = str.maketrans(dict.fromkeys("\n\r\u2028\u2029\v\f", "↵"))


def shown(pieces: Sequence[str], marked: Sequence[bool] | None = None) -> str:
    """The text of ``pieces``, one a token, with those that are ``marked`` highlighted; neighbours share a highlight."""
    text = "".join(pieces).translate(_BREAKS)
    marks: list[bool] = []
    for piece, mark in zip(pieces, marked or [False] * len(pieces), strict=True):
        marks += [mark] * len(piece)
    kept = [(c if c.isprintable() else " ", mark) for c, mark in zip(text, marks, strict=True)]
    while found := list(_MEANT.finditer("".join(c for c, _ in kept))):  # what is left may come together anew
        for one in reversed(found):
            del kept[one.start() : one.end()]
    out, inside = [], False
    for c, mark in kept:
        if mark != inside:
            out.append(OPEN if mark else CLOSE)
            inside = mark
        out.append(c)
    return "".join([*out, CLOSE if inside else ""])


def fenced(number: int, text: str) -> str:
    return f"[text {number}] {text.strip()} [/text]"


def tidy(text: str) -> str:
    """An explanation as it is kept: one line without markup, cut at a word."""
    line = " ".join(shown([text]).replace("↵", " ").split()).strip("\"'*` ")
    if len(line) <= LONGEST:
        return line
    return line[: LONGEST - 1].rsplit(" ", 1)[0].rstrip(",;: ") + "…"


def after_marker(text: str) -> str | None:
    """What follows the last marker, to the end of its line; None where there is none or nothing follows."""
    _, found, rest = text.rpartition(MARKER)
    lines = rest.strip().splitlines()
    return tidy(lines[0]) or None if found and lines else None
