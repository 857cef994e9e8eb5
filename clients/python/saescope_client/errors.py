"""What can go wrong."""

from typing import Any


class Refused(Exception):
    """The server answered with a refusal. ``code`` stays the same over versions; ``retry_after`` is in seconds."""

    def __init__(self, status: int, code: str, message: str, detail: dict[str, Any], retry_after: float | None) -> None:
        super().__init__(f"{status} {code} - {message}")
        self.status, self.code, self.message, self.detail, self.retry_after = status, code, message, detail, retry_after


class Unreachable(Exception):
    """There is no server there, or it broke off."""
