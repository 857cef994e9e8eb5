"""Every request counted, timed and named: its id, its access line, and the numbers for /metrics."""

import logging
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app import tracing
from app.logs import access, identified, request_id

BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)  # seconds
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
LEFT = 499  # the client went before there was an answer
_QUIET = ("/healthz", "/readyz", "/metrics")  # asked every few seconds by machines


class Traffic:
    """Requests by method, route and status, and how long those of a route took. There are as many labels as routes;
    what no client can reach adds none."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, str, int]] = Counter()
        self.seconds: dict[str, tuple[list[int], float]] = {}  # by route: how many in each bucket, and their sum
        self.underway = 0

    def add(self, method: str, route: str, status: int, seconds: float) -> None:
        self.counts[method, route, status] += 1
        buckets, total = self.seconds.get(route) or ([0] * (len(BUCKETS) + 1), 0.0)
        buckets[bisect_left(BUCKETS, seconds)] += 1
        self.seconds[route] = buckets, total + seconds


class Counted:
    """ASGI middleware. An id that comes with the request (X-Request-ID) is kept if it is short and plain; the answer
    has it in its headers, and so has every line that is logged meanwhile."""

    def __init__(self, app: ASGIApp, traffic: Traffic, route: "Callable[[Scope], str] | None" = None) -> None:
        self._app = app
        self._traffic = traffic
        self._route = route or route_of

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        known = identified(headers.get("x-request-id", ""))
        scope.setdefault("state", {})["request_id"] = known
        token = request_id.set(known)
        status = LEFT
        started = time.perf_counter()
        self._traffic.underway += 1

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["x-request-id"] = known
            await send(message)

        with nullcontext() if scope["path"] in _QUIET else tracing.serving(headers) as span:
            try:
                await self._app(scope, receive, noted)
            except Exception:
                status = 500
                raise
            finally:
                self._traffic.underway -= 1
                method = scope["method"] if scope["method"] in METHODS else "other"
                route = self._route(scope)
                self._note(scope, method, route, status, time.perf_counter() - started)
                tracing.served(span, method, route, status, known)
                request_id.reset(token)

    def _note(self, scope: Scope, method: str, route: str, status: int, seconds: float) -> None:
        self._traffic.add(method, route, status, seconds)
        client = scope.get("client")
        level = logging.DEBUG if route in _QUIET else logging.INFO
        access(level, method, route, status, seconds, client[0] if client else "")


def route_of(scope: Scope) -> str:
    """The template of the route that answered: ``/saes/{slug}``; ``none`` where it was refused before."""
    if scope["path"].startswith("/static/"):
        return "/static/{path}"
    return str(getattr(scope.get("route"), "path", "none"))
