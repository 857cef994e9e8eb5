"""Pages as they stand in a folder: links to other pages in it are relative, links to a server are plain text."""

import posixpath
from collections.abc import Mapping
from html import escape
from html.parser import HTMLParser
from urllib.parse import quote


def relinked(html: str, here: str, files: Mapping[str, str]) -> str:
    """``html`` as the file ``here``; files: where a page with some address lies. Links with the class ``values``, which
    say nothing by themselves, go with their text."""
    parser = _Links(here, files)
    parser.feed(html)
    parser.close()
    return "".join(parser.out)


def relative(here: str, file: str) -> str:
    """The address of ``file`` in a page that lies at ``here``."""
    return quote(posixpath.relpath(file, posixpath.dirname(here) or "."), safe="/@")


class _Links(HTMLParser):
    def __init__(self, here: str, files: Mapping[str, str]) -> None:
        super().__init__(convert_charrefs=False)
        self.out: list[str] = []
        self._here, self._files = here, files
        self._open: list[str] = []  # of each link around: "kept", "text", or "gone"

    def _emit(self, text: str) -> None:
        if "gone" not in self._open:
            self.out.append(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        raw = self.get_starttag_text() or ""
        if tag != "a":
            self._emit(raw)
            return
        given = dict(attrs)
        href = given.get("href") or ""
        if href.startswith("#"):
            self._emit(raw)
            self._open.append("kept")
        elif href in self._files:
            named = {name: value for name, value in given.items() if name in ("class", "rel", "aria-current")}
            told = "".join(f' {name}="{escape(value or "")}"' for name, value in named.items())
            self._emit(f'<a{told} href="{escape(relative(self._here, self._files[href]))}">')
            self._open.append("kept")
        else:
            self._open.append("gone" if given.get("class") == "values" else "text")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._emit(self.get_starttag_text() or "")

    def handle_endtag(self, tag: str) -> None:
        if tag != "a":
            self._emit(f"</{tag}>")
        elif self._open and self._open.pop() == "kept":
            self._emit("</a>")

    def handle_data(self, data: str) -> None:
        self._emit(data)

    def handle_entityref(self, name: str) -> None:
        self._emit(f"&{name};")

    def handle_charref(self, name: str) -> None:
        self._emit(f"&#{name};")

    def handle_decl(self, decl: str) -> None:
        self._emit(f"<!{decl}>")
