"""When to send: how many requests at once, and how long to wait before the next attempt."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

ATTEMPTS = 6
LONGEST_ASKED = 120.0  # seconds of a Retry-After that are waited
LONGEST = 60.0
AT_ONCE = 16
RAISED_AFTER = 50  # successes


class Clock:
    """Time as it passes; tests have one of their own."""

    def now(self) -> float:
        """Seconds that only grow."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


def asked_wait(headers: Mapping[str, str], today: datetime | None = None) -> float | None:
    """Seconds that Retry-After (or retry-after-ms) asks for, at most LONGEST_ASKED; None where there is none."""
    try:
        if (ms := headers.get("retry-after-ms")) is not None:
            return min(max(float(ms) / 1000, 0.0), LONGEST_ASKED)
        given = headers.get("retry-after")
        if given is None:
            return None
        try:
            seconds = float(given)
        except ValueError:
            seconds = (parsedate_to_datetime(given) - (today or datetime.now(UTC))).total_seconds()
        return min(max(seconds, 0.0), LONGEST_ASKED)
    except (ValueError, TypeError):  # neither a number nor a date
        return None


def jittered(attempt: int, rng: random.Random) -> float:
    """Seconds before the attempt after the ``attempt``-th (from 1): full jitter between 1 and 2^attempt, at most 60
    (Brooker 2015, "Exponential Backoff And Jitter")."""
    return rng.uniform(1.0, min(LONGEST, 2.0**attempt))


class Pace:
    """How many requests are under way: ``most`` at first and at most, half after a crowded answer, one more after every
    50 good ones. A wait that an endpoint asks for holds everybody."""

    def __init__(self, most: int = AT_ONCE, clock: Clock | None = None) -> None:
        self.most = self.limit = most
        self.under_way = 0
        self._clock = clock or Clock()
        self._good = 0
        self._not_before = 0.0
        self._changed = asyncio.Condition()

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """A place among those under way."""
        async with self._changed:
            await self._changed.wait_for(lambda: self.under_way < self.limit)
            self.under_way += 1
        try:
            while (wait := self._not_before - self._clock.now()) > 0:
                await self._clock.sleep(wait)
            yield
        finally:
            async with self._changed:
                self.under_way -= 1
                self._changed.notify_all()

    def hold(self, seconds: float) -> None:
        """Nobody sends for so long."""
        self._not_before = max(self._not_before, self._clock.now() + seconds)

    def crowded(self) -> None:
        self.limit, self._good = max(1, self.limit // 2), 0

    def good(self) -> None:
        self._good += 1
        if self._good >= RAISED_AFTER:
            self.limit, self._good = min(self.most, self.limit + 1), 0
