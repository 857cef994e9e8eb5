"""What another server said of itself, for a few minutes."""

import time
from collections.abc import Callable
from threading import Lock
from typing import Any

from app.errors import LoginRefused

KEPT_S, REFUSED_S = 300.0, 10.0


class Answers:
    """By URL; one thread asks at a time, and that nothing came is remembered too, so that those who wait do not each
    ask a server that is slow or gone."""

    def __init__(self, ask: Callable[[str], dict[str, Any]], clock: Callable[[], float] = time.monotonic) -> None:
        self._ask, self._clock, self._lock = ask, clock, Lock()
        self._known: dict[str, tuple[float, dict[str, Any] | str]] = {}

    def get(self, url: str) -> dict[str, Any]:
        """
        Raises:
            LoginRefused: it does not answer, or did not a moment ago.
        """
        with self._lock:
            until, said = self._known.get(url, (0.0, ""))
            if until <= self._clock():
                try:
                    said = self._ask(url)
                except LoginRefused as error:
                    said = error.message
                kept = REFUSED_S if isinstance(said, str) else KEPT_S
                self._known[url] = self._clock() + kept, said
        if isinstance(said, str):
            raise LoginRefused(said)
        return said

    def forget(self) -> None:
        self._known.clear()
