"""Addresses of lists and notes."""

from urllib.parse import quote

from app.urls.parts import query_of, slug_of


def keep_for_list() -> str:
    """Keeps a run, by POST, and leads to where it is added to a list."""
    return "/inspect/keep?then=list"


def lists(**state: object) -> str:
    """Every list, and, by POST, the start of one; ``state`` is q, tag and cursor."""
    return "/lists" + query_of(**state)


def lists_json(**state: object) -> str:
    return "/lists.json" + query_of(**state)


def list_page(name: str, *, cursor: str | None = None, item: int | None = None) -> str:
    return f"/lists/{quote(name, safe='')}" + query_of(cursor=cursor) + (f"#item-{item}" if item else "")


def list_json(name: str, *, cursor: str | None = None) -> str:
    return f"/lists/{quote(name, safe='')}.json" + query_of(cursor=cursor)


def list_export(name: str, ending: str) -> str:
    return f"/lists/{quote(name, safe='')}/export.{ending}"


def change_list(name: str, what: str) -> str:
    """``edit``, ``delete``, or ``link``, which leads to an address that holds the list itself."""
    return f"/lists/{quote(name, safe='')}/{what}"


def change_item(name: str, item: int, what: str) -> str:
    """``edit``, ``remove``, ``up``, ``down``, ``first`` or ``last``."""
    return f"/lists/{quote(name, safe='')}/items/{item}/{what}"


def add_to_list(**what: object) -> str:
    """Where something is added to a list: ``sae`` and ``index`` (one or several), ``run``, or ``sae``, ``map``,
    ``level`` and ``region``."""
    return "/lists/add" + query_of(**what)


def import_list() -> str:
    return "/lists/import"


def shared_list(items: str = "", title: str = "") -> str:
    """A list that its address holds; ``items`` as app.store.references writes them."""
    named = query_of(title=title)
    return "/lists/shared" + named + (f"{'&' if named else '?'}items={quote(items, safe='@/,~')}" if items else "")


def shared_list_json(items: str, title: str = "") -> str:
    return shared_list(items, title).replace("/lists/shared", "/lists/shared.json", 1)


def notes(slug: str, index: int) -> str:
    """Every version of a feature's note, and, by POST, a new one."""
    return f"/saes/{slug_of(slug)}/features/{index}/notes"


def notes_json(slug: str, index: int) -> str:
    return notes(slug, index) + ".json"
