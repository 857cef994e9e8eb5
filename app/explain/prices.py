"""What a request costs, and the most it can cost before it is sent."""

import json
from dataclasses import dataclass
from typing import Any

from app.errors import BadRequest

OVERHEAD = 64  # tokens a chat template and a role take, a message
BYTES_PER_TOKEN = 3.6  # of English prose and JSON, for estimates only


@dataclass(frozen=True)
class Usage:
    """Tokens as the endpoint counts them; ``cost``: in USD, where it says so itself."""

    prompt: int
    completion: int
    cost: float | None = None


@dataclass(frozen=True)
class Price:
    """USD for a million tokens, and where that is known from: ``given`` on the command line, ``endpoint`` (its list of
    models), ``local`` (this machine, 0) or ``unknown``."""

    prompt: float
    completion: float
    source: str

    @property
    def known(self) -> bool:
        return self.source != "unknown"

    def of(self, usage: Usage) -> float:
        return (usage.prompt * self.prompt + usage.completion * self.completion) / 1e6

    def worst(self, messages: list[dict[str, str]], params: dict[str, Any], max_tokens: int) -> float:
        """No token is shorter than a byte, so this is never passed."""
        return self.of(Usage(most_tokens(messages, params), max_tokens))


UNKNOWN = Price(0.0, 0.0, "unknown")
LOCAL = Price(0.0, 0.0, "local")


def most_tokens(messages: list[dict[str, str]], params: dict[str, Any]) -> int:
    """The prompt's tokens at most; a schema is part of it."""
    sent = [message["content"] for message in messages]
    if "response_format" in params:
        sent.append(json.dumps(params["response_format"]))
    return sum(len(text.encode()) + OVERHEAD for text in sent)


def likely_tokens(messages: list[dict[str, str]]) -> int:
    """The prompt's tokens, about."""
    return sum(int(len(message["content"].encode()) / BYTES_PER_TOKEN) + 8 for message in messages)


def cost(usage: Usage | None, price: Price, worst: float) -> tuple[float | None, str]:
    """USD, and by what: the endpoint's own word, the price times its count of tokens, or the worst case where it counts
    none. None where no price is known."""
    if usage is not None and usage.cost is not None:
        return usage.cost, "endpoint"
    if not price.known:
        return None, "unknown"
    return (worst, f"{price.source}, worst case") if usage is None else (price.of(usage), price.source)


def listed(models: dict[str, Any], model: str) -> Price | None:
    """The price in an endpoint's list of models, where it has one (``pricing`` in USD a token)."""
    for entry in models.get("data") or []:
        if not isinstance(entry, dict) or entry.get("id") != model:
            continue
        try:
            prompt, completion = (float(entry["pricing"][name]) * 1e6 for name in ("prompt", "completion"))
        except (KeyError, TypeError, ValueError):
            return None
        return Price(prompt, completion, "endpoint") if min(prompt, completion) >= 0 else None
    return None


def chosen(given: tuple[float | None, float | None], local: bool, told: Price | None) -> Price:
    """The price to reckon with.

    Raises:
        BadRequest: only one of the two is given.
    """
    prompt, completion = given
    if (prompt is None) != (completion is None):
        raise BadRequest("--price-in and --price-out go together: USD for a million tokens of prompt and of answer.")
    if prompt is not None and completion is not None:
        return Price(prompt, completion, "given")
    return told or (LOCAL if local else UNKNOWN)
