"""Answers that are sent as they are made."""

from collections.abc import AsyncGenerator
from typing import Any

from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send


class Streamed(StreamingResponse):
    """Its generator ends with it: what that holds is let go of when a client leaves midway, and not left to the garbage
    collector, which cannot give back a connection."""

    def __init__(self, content: AsyncGenerator[str, None] | AsyncGenerator[bytes, None], **options: Any) -> None:
        super().__init__(content, **options)
        self._content = content

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._content.aclose()
