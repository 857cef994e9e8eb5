"""What one client may have of the model: requests at once, and tokens a minute.

A client pays afterwards, since what a request costs is known when it is done: whoever is in debt is refused until a
minute's allowance, trickling in, has made up for it. What is cached costs nothing and is never refused.
"""

import contextlib
import ipaddress
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from fastapi import Request

from app.errors import ClientBusy, ClientRate
from app.settings import Settings
from app.store.reader import reader
from app.web.guard import is_loopback

REQUESTS, TOKENS = 8, 100_000  # where the settings are unset and others can reach the server
KNOWN = 10_000  # clients remembered


@dataclass
class Account:
    """One client: requests on their way, and the tokens it has left as of ``at``, below 0 in debt."""

    tokens: float
    at: float
    running: int = 0


class Limits:
    """``requests`` at once and ``tokens`` a minute for each client; 0 is no limit. A client that asked nothing for long
    has all its tokens, so it can be forgotten: at most ``known`` clients are remembered, and those at work."""

    def __init__(
        self,
        requests: int,
        tokens: int,
        *,
        known: int = KNOWN,
        clock: Callable[[], float] = time.monotonic,
        what: str = "waiting for the model",
    ) -> None:
        self._what = what
        self._requests, self._tokens, self._known, self._clock = requests, tokens, known, clock
        self._accounts: OrderedDict[str, Account] = OrderedDict()
        self._lock = threading.Lock()

    @classmethod
    def of(cls, settings: Settings) -> "Limits":
        """As set; unset, there are none where only this machine can reach the server."""
        alone = is_loopback(settings.host) and not settings.proxies and not settings.team
        given = ((settings.client_requests, REQUESTS), (settings.client_tokens, TOKENS))
        return cls(*(value if value is not None else 0 if alone else usual for value, usual in given))

    @classmethod
    def of_searches(cls, settings: Settings) -> "Limits":
        """As many at once as requests to the model, and beside them."""
        return cls(cls.of(settings)._requests, 0, what="being searched for")

    def __len__(self) -> int:
        return len(self._accounts)

    @contextlib.contextmanager
    def request(self, client: str) -> Iterator[Callable[[int], None]]:
        """While one request of ``client`` is worked on; call what it gives with the tokens that were read or made.

        Raises:
            ClientBusy: it has as many as it may already.
            ClientRate: it is in debt.
        """
        if not self._requests and not self._tokens:
            yield lambda tokens: None
            return
        with self._lock:
            account = self._account(client)
            self._check(account)
            account.running += 1

        def spend(tokens: int) -> None:
            with self._lock:
                self._refill(account)
                account.tokens -= tokens

        try:
            yield spend
        finally:
            with self._lock:
                account.running -= 1

    def _account(self, client: str) -> Account:
        account = self._accounts.setdefault(client, Account(self._tokens, self._clock()))
        self._accounts.move_to_end(client)
        self._refill(account)
        if len(self._accounts) > self._known:
            self._forget()
        return account

    def _forget(self) -> None:
        """The longest silent ones that do nothing now; the last one is who asks."""
        idle = [name for name, account in self._accounts.items() if not account.running][:-1]
        for name in idle[: len(self._accounts) - self._known]:
            del self._accounts[name]

    def _refill(self, account: Account) -> None:
        now = self._clock()
        account.tokens = min(self._tokens, account.tokens + (now - account.at) * self._tokens / 60)
        account.at = now

    def _check(self, account: Account) -> None:
        if self._requests and account.running >= self._requests:
            raise ClientBusy(
                f"{account.running} of your requests are {self._what} already, which is as many as one client "
                "may have; wait until one is answered.",
                limit=self._requests,
                retry_after=1,
            )
        if self._tokens and account.tokens <= 0:
            seconds = max(1, math.ceil(-account.tokens * 60 / self._tokens))
            raise ClientRate(
                f"You have used your {self._tokens:,} tokens a minute; try again in {seconds} s.",
                limit=self._tokens,
                retry_after=seconds,
            )


def about_tokens(text: str) -> int:
    """What a text is charged for where nobody waits for its tokens to be counted."""
    return math.ceil(len(text.encode()) / 4)


def client_of(request: Request) -> str:
    """Who asks: an API token, an account; else an IPv4 address, or the 64 bits of an IPv6 one that name a network, as
    one host has all below."""
    who = reader.get()
    if who.account is not None:
        return f"token {who.token}" if who.token is not None else f"account {who.account}"
    return address_of(request)


def address_of(request: Request) -> str:
    host = request.client.host if request.client else ""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host[:100]
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((int(address), 64), strict=False))
    return str(address)
