"""What a share link leads to, and which addresses it opens besides."""

import re
from typing import NamedTuple
from urllib.parse import unquote

from app.errors import BadRequest

_PAGES = {
    "list": r"/lists/(?!add$|shared$|import$)([a-z0-9-]{1,80})",
    "run": r"/inspect/(?!compare$|contrast$|heads$|keep$)([a-z0-9]{1,30})",
    "feature": r"/saes/([^/]+)/features/([0-9]{1,9})",
    "sae": r"/saes/([^/]+)",
}
# What comes after the page's path: its twin, what it loads itself, what it offers to be saved.
_BENEATH = {
    "list": r"(\.json|/export\.json|/export\.csv)?",
    "run": r"(\.json)?",
    "feature": r"(/card|/notes|/examples/[^/]+/[^/]+|/scores/[^/]+)?(\.json)?|/og\.png|/embed",
    "sae": r"(/features)?(\.json)?|/og\.png",
}


class Shared(NamedTuple):
    """kind: list, run, feature or sae; path: the page's, decoded; name: of a list or a run, else empty."""

    kind: str
    path: str
    name: str


def shared_page(address: str) -> Shared:
    """
    Raises:
        BadRequest: no such page can be shared.
    """
    path = unquote(address.partition("?")[0].partition("#")[0])
    for kind, pattern in _PAGES.items():
        found = re.fullmatch(pattern, path)
        if found and path.isprintable() and "\\" not in path:
            return Shared(kind, path, found[1] if kind in ("list", "run") else "")
    raise BadRequest(
        f"{address[:100]!r} cannot be shared; a list, a kept prompt run, a feature or an SAE can, by its address.",
        field="address",
    )


def untitled(address: str) -> str:
    """Of a list's address only the letters that nobody guesses: the rest is its first title."""
    return re.sub(r"(/lists/)[a-z0-9-]+-([a-z0-9]{5})(?![a-z0-9-])", r"\1*-\2", address)


def opens(page: Shared, path: str) -> bool:
    """Whether the link to ``page`` opens ``path``, which is decoded."""
    rest = path.removeprefix(page.path)
    if rest == path:
        return False
    return re.fullmatch(_BENEATH[page.kind], rest) is not None
