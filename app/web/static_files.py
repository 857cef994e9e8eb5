"""Static files, compressed once and kept: plotly alone is 4 MB, too much to compress for every reader anew."""

import asyncio
import gzip
import mimetypes
from functools import lru_cache
from pathlib import Path

from starlette.datastructures import Headers
from starlette.responses import FileResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from app.web.compressed import takes_gzip

mimetypes.add_type("application/speculationrules+json", ".speculationrules")
_TEXT = ("text/", "application/javascript", "application/json", "application/speculationrules+json", "image/svg+xml")


class CompressedStaticFiles(StaticFiles):
    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        if not isinstance(response, FileResponse) or not response.headers["content-type"].startswith(_TEXT):
            return response
        response.headers["vary"] = "Accept-Encoding"
        asked = Headers(scope=scope)
        if not takes_gzip(asked.get("accept-encoding", "")) or "range" in asked:
            return response
        file = Path(response.path)
        body = await asyncio.to_thread(packed, file, file.stat().st_mtime_ns)
        headers = {name: response.headers[name] for name in ("etag", "last-modified", "content-type")}
        return Response(body, headers={**headers, "content-encoding": "gzip", "vary": "Accept-Encoding"})


@lru_cache(maxsize=64)
def packed(file: Path, changed: int) -> bytes:
    return gzip.compress(file.read_bytes(), mtime=0)
