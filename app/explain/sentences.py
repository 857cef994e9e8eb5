"""Rules in words: a sentence that says all of a rule, and a label that says the most of it."""

from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

from app.explain.rules import NOTHING, Pattern, Topic
from app.harvest.labels import START, shown_token

IN_LABEL = 3
STEM = 4  # letters, from which on an ending makes another form of a word
ENDINGS = frozenset(("s", "es", "d", "ed", "n", "r", "er", "ly", "al", "ing", "'s"))


class Words(NamedTuple):
    """text: a sentence; label: short, for cards."""

    text: str
    label: str


class Teller:
    """Tells rules. text: of a token id; starts: ids that begin a sequence."""

    def __init__(self, text: Callable[[int], str], starts: Sequence[int]) -> None:
        self._text, self._starts = text, {NOTHING, *starts}

    def patterns(self, patterns: Sequence[Pattern], lead: Collection[int] = ()) -> Words:
        """``patterns``: what says most first; lead: tokens of which one that a pattern is on begins the label."""
        names: list[str] = []
        on: list[str] = []
        after: list[str] = []
        far: list[str] = []
        start: list[str] = []
        phrases: dict[str, list[tuple[int, str]]] = {}
        for one in patterns:
            if one.token_ids[0] in self._starts and min(one.offsets) < 0:
                name = START if one.offsets == (-1,) else f"{START}: {self._phrase(one.token_ids[1:])}"
                start.append(name if one.offsets != (-1,) else START)
            elif one.offsets == (0,):
                on.append(name := self._token(one.token_ids[0]))
            elif one.offsets == (-1,):
                name = f"after {self._token(one.token_ids[0])}"
                after.append(self._token(one.token_ids[0]))
            elif one.offsets == (-2, 0):
                name = f"{self._token(one.token_ids[0])} … {self._token(one.token_ids[1])}"
                far.append(name)
            else:
                name = self._phrase(one.token_ids)
                phrases.setdefault(self._phrase(one.token_ids[:-1]), []).append((one.token_ids[-1], name))
            names.append(name)
        first = next((n for n, one in enumerate(patterns) if one.offsets[-1] == 0 and one.token_ids[-1] in lead), None)
        if first:
            names.insert(0, names.pop(first))
        parts = [f"on {_quoted(_once(on))}"] if on else []
        whole = []
        for left, ends in phrases.items():
            if len(ends) > 1 and all(self._text(last)[:1] == " " for last, _ in ends):
                parts.append(f"after “{left}”: {_quoted(_once([self._token(last) for last, _ in ends]))}")
            else:
                whole += [name for _, name in ends]
        parts += [f"at the end of {_quoted(_once(whole))}"] if whole else []
        parts += [f"on the last word of {_quoted(_once(far))}"] if far else []
        parts += [f"on what comes after {_quoted(_once(after))}"] if after else []
        parts += [f"at the {one}" if one == START else f"at the {START}, on {_quoted([one.removeprefix(START + ': ')])}"
                  for one in dict.fromkeys(start)]  # fmt: skip
        if START in names:  # what else stands at the start is no news
            names = [name for name in names if not name.startswith(f"{START}: ")]
        whole_ones = [name for name in names if "\\x" not in name] or names
        return Words("fires " + "; ".join(parts), _label(whole_ones))

    def topic(self, rule: Topic) -> Words:
        words = [text for text, _, _ in rule.words]
        return Words(f"fires in passages with {_quoted(words)}", "passages with " + ", ".join(words[:IN_LABEL]))

    def promoted(self, token_ids: Sequence[int], reading: str) -> Words:
        names = _once([shown_token(self._text(one)) for one in token_ids])
        told = f"promotes {_quoted(names)}"
        how = {"here": "fires on them", "next": "fires before them"}.get(reading)
        return Words(f"{told}; {how}" if how else told, "promotes " + _label(names))

    def _token(self, token_id: int) -> str:
        text = self._text(token_id)
        shown = shown_token(text)
        return f"-{shown}" if text[:1].isalpha() and text[:1].islower() else shown

    def _phrase(self, token_ids: Sequence[int]) -> str:
        text = "".join(self._text(one) for one in token_ids)
        shown = shown_token(" ".join(text.split()) or text)
        return f"-{shown}" if text[:1].isalpha() and text[:1].islower() else shown


def _label(names: Sequence[str]) -> str:
    """The first names that say something new, those without a letter or digit at an end in quotes."""
    chosen: list[str] = []
    for name in names:
        if not any(_says(one, name) for one in chosen):
            chosen.append(name)
        if len(chosen) == IN_LABEL:
            break
    return ", ".join(name if _plain(name) else f"“{name}”" for name in chosen)


def _says(one: str, other: str) -> bool:
    """Whether ``other`` adds nothing: it holds ``one`` as a word, or is another form of it (river, rivers)."""
    a, b = one.casefold().strip("-"), other.casefold().strip("-")
    if not a or not b:
        return one == other
    if a == b or a in b.split():
        return True
    short, long = sorted((a, b), key=len)
    return len(short) >= STEM and long.startswith(short) and long[len(short) :] in ENDINGS


def _plain(name: str) -> bool:
    ends = name.strip("-")
    if len(ends) > 2 and ends[0] == "(" and ends[-1] == ")":  # (line break)
        return True
    return bool(ends) and ends[0].isalnum() and (ends[-1].isalnum() or ends[-1] in ")…")


def _once(names: list[str]) -> list[str]:
    """Each once whatever its case, the first as it stands."""
    seen: dict[str, str] = {}
    for name in names:
        seen.setdefault(name.casefold(), name)
    return list(seen.values())


def _quoted(names: list[str]) -> str:
    return ", ".join(f"“{name}”" for name in names)
