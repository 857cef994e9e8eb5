"""Rules: explanations that a machine can run on text."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from app.explain.samples import Floats, Ints

NOTHING = -1  # the token before a text's first


@dataclass(frozen=True)
class Pattern:
    """Tokens at places around the one in question (offset 0), and how likely the latent fires there."""

    offsets: tuple[int, ...]
    token_ids: tuple[int, ...]
    p: float

    def matches(self, token_ids: Ints) -> Ints:
        """[w] bool"""
        found = np.ones(len(token_ids), bool)
        for offset, token in zip(self.offsets, self.token_ids, strict=True):
            found &= _moved(token_ids, offset) == token
        return found


@dataclass(frozen=True)
class Rule:
    """Fires where one of ``patterns`` is; ``base`` is how likely the latent fires anywhere."""

    patterns: tuple[Pattern, ...]
    base: float

    def probability(self, token_ids: Ints) -> Floats:
        """[w]: of the likeliest pattern there, ``base`` where none is. token_ids: the whole text up to there."""
        out = np.full(len(token_ids), self.base, np.float32)
        for pattern in self.patterns:
            matched = pattern.matches(token_ids)
            out[matched] = np.maximum(out[matched], np.float32(pattern.p))
        return out

    def fires(self, token_ids: Ints) -> Ints:
        """[w] bool"""
        found = np.zeros(len(token_ids), bool)
        for pattern in self.patterns:
            found |= pattern.matches(token_ids)
        return found

    def to_json(self) -> dict[str, Any]:
        patterns = [
            {"offsets": list(one.offsets), "tokens": list(one.token_ids), "p": round(one.p, 4)} for one in self.patterns
        ]
        return {"kind": "patterns", "patterns": patterns, "base": round(self.base, 8)}


@dataclass(frozen=True)
class Topic:
    """Fires in windows whose words weigh at least ``least``. words: (text, its token ids, weight)."""

    words: tuple[tuple[str, tuple[int, ...], float], ...]
    least: float
    p: float
    base: float

    def weight(self, token_ids: Ints) -> float:
        return sum(weight for _, ids, weight in self.words if np.isin(token_ids, ids).any())

    def probability(self, token_ids: Ints) -> Floats:
        """[w], the same for all of the window."""
        return np.full(len(token_ids), self.p if self.weight(token_ids) >= self.least else self.base, np.float32)

    def fires(self, token_ids: Ints) -> Ints:
        """[w] bool"""
        return np.full(len(token_ids), self.weight(token_ids) >= self.least)

    def to_json(self) -> dict[str, Any]:
        words = [{"text": text, "tokens": list(ids), "weight": round(weight, 4)} for text, ids, weight in self.words]
        return {
            "kind": "topic", "words": words, "least": round(self.least, 4), "p": round(self.p, 4),
            "base": round(self.base, 8),
        }  # fmt: skip


def rule_from_json(told: dict[str, Any]) -> Rule | Topic:
    """
    Raises:
        ValueError: it is no rule.
    """
    match told.get("kind"):
        case "patterns":
            patterns = (Pattern(tuple(one["offsets"]), tuple(one["tokens"]), one["p"]) for one in told["patterns"])
            return Rule(tuple(patterns), told["base"])
        case "topic":
            words = ((one["text"], tuple(one["tokens"]), one["weight"]) for one in told["words"])
            return Topic(tuple(words), told["least"], told["p"], told["base"])
    raise ValueError(f"a rule's kind is patterns or topic, not {told.get('kind')!r}")


def _moved(token_ids: Sequence[int] | Ints, offset: int) -> Ints:
    """[w]: the token ``offset`` places on from each."""
    ids = np.asarray(token_ids)
    out = np.full(len(ids), NOTHING, ids.dtype)
    if offset < 0:
        out[-offset:] = ids[:offset]
    elif offset > 0:
        out[:-offset] = ids[offset:]
    else:
        out[:] = ids
    return out
