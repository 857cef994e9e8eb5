"""Who may ask: requests to change something that come from other sites, and names this server does not have.

A page elsewhere can make a reader's browser post a form here, and, by letting its own name lead to 127.0.0.1 (DNS
rebinding), read what is served here. Browsers say where a request comes from; programs such as curl say nothing and
are let through.
"""

import ipaddress
from collections.abc import Awaitable, Callable, Iterator
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from app.errors import CrossSite, InvalidSetting, SaescopeError, UnknownHost
from app.settings import Settings

Refuse = Callable[[Request, Exception], Awaitable[Response]]
_READS = ("GET", "HEAD", "OPTIONS")


class Guard:
    """ASGI middleware; ``refuse`` makes the answer of an error."""

    def __init__(self, app: ASGIApp, settings: Settings, refuse: Refuse) -> None:
        self._app = app
        self._refuse = refuse
        self._names = allowed_names(settings)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            request = Request(scope, receive)
            error = self._reason(request)
            if error is not None:
                response = await self._refuse(request, error)
                await response(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _reason(self, request: Request) -> SaescopeError | None:
        host = request.headers.get("host", "")
        if self._names is not None and _name(host) not in self._names:
            return UnknownHost(
                f"This server is not called {_name(host)[:100]!r}; SAESCOPE_ALLOWED_HOSTS adds names to those it "
                "answers to.",
                host=host[:100],
            )
        if request.method not in _READS and not same_site(request):
            return CrossSite(
                "This request comes from another site and would change something here; use saescope's own pages."
            )
        return None


def allowed_names(settings: Settings) -> frozenset[str] | None:
    """The names answered to; None is any, where the server listens beyond this machine and no names are set."""
    extra = {name.strip().lower() for name in settings.allowed_hosts.split(",") if name.strip()}
    if not extra and not is_loopback(settings.host):
        return None
    return frozenset({settings.host.lower(), "localhost", "127.0.0.1", "::1", *extra})


def believed(settings: Settings) -> Iterator[str]:
    """The proxies whose word on who asks is taken.

    Raises:
        InvalidSetting: one is no address and no network.
    """
    for text in filter(None, map(str.strip, settings.proxies.split(","))):
        try:
            yield str(ipaddress.ip_network(text)) if "/" in text else str(ipaddress.ip_address(text))
        except ValueError:
            raise InvalidSetting(
                f"SAESCOPE_PROXIES holds {text!r}, which is no IP address and no network such as 10.0.0.0/8.",
                setting="proxies",
            ) from None


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def same_site(request: Request) -> bool:
    """Whether a request that changes something comes from this site's own pages, or from no page at all."""
    site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    as_json = request.headers.get("content-type", "").partition(";")[0].strip().lower() == "application/json"
    api = request.scope["path"].startswith("/api/") and as_json  # no form of another site can send that
    if site is not None and not api:
        return site in ("same-origin", "none")
    return origin is None or _origin(origin) == _address(request.headers.get("host", ""), request.scope["scheme"])


def _name(host: str) -> str:
    try:
        return (urlsplit(f"//{host}").hostname or "").rstrip(".")
    except ValueError:
        return ""


def _address(host: str, scheme: str) -> tuple[str, int | None]:
    """Name and port; the scheme's own port is None, as a proxy may speak another scheme than the browser does."""
    try:
        parts = urlsplit(f"//{host}")
        port = parts.port
    except ValueError:
        return "", None
    return (parts.hostname or "").rstrip("."), None if port == {"http": 80, "https": 443}.get(scheme) else port


def _origin(origin: str) -> tuple[str, int | None]:
    scheme, _, host = origin.partition("://")
    return _address(host, scheme) if scheme in ("http", "https") else ("", 0)
