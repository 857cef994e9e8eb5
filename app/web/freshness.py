"""ETags: a reader who has the page already is told so after one query and before anything is rendered."""

import hashlib
from functools import cache

from fastapi import Request
from fastapi.responses import Response

from app import __version__
from app.store.queries import SAERecord
from app.store.reader import reader
from app.web.rendering import ROOT

REVALIDATE = "private, max-age=0, must-revalidate"
KEEP_NOTHING = "private, no-store"
_SHOWN_BY = ("templates", "static", "app/web")


class NotModified(Exception):
    """The reader's copy is the page there would be."""


@cache
def site_version() -> str:
    """Changes with whatever a page is made by: templates, static files, the code beside this, the release."""
    digest = hashlib.sha256(__version__.encode())
    for folder in _SHOWN_BY:
        for path in sorted((ROOT / folder).rglob("*")):
            if path.is_file() and path.suffix != ".pyc":
                digest.update(str(path.relative_to(ROOT)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def unless_known(request: Request, sae: SAERecord, *also: object) -> None:
    """Give the answer an ETag of the URL, the SAE's revision and edition, and ``also`` (what else it shows).

    A page with ``?text=`` has none and is kept nowhere: the text is the reader's own.

    Raises:
        NotModified: the reader has that answer.
    """
    if "text" in request.query_params:
        request.state.cache = KEEP_NOTHING
        return
    fragment = request.headers.get("hx-request"), request.headers.get("hx-history-restore-request")
    shown = (site_version(), str(request.url), fragment, sae.id, sae.revision, sae.edition, reader.get().key, *also)
    # Weak, since the same page is sent compressed and plain.
    request.state.etag = f'W/"{hashlib.sha256(repr(shown).encode()).hexdigest()[:32]}"'
    if _matches(request.headers.get("if-none-match", ""), request.state.etag):
        raise NotModified


def _matches(header: str, etag: str) -> bool:
    known = [tag.strip().removeprefix("W/") for tag in header.split(",")]
    return "*" in known or etag.removeprefix("W/") in known


async def not_modified(request: Request, error: Exception) -> Response:
    return Response(status_code=304)
