"""What an examination finds: one sentence, and what to do about it."""

from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "note", "fault"]


@dataclass(frozen=True)
class Finding:
    """``note`` is worth knowing and keeps nothing from working; ``remedy`` is one sentence, empty where all is well."""

    what: str
    state: State
    told: str
    remedy: str = ""


def fine(what: str, told: str) -> Finding:
    return Finding(what, "ok", told)


def note(what: str, told: str, remedy: str = "") -> Finding:
    return Finding(what, "note", told, remedy)


def fault(what: str, told: str, remedy: str) -> Finding:
    return Finding(what, "fault", told, remedy)
