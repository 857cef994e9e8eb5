"""What was looked up a moment ago."""

import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

REMEMBERED_S = 5.0  # for so long what another process revoked may still be taken
V = TypeVar("V")


class Memory(Generic[V]):
    """What secrets stand for, by their hashes, for a few seconds; at most ``most`` of them."""

    def __init__(self, most: int = 10_000, clock: Callable[[], float] = time.monotonic) -> None:
        self._known: OrderedDict[str, tuple[float, V]] = OrderedDict()
        self._most, self._clock = most, clock
        self._forgotten = 0

    async def get(self, key: str, find: Callable[[], Awaitable[V]]) -> V:
        known = self._known.get(key)
        if known is not None and known[0] > self._clock():
            return known[1]
        before = self._forgotten
        found = await find()
        if self._forgotten != before:  # it may have been looked up before it was revoked
            return found
        self._known[key] = self._clock() + REMEMBERED_S, found
        self._known.move_to_end(key)
        while len(self._known) > self._most:
            self._known.popitem(last=False)
        return found

    def forget(self) -> None:
        """After anything was revoked here."""
        self._forgotten += 1
        self._known.clear()
