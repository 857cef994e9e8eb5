"""What addresses are put together from."""

from functools import lru_cache
from urllib.parse import quote, urlencode


def query_of(**parameters: object) -> str:
    given = {name: value for name, value in parameters.items() if value not in (None, "", [], ())}
    return f"?{urlencode(given, doseq=True)}" if given else ""


def path_of(page: str, name: str | None) -> str:
    return page if name is None else f"{page}/{quote(name, safe='')}"


@lru_cache(1024)  # a page has a hundred and fifty links to the one SAE
def slug_of(slug: str) -> str:
    return quote(slug, safe="@")
