"""Texts with small faults: what is said stays, how it is written changes."""

import random
import re
from typing import Literal, get_args

Fault = Literal["typos", "case", "whitespace"]
FAULTS: tuple[Fault, ...] = get_args(Fault)
_WORD, _GAP = re.compile(r"[^\W\d_]{4,}"), re.compile(r" +")


def perturbed(text: str, fault: Fault, level: float, seed: int) -> str:
    """``text`` with the share ``level`` of its words of four letters or more misspelt (two neighbouring letters after
    the first exchanged, or one left out or doubled), of the same words in the other case, or of its gaps doubled."""
    pattern = _GAP if fault == "whitespace" else _WORD
    found = list(pattern.finditer(text))
    rng = random.Random(f"{seed} {fault} {level}")
    chosen = sorted(rng.sample(range(len(found)), round(level * len(found))))
    out, last = [], 0
    for number in chosen:
        one = found[number]
        out += [text[last : one.start()], _faulty(one[0], fault, rng)]
        last = one.end()
    return "".join([*out, text[last:]])


def _faulty(word: str, fault: Fault, rng: random.Random) -> str:
    match fault:
        case "case":
            return word.swapcase()
        case "whitespace":
            return word * 2
        case "typos":
            at = rng.randrange(1, len(word) - 1)
            left_out, doubled = word[:at] + word[at + 1 :], word[:at] + word[at] + word[at:]
            exchanged = word[:at] + word[at + 1] + word[at] + word[at + 2 :]
            return rng.choice([one for one in (exchanged, left_out, doubled) if one != word])
