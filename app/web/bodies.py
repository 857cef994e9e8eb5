"""Bodies of requests: read whole before anything is done with them, and refused where they are too long."""

from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.errors import BodyTooLong
from app.settings import Settings
from app.web.guard import Refuse

PER_CHARACTER = 12  # bytes of one outside the BMP, as JSON may escape it


class Bodies:
    """ASGI middleware. The longest is 1 MiB beyond what the longest prompt can take."""

    def __init__(self, app: ASGIApp, settings: Settings, refuse: Refuse) -> None:
        self._app = app
        self._refuse = refuse
        self._longest = (1 << 20) + PER_CHARACTER * settings.max_prompt_chars

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD", "OPTIONS"):
            await self._app(scope, receive, send)
            return
        request = Request(scope, receive)
        told = request.headers.get("content-length", "0")
        body = bytearray()
        try:
            if not told.isdigit() or int(told) <= self._longest:
                async for chunk in request.stream():
                    body += chunk
                    if len(body) > self._longest:
                        break
                else:
                    await self._app(scope, _again(bytes(body), receive), send)
                    return
        except ClientDisconnect:
            return
        limit = self._longest >> 10
        error = BodyTooLong(f"The body is longer than {limit:,} KiB, the most this server takes.", limit_kib=limit)
        await (await self._refuse(request, error))(scope, receive, send)


def _again(body: bytes, receive: Receive) -> Receive:
    """``body`` in one message, then what else comes."""
    first: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def given() -> Message:
        return first.pop() if first else await receive()

    return given
