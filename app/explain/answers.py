"""Answers to numbered questions: ``{"answers": [{"i": 0, "active": true}, ...]}``, each question once."""

import json
import math
import re
from typing import Any

from app.explain.failures import Failed, Failure
from app.explain.reply import Likely, Reply

_FENCE = re.compile(r"^```[a-z]*\s*|\s*```$")
_TOLD = re.compile(r'"active"\s*:\s*(true|false)')


def read_answers(text: str, n: int, name: str, kind: type) -> list[Any]:
    """The values ``name`` of the questions 0 to n - 1, each of the type ``kind``.

    Raises:
        Failed: no such JSON, or the questions answered are not just those asked.
    """
    text = _FENCE.sub("", text.strip())
    first, last = text.find("{"), text.rfind("}")
    try:
        given = json.loads(text[first : last + 1])["answers"]
        pairs = [(one["i"], one[name]) for one in given]
    except (ValueError, KeyError, TypeError):
        raise Failed(Failure.unreadable, 'no JSON of the form {"answers": [...]}') from None
    if any(type(i) is not int or type(value) is not kind for i, value in pairs):
        raise Failed(Failure.unreadable, f"an answer is no {kind.__name__}")
    if sorted(i for i, _ in pairs) != list(range(n)):
        raise Failed(Failure.wrong_indices, f"answered {[i for i, _ in pairs][:20]}, asked 0 to {n - 1}")
    found = dict(pairs)
    return [found[i] for i in range(n)]


def read_verdicts(reply: Reply, n: int) -> tuple[list[bool], list[float] | None]:
    """What each text was said to be, and its probability of being active where the endpoint told log-probabilities.

    Raises:
        Failed: see ``read_answers``.
    """
    said = read_answers(reply.text, n, "active", bool)
    order = [one["i"] for one in json.loads(reply.text[reply.text.find("{") : reply.text.rfind("}") + 1])["answers"]]
    told = None if reply.tokens is None else _probabilities(reply.tokens, [said[i] for i in order])
    if told is None:
        return said, None
    found = dict(zip(order, told, strict=True))
    return said, [found[i] for i in range(n)]


def _probabilities(tokens: list[Likely], said: list[bool]) -> list[float] | None:
    """p(true) / (p(true) + p(false)) at each value in turn; None where tokens and values do not fit together."""
    text, starts = "", []
    for one in tokens:
        starts.append(len(text))
        text += one.token
    values = list(_TOLD.finditer(text))
    if [value[1] == "true" for value in values] != said:
        return None
    out = []
    for value in values:
        at = max(i for i, start in enumerate(starts) if start <= value.start(1))
        before = text[starts[at] : value.start(1)]
        mass = {"true": 0.0, "false": 0.0}
        for token, logprob in tokens[at].others.items():
            rest = token[len(before) :].strip() if token.startswith(before) else token.strip()
            for word in mass:
                if rest and word.startswith(rest.lower()[: len(word)]):
                    mass[word] += math.exp(logprob)
        total = sum(mass.values())
        if total == 0.0:
            return None
        out.append(mass["true"] / total)
    return out
