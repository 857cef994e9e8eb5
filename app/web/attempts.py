"""How often a password may be tried: for each account, whether there is one of that name or not, and each address."""

import math
import time
from collections import OrderedDict
from collections.abc import Callable

from app.errors import LoginThrottled
from app.store.accounts import same_for

BY_NAME, BY_ADDRESS = 10, 50  # tries, before it takes time
SECONDS = 60.0  # after which one more is allowed
KNOWN = 20_000


class Attempts:
    """Tries that failed, by key; they are forgotten one by one. A try counts before its password is looked at, so that
    many at once are no way around it."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._tries: OrderedDict[str, tuple[float, float]] = OrderedDict()  # how many, as of when

    def begin(self, name: str, address: str, own: str = "") -> None:
        """own: whose tries are counted by themselves, not with those of everybody who gives this name.

        Raises:
            LoginThrottled: too many have failed.
        """
        self.count(self._keys(name, address, own))

    def count(self, wanted: dict[str, int]) -> None:
        """wanted: how many tries there may be, by key.

        Raises:
            LoginThrottled.
        """
        waits = [self._wait(key, most) for key, most in wanted.items()]
        if max(waits) > 0:
            seconds = math.ceil(max(waits))
            raise LoginThrottled(
                f"Too many sign-ins have failed; try again in {seconds} s.", retry_after=seconds
            )  # the same for names there are and names there are not
        for key in wanted:
            self._tries[key] = self._count(key) + 1, self._clock()
            self._tries.move_to_end(key)
        while len(self._tries) > KNOWN:
            self._tries.popitem(last=False)

    def succeeded(self, name: str, address: str, own: str = "") -> None:
        """The account's tries are forgotten; of the address's this one is."""
        by_name, by_address = self._keys(name, address, own)
        self._tries.pop(by_name, None)
        self._tries[by_address] = max(0.0, self._count(by_address) - 1), self._clock()

    @staticmethod
    def _keys(name: str, address: str, own: str) -> dict[str, int]:
        return {own or f"name {same_for(name)[:200]}": BY_NAME, f"address {address}": BY_ADDRESS}

    def _count(self, key: str) -> float:
        count, at = self._tries.get(key, (0.0, 0.0))
        return max(0.0, count - (self._clock() - at) / SECONDS)

    def _wait(self, key: str, most: int) -> float:
        return (self._count(key) - most + 1) * SECONDS if self._count(key) > most - 1 else 0.0
