"""Who may do what: the one table, which the site is guarded by in team mode and the tests walk every route against.

A row is a beginning of paths; the longest that fits counts, and ``*`` is any one segment. What no row names is not
there for anybody. A new page needs a row here.
"""

from enum import IntEnum
from typing import NamedTuple

from app.errors import Forbidden, LoginNeeded, PageNotFound
from app.roles import Role
from app.store.reader import Reader


class Level(IntEnum):
    """What is needed. READER is a viewer, or, where public reading is on, anybody."""

    ANYBODY = 0
    READER = 1
    VIEWER = 2
    EDITOR = 3
    ADMIN = 4
    NOBODY = 5


class Row(NamedTuple):
    """read: for GET; write: for everything else. signed_in: an API token will not do."""

    read: Level
    write: Level = Level.NOBODY
    signed_in: bool = False


_READ = ("GET", "HEAD", "OPTIONS")
_ENDINGS = (".json", ".jsonl", ".csv", ".parquet", ".png")
ANYBODY, READER, VIEWER, EDITOR, ADMIN, NOBODY = Level
LEVELS: dict[Role, Level] = {"viewer": VIEWER, "editor": EDITOR, "admin": ADMIN}
ROWS = {
    "/": Row(READER),
    "/index": Row(READER),
    "/static": Row(ANYBODY),
    "/healthz": Row(ANYBODY),
    "/readyz": Row(ANYBODY),
    "/metrics": Row(ANYBODY),  # it asks for a token of its own
    "/login": Row(ANYBODY, ANYBODY),
    "/logout": Row(NOBODY, ANYBODY),
    "/join": Row(ANYBODY, ANYBODY),
    "/share": Row(ANYBODY),
    "/shares": Row(NOBODY, EDITOR),
    "/api/shares": Row(NOBODY, EDITOR),
    "/account": Row(VIEWER, VIEWER, signed_in=True),
    "/admin": Row(ADMIN, ADMIN, signed_in=True),
    "/admin/audit": Row(ADMIN),
    "/api/docs": Row(READER),
    "/api/openapi": Row(READER),
    "/patterns": Row(VIEWER),
    "/oembed": Row(READER),
    "/saes": Row(READER, EDITOR),
    "/api/saes": Row(NOBODY, EDITOR),
    "/search": Row(READER, READER),
    "/compare": Row(READER),
    "/map": Row(READER),
    "/inspect": Row(READER, READER),
    "/inspect/keep": Row(NOBODY, VIEWER),
    "/inspect/compare/keep": Row(NOBODY, VIEWER),
    "/inspect/*/visibility": Row(NOBODY, VIEWER),
    "/inspect/*/delete": Row(NOBODY, VIEWER),
    "/api/inspect": Row(NOBODY, READER),
    "/contexts": Row(READER, READER),
    "/intervene": Row(READER, READER),
    "/attribute": Row(READER),
    "/api/effect": Row(NOBODY, READER),
    "/api/generate": Row(NOBODY, READER),
    "/api/attribute": Row(NOBODY, READER),
    "/lists": Row(READER, EDITOR),
    "/lists/add": Row(EDITOR, EDITOR),
    "/api/lists": Row(NOBODY, EDITOR),
    "/circuits": Row(READER),
    "/training": Row(VIEWER),
    "/graphs": Row(READER, EDITOR),
    "/api/graphs": Row(NOBODY, EDITOR),
    "/features": Row(READER),
    "/harvests": Row(VIEWER, ADMIN),
    "/jobs": Row(VIEWER, ADMIN),
    "/api/jobs": Row(NOBODY, ADMIN),
    "/api/harvests": Row(NOBODY, ADMIN),
}
_BY_PARTS = {tuple(path.split("/")[1:]): row for path, row in ROWS.items() if path != "/"}
_DEEPEST = max(len(parts) for parts in _BY_PARTS)


def row_of(path: str) -> Row | None:
    """The row that says who may ask for ``path``."""
    if not path.startswith("/") or not path.isprintable():  # routes take what only looks the same
        return None
    if path == "/":
        return ROWS["/"]
    parts = path.split("/")[1:]
    stem = next((parts[-1].removesuffix(end) for end in _ENDINGS if parts[-1].endswith(end)), parts[-1])
    parts[-1] = stem
    for length in range(min(len(parts), _DEEPEST), 0, -1):
        beginning = tuple(parts[:length])
        fitting = [row for row in (_BY_PARTS.get(beginning), *_starred(beginning)) if row is not None]
        if fitting:
            return fitting[0]
    return None


def _starred(parts: tuple[str, ...]) -> list[Row]:
    return [
        row
        for known, row in _BY_PARTS.items()
        if "*" in known and len(known) == len(parts) and all(a in ("*", b) for a, b in zip(known, parts, strict=True))
    ]


def for_programs(path: str) -> bool:
    """Whether what is there is no page."""
    return (path.startswith("/api/") and path != "/api/docs") or path.endswith((*_ENDINGS, ".bin"))


def needed(path: str, method: str) -> Level | None:
    """None where no row names the path."""
    row = row_of(path)
    return None if row is None else row.read if method in _READ else row.write


def check(path: str, method: str, who: Reader, *, public_read: bool) -> None:
    """
    Raises:
        PageNotFound: no row names the path. LoginNeeded: an account is needed. Forbidden: its role is too little.
    """
    row, level = row_of(path), needed(path, method)
    if row is None or level is None or level is NOBODY:
        raise PageNotFound(f"There is no page {path[:100]} here.", path=path[:100])
    if level is ANYBODY or (level is READER and public_read):
        return
    if who.role is None or who.account is None:
        raise LoginNeeded("Sign in to see this; programs send an API token, as Authorization: Bearer TOKEN.")
    if who.reads_only and level is VIEWER and method not in _READ:
        raise Forbidden("This API token may only read; make one that may write.")
    if row.signed_in and who.token is not None:
        raise Forbidden("An API token cannot do this; sign in with a browser.")
    if LEVELS[who.role] < level:
        names = {at: role for role, at in LEVELS.items()}
        wanted = names[max(level, VIEWER)]
        raise Forbidden(f"This takes the role {wanted}, and yours here is {who.role}.", needed=wanted, role=who.role)
