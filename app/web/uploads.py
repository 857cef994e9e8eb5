"""How much one account may send: what is larger than a form counts."""

import math
import time
from collections.abc import Callable

from app.errors import QuotaReached

SMALL = 64 << 10  # bytes that cost nothing
DAY = 86400.0


class Uploads:
    """``most`` bytes a day for each account, which come back as the day goes by; kept in memory."""

    def __init__(self, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._most, self._clock = most, clock
        self._sent: dict[int, tuple[float, float]] = {}  # bytes, as of when

    def charge(self, account: int, size: int) -> None:
        """
        Raises:
            QuotaReached: with these bytes it would be more than a day's; they count only where they are taken.
        """
        if size <= SMALL:
            return
        before, at = self._sent.get(account, (0.0, self._clock()))
        now = self._clock()
        sent = max(0.0, before - (now - at) * self._most / DAY)
        over = sent + size - self._most
        if over > 0:
            told = {"retry_after": math.ceil(over * DAY / self._most)} if size <= self._most else {}
            raise QuotaReached(
                f"An account may send {self._most / 1e6:,.0f} MB a day, and yours has; try again later.", **told
            )
        self._sent[account] = sent + size, now
