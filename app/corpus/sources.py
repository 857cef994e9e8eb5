"""Corpora: documents by name, from a spec such as ``pkg:wikipedia-demo``, ``text:FOLDER`` or ``hf:OWNER/NAME``."""

import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from app.corpus.document import Columns, Document, Skipped
from app.corpus.files import jsonl, text
from app.corpus.packaged import BROWN, DJANGO, GENSIM, PACKAGED
from app.corpus.tables import DataSet, parquet, streamed
from app.errors import CorpusUnavailable

__all__ = ["BROWN", "DJANGO", "GENSIM", "PACKAGED", "Document", "Skipped", "documents"]

COLUMNS = ("text", "messages", "id")


def documents(spec: str, packages: Path, skipped: Skipped | None = None) -> Iterator[Document]:
    """The documents of a corpus, in a fixed order; ``packages`` is where archives are kept.

    What is no document is left out and added to ``skipped``.

    Raises:
        CorpusUnavailable: the spec names no source, a path or column that is not there, or nothing can be read.
        HubUnavailable: a data set of the hub cannot be had.
    """
    return _some(spec, _reader(spec, packages), Skipped(within=skipped))


def _some(spec: str, read: Callable[[Skipped], Iterator[Document]], skipped: Skipped) -> Iterator[Document]:
    empty = True
    for document in read(skipped):
        empty = False
        yield document
    if empty and skipped.count:
        (name, reason), count = skipped.named[0], skipped.count
        which = (
            f"The only document of {spec} cannot" if count == 1 else f"None of the {count:,} documents of {spec} can"
        )
        first = f"{name} ({reason})" if count == 1 else f"the first is {name} ({reason})"
        raise CorpusUnavailable(f"{which} be read: {first}.", corpus=spec)


def _reader(spec: str, packages: Path) -> Callable[[Skipped], Iterator[Document]]:
    kind, _, where = spec.partition(":")
    if kind == "pkg" and where in PACKAGED:
        return lambda skipped: PACKAGED[where](packages)
    if kind == "text" and where:
        return partial(text, _expanded(where))
    if kind in {"jsonl", "parquet"} and where:
        place, options = _options(kind, where, COLUMNS)
        return partial(jsonl if kind == "jsonl" else parquet, _expanded(place), _columns(spec, options))
    if kind == "hf":
        repo, options = _options(kind, where, (*COLUMNS, "config", "split", "revision"))
        if re.fullmatch(r"[\w.-]+/[\w.-]+", repo) and ".." not in repo:
            columns = _columns(spec, {key: options.pop(key) for key in COLUMNS if key in options})
            return partial(streamed, DataSet(repo, **options), columns)
        raise CorpusUnavailable(
            f"{spec!r} is not of the form hf:OWNER/NAME[#config=CONFIG,split=SPLIT,revision=REVISION].", corpus=spec
        )
    known = ", ".join(f"pkg:{name}" for name in PACKAGED)
    raise CorpusUnavailable(
        f"Corpus {spec!r} is not known; give text:FILE-OR-FOLDER, jsonl:FILE-OR-FOLDER, parquet:FILE-OR-FOLDER, "
        f"hf:OWNER/NAME or one of {known}.",
        corpus=spec,
    )


def _options(kind: str, where: str, known: tuple[str, ...]) -> tuple[str, dict[str, str]]:
    """What stands before the last '#', and the ``key=value,key=value`` after it."""
    place, _, given = where.rpartition("#")
    if "=" not in given or not place:  # a '#' in a path
        return where, {}
    options: dict[str, str] = {}
    for option in given.split(","):
        key, _, value = option.partition("=")
        if key not in known or key in options or not value:
            fault = "not known" if key not in known else "given twice" if key in options else "without a value"
            raise CorpusUnavailable(
                f"Option {key!r} of {kind}:{place} is {fault}; options are KEY=VALUE of {', '.join(known)}.", option=key
            )
        options[key] = value
    return place, options


def _columns(spec: str, options: dict[str, str]) -> Columns:
    if "text" in options and "messages" in options:
        raise CorpusUnavailable(f"{spec!r} names both a text and a messages column; give one of them.", corpus=spec)
    return Columns(**options)


def _expanded(where: str) -> Path:
    try:
        return Path(where).expanduser()
    except RuntimeError:
        raise CorpusUnavailable(f"{where!r} names a user there is not.", path=where) from None
