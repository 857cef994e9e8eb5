"""The headers of every answer: what a page may load and who may frame it, and for how long it may be kept."""

from collections.abc import Mapping
from typing import Any

from starlette.datastructures import URL, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.web.freshness import REVALIDATE

IMMUTABLE = "public, max-age=31536000, immutable"


def content_security_policy(*, plots: bool = False, embedded: bool = False) -> str:
    """plots: the page draws with plotly, which injects styles; embedded: any site may show it in a frame."""
    return (
        f"default-src 'self'; script-src 'self'; style-src 'self'{' ' + repr('unsafe-inline') if plots else ''}; "
        "img-src 'self' data:; base-uri 'none'; form-action 'self'; "
        f"frame-ancestors {'*' if embedded else repr('none')}; object-src 'none'"
    )


class Headers:
    """ASGI middleware. A route says what its page needs by ``request.state``: ``plots``, ``embedded``, ``etag``,
    ``cache`` or ``rules`` (the address of speculation rules)."""

    def __init__(self, app: ASGIApp, *, team: bool = False) -> None:
        self._app = app
        self._team = team

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        state = scope.setdefault("state", {})

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                if scope["path"].startswith("/static/"):
                    _static(scope, message["status"], headers)
                else:
                    _page(state, message["status"], headers)
                    if self._team:
                        _personal(headers)
            await send(message)

        await self._app(scope, receive, with_headers)


def _static(scope: Scope, status: int, headers: MutableHeaders) -> None:
    secure(headers)
    if "v=" in URL(scope=scope).query and status in (200, 206, 304):
        headers["cache-control"] = IMMUTABLE


def _page(state: Mapping[str, Any], status: int, headers: MutableHeaders) -> None:
    # A browser takes over the headers of a 304 into its copy: no policy there but the one the copy came with.
    if status != 304:
        secure(headers, plots=state.get("plots", False), embedded=state.get("embedded", False))
    if status in (200, 304) and "etag" in state:
        headers["etag"] = state["etag"]
    if status == 200 and "rules" in state:
        headers["speculation-rules"] = f'"{state["rules"]}"'
    headers.setdefault("cache-control", state.get("cache", REVALIDATE))
    headers.add_vary_header("HX-Request")


def _personal(headers: MutableHeaders) -> None:
    """No cache that several people share keeps it, and what one reader has is not shown to the next."""
    headers["cache-control"] = headers["cache-control"].replace("public", "private")
    headers.add_vary_header("Cookie, Authorization")


def secure(headers: MutableHeaders, *, plots: bool = False, embedded: bool = False) -> None:
    headers["content-security-policy"] = content_security_policy(plots=plots, embedded=embedded)
    headers["x-content-type-options"] = "nosniff"
    headers["referrer-policy"] = "same-origin"
