"""A list, or an SAE's features, as a folder of HTML and JSON that opens without a server."""

import asyncio
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from app import urls
from app.interop.folders import beside
from app.store import browse as b
from app.store import lists as store
from app.store import queries as q
from app.store.overviews import Overview
from app.store.references import Feature, parse
from app.subject.tokens import Vocabulary
from app.subject.vocabulary import vocabulary_here
from app.web import build
from app.web import contexts as c
from app.web import list_contexts as lc
from app.web.examples import Look
from app.web.features import panels, read_feature
from app.web.list_build import labelled, shown, summary
from app.web.list_files import as_csv, as_json
from app.web.relinked import relative, relinked
from app.web.rendering import ROOT, render_page

SHEETS = ("site.css", "feature.css", "lists.css")
ROWS = 1000  # of an SAE's table in one page
TRIED = 6  # pages that the size of all is told by
Done = Callable[[int], None]


@dataclass
class Vocabularies:
    home: Path
    _known: dict[str, Vocabulary] = field(default_factory=dict)

    async def __call__(self, sae: q.SAERecord) -> Vocabulary:
        if sae.subject_path not in self._known:
            self._known[sae.subject_path] = await asyncio.to_thread(vocabulary_here, self.home / sae.subject_path)
        return self._known[sae.subject_path]


@dataclass(frozen=True)
class Wanted:
    """What is to be written: pages of these features, in this order, around a list or the SAE."""

    title: str
    features: list[tuple[q.SAERecord, int]]
    listed: tuple[store.ListRecord, list[store.ItemRecord]] | None = None

    @property
    def sheets(self) -> int:
        """Pages beside those of features."""
        return 1 if self.listed else max(1, -(-len(self.features) // ROWS))

    @property
    def pages(self) -> int:
        return len(self.features) + self.sheets


def file_of(sae: q.SAERecord, index: int) -> str:
    return f"features/{sae.slug}@{sae.revision}/{index}.html"


async def of_list(db: AsyncConnection, name: str) -> Wanted:
    """
    Raises:
        UnknownList.
    """
    record = await store.get_list(db, name)
    items, _ = await store.get_items(db, record.id)
    named = [one for item in items if isinstance(one := parse(item.reference), Feature)]
    saes, _ = await q.find_named(db, list({(one.slug, one.revision) for one in named}))
    found = [(saes.get((one.slug, one.revision)), one.index) for one in named]
    here = [(sae, index) for sae, index in found if sae is not None and index < sae.n_latents]
    return Wanted(record.title, here, (record, items))


async def of_sae(db: AsyncConnection, address: str, chosen: Sequence[tuple[int, int]] | None) -> Wanted:
    """chosen: first and last of each range; None is all.

    Raises:
        UnknownSAE, LatentOutOfRange.
    """
    found = await q.get_sae(db, address)
    sae = found if found.pinned else await q.get_sae(db, f"{found.slug}@{found.revision}")
    for _, last in chosen or ():
        if last >= sae.n_latents:
            raise build.out_of_range(sae, last)
    ranges = chosen if chosen is not None else [(0, sae.n_latents - 1)]
    indices = sorted({index for first, last in ranges for index in range(first, last + 1)})
    return Wanted(f"{sae.slug}@{sae.revision}", [(sae, index) for index in indices])


class Export:
    """Writes ``wanted`` into a folder that is not there yet, or is empty."""

    def __init__(self, db: AsyncConnection, home: Path, wanted: Wanted) -> None:
        self._db, self._wanted = db, wanted
        self._vocabulary = Vocabularies(home)
        self._places = {(sae.id, index): place for place, (sae, index) in enumerate(wanted.features)}
        self._files = {urls.feature(sae.address, i): file_of(sae, i) for sae, i in wanted.features}
        for slug in {sae.slug for sae, _ in wanted.features}:
            if len({sae.revision for sae, _ in wanted.features if sae.slug == slug}) == 1:  # no other can be meant
                self._files |= {
                    urls.feature(slug, i): file_of(sae, i) for sae, i in wanted.features if sae.slug == slug
                }

    async def megabytes(self) -> float:
        """About how large all of it will be, by some of its pages."""
        every = max(1, len(self._wanted.features) // TRIED)
        tried = self._wanted.features[::every][:TRIED]
        sizes = [sum(len(text.encode()) for _, text in await self._feature(sae, index)) for sae, index in tried]
        rest = sum((ROOT / "static" / name).stat().st_size for name in SHEETS) + 300 * len(self._wanted.features)
        return (sum(sizes) / max(1, len(sizes)) * len(self._wanted.features) + rest) / 1e6

    async def write(self, out: Path, done: Done) -> None:
        """done: told the number of pages written, after each.

        Raises:
            BadRequest: ``out`` holds something, or cannot be made. DiskFull: there is no room; nothing is left.
        """
        with beside(out) as folder:
            count = 0
            for sae, index in self._wanted.features:
                for name, text in await self._feature(sae, index):
                    _put(folder / name, text)
                done(count := count + 1)
            for name, text in await (self._list() if self._wanted.listed else self._sae()):
                _put(folder / name, text)
            for name in SHEETS:
                shutil.copyfile(ROOT / "static" / name, folder / name)
            done(self._wanted.pages)

    async def _feature(self, sae: q.SAERecord, index: int) -> list[tuple[str, str]]:
        page = await read_feature(self._db, sae, index, self._vocabulary)
        page.map, page.lists = None, []  # of this server, which nobody reads here
        file = file_of(sae, index)
        place = self._places[sae.id, index]
        around = {"previous": self._beside(sae, place - 1), "next": self._beside(sae, place + 1)}
        html = self._page("static/feature.html", file, json=file[:-5] + ".json", **(panels(page, Look()) | around))
        return [(file, html), (file[:-5] + ".json", self._json(page, file))]

    def _beside(self, sae: q.SAERecord, place: int) -> int | None:
        """The feature at a place, if it is one of the same SAE."""
        if not 0 <= place < len(self._wanted.features):
            return None
        other, index = self._wanted.features[place]
        return index if other.id == sae.id else None

    def _json(self, page: c.FeaturePage, file: str) -> str:
        """The page's twin, its links relative to it, null where they would lead out of the folder."""
        data = page.model_dump(mode="json")
        for one in [*data["neighbours"], *(data["usage"]["coactive"] if data["usage"] else [])]:
            there = self._files.get(one["url"])
            one["url"] = relative(file, there) if there else None
        for score in (score for one in data["explanations"] for score in one["scores"]):
            score["url"] = None
        return json.dumps(data, ensure_ascii=False)

    async def _list(self) -> list[tuple[str, str]]:
        assert self._wanted.listed is not None
        record, items = self._wanted.listed
        listed, named = await shown(self._vocabulary, self._db, items), await labelled(self._db, items)
        for one in listed:
            one.newer = one.newer_says = None  # of this server, which nobody reads here
        page = lc.ListPage(**summary(record), items=listed, next=None, cursor=None, share=None)
        html = self._page("static/list.html", "index.html", page=page, json="list.json", csv="list.csv")
        return [("index.html", html), ("list.json", as_json(record, named)), ("list.csv", as_csv(named))]

    async def _sae(self) -> list[tuple[str, str]]:
        sae = self._wanted.features[0][0]
        page, count = build.sae_page(sae, Overview([], [])), len(self._wanted.features)
        names = ["index.html", *(f"features-{number}.html" for number in range(2, self._wanted.sheets + 1))]
        sheets = {f"sheet-{number}": name for number, name in enumerate(names, 1)}
        out: list[tuple[str, str]] = []
        every: list[dict[str, Any]] = []
        for number, name in enumerate(names, 1):
            indices = tuple(i for _, i in self._wanted.features[(number - 1) * ROWS : number * ROWS])
            rows, _ = await b.page(
                self._db, sae.id, b.Filters(indices=indices), sort="index", descending=False, cursor=None, limit=ROWS
            )
            part = [
                build.row(sae, row).model_dump(exclude={"url"})
                | {"label_score": row.label_score, "file": file_of(sae, row.index)}
                for row in rows
            ]
            every += part
            told: dict[str, Any] = {
                "page": page,
                "rows": part,
                "sheet": number,
                "sheets_of": len(names),
                "shown": count,
            }
            out.append((name, self._page("static/sae.html", name, json="index.json", more=sheets, **told)))
        whole = page.model_dump(mode="json", exclude={"revisions"}) | {"features": every}
        return [*out, ("index.json", json.dumps(whole, ensure_ascii=False))]

    def _page(
        self, template: str, file: str, *, json: str, csv: str = "", more: dict[str, str] | None = None, **context: Any
    ) -> str:
        """A template, its links made those of the folder."""
        root = "../" * file.count("/")
        html = render_page(template, title=self._wanted.title, root=root, sheets=SHEETS, **context)
        return relinked(html, file, self._files | (more or {}) | {"index": "index.html", "json": json, "csv": csv})


def _put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
