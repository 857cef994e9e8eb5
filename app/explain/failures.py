"""How a request to a language model can fail though the endpoint is there: each is counted, none becomes an answer."""

from enum import StrEnum


class Failure(StrEnum):
    no_choices = "no_choices"
    empty = "empty"
    cut_short = "cut_short"  # finish_reason is length
    filtered = "filtered"
    unreadable = "unreadable"  # no JSON, or not of the form asked for
    wrong_indices = "wrong_indices"
    no_marker = "no_marker"
    too_long = "too_long"  # more than the model's context
    refused = "refused"  # 400 or 422 for another reason
    unavailable = "unavailable"  # no answer in six attempts


class Failed(Exception):
    """What was asked stays unanswered."""

    def __init__(self, kind: Failure, told: str = "") -> None:
        super().__init__(f"{kind}: {told}" if told else str(kind))
        self.kind, self.told = kind, told
