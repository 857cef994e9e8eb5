"""A chat completion as the endpoint sent it, read strictly: what is no whole answer is a failure of a known kind."""

import json
import re
from typing import Any, NamedTuple

from app.explain.failures import Failed, Failure
from app.explain.prices import Usage

_THOUGHT = re.compile(r"^\s*<think>.*?(</think>|\Z)", re.DOTALL)


class Likely(NamedTuple):
    """A token of the answer and what else was likely there: log-probabilities in nats by token."""

    token: str
    others: dict[str, float]


class Reply(NamedTuple):
    """``tokens``: with their alternatives, where the endpoint told them; they may hold more than ``text``."""

    text: str
    tokens: list[Likely] | None


def parsed(body: str) -> dict[str, Any]:
    """
    Raises:
        Failed: it is no JSON object.
    """
    try:
        found = json.loads(body)
    except ValueError:
        raise Failed(Failure.unreadable, "the response is no whole JSON") from None
    if not isinstance(found, dict):
        raise Failed(Failure.unreadable, "the response is no JSON object")
    return found


def usage_of(body: str) -> Usage | None:
    try:
        usage = parsed(body)["usage"]
        cost = usage.get("cost")
        given = float(cost) if isinstance(cost, int | float) and cost >= 0 else None
        return Usage(int(usage["prompt_tokens"]), int(usage["completion_tokens"]), given)
    except (Failed, KeyError, TypeError, ValueError, AttributeError):
        return None


def read_reply(body: str) -> Reply:
    """
    Raises:
        Failed: no choices, nothing in it, cut short, filtered, or not of the form of a chat completion.
    """
    choices = parsed(body).get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise Failed(Failure.no_choices)
    choice = choices[0]
    message = choice.get("message")
    message = message if isinstance(message, dict) else {}
    if choice.get("finish_reason") == "content_filter" or message.get("refusal"):
        raise Failed(Failure.filtered)
    if choice.get("finish_reason") == "length":
        raise Failed(Failure.cut_short)
    content = message.get("content")
    text = _THOUGHT.sub("", content).strip() if isinstance(content, str) else ""
    if not text:
        raise Failed(Failure.empty)
    return Reply(text, _likely(choice.get("logprobs")))


def _likely(given: Any) -> list[Likely] | None:
    try:
        return [
            Likely(
                str(one["token"]),
                {str(other["token"]): float(other["logprob"]) for other in one.get("top_logprobs") or [one]},
            )
            for one in given["content"]
        ] or None
    except (KeyError, TypeError, ValueError, AttributeError):
        return None
