"""Bodies of requests: read whole before anything is done with them, and refused where they are too long."""

from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.errors import BodyTooLong, QuotaReached
from app.interop.graphs import MOST_BYTES
from app.settings import Settings
from app.store.reader import reader
from app.web.guard import Refuse
from app.web.uploads import Uploads

PER_CHARACTER = 12  # bytes of one outside the BMP, as JSON may escape it
LONGER = {"/graphs": MOST_BYTES + (1 << 20), "/api/graphs": MOST_BYTES}  # where files are given


class Bodies:
    """ASGI middleware. The longest is 1 MiB beyond what the longest prompt can take; where files are given, longer."""

    def __init__(self, app: ASGIApp, settings: Settings, refuse: Refuse) -> None:
        self._app = app
        self._refuse = refuse
        self._uploads = Uploads(settings.account_upload_mb * 1_000_000)
        self._longest = (1 << 20) + PER_CHARACTER * settings.max_prompt_chars

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD", "OPTIONS"):
            await self._app(scope, receive, send)
            return
        request = Request(scope, receive)
        told = request.headers.get("content-length", "0")
        longest = max(self._longest, LONGER.get(scope["path"], 0))
        body = bytearray()
        try:
            if not told.isdigit() or int(told) <= longest:
                async for chunk in request.stream():
                    body += chunk
                    if len(body) > longest:
                        break
                else:
                    self._charge(request, len(body))
                    await self._app(scope, _again(bytes(body), receive), send)
                    return
        except ClientDisconnect:
            return
        except QuotaReached as reached:
            await (await self._refuse(request, reached))(scope, receive, send)
            return
        limit = longest >> 10
        error = BodyTooLong(f"The body is longer than {limit:,} KiB, the most this server takes.", limit_kib=limit)
        await (await self._refuse(request, error))(scope, receive, send)

    def _charge(self, request: Request, size: int) -> None:
        """
        Raises:
            QuotaReached: an account has sent too much today.
        """
        account = reader.get().account
        if account is not None:
            self._uploads.charge(account, size)


def _again(body: bytes, receive: Receive) -> Receive:
    """``body`` in one message, then what else comes."""
    first: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def given() -> Message:
        return first.pop() if first else await receive()

    return given
