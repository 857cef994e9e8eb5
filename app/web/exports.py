"""The feature table as CSV and Parquet: every row the filters keep, never all in memory at once."""

import asyncio
import csv
import io
import json
import math
import tempfile
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, closing
from dataclasses import replace
from typing import IO, Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from sqlalchemy.ext.asyncio import AsyncConnection

from app.errors import BadRequest, DiskFull, ServerBusy, UnknownMap, UnknownSAE
from app.store import browse as b
from app.store import queries as q
from app.subject.tokens import Vocabulary
from app.web import browse_form as form
from app.web.browse_contexts import BrowseQuery
from app.web.map_filter import on_map
from app.web.refusals import refused
from app.web.routes import state_of
from app.web.streamed import Streamed

router = APIRouter(tags=["features"], responses=refused(BadRequest, UnknownSAE, UnknownMap, DiskFull, ServerBusy))
_CALLED = {"maximum": "max", "minimum": "min"}
COLUMNS = (*(_CALLED.get(name, name) for name in b.SCALARS), "tokens_by_probability", "tokens_by_mean", "promoted")
N_SCALARS = len(b.SCALARS)
TEXT = tuple(b.SCALARS.index(name) for name in ("label", "label_source"))
FORMULA = ("=", "+", "-", "@", "\t", "\r")
IN_MEMORY, PIECE, ROW_GROUP = 1 << 23, 1 << 18, 8 * b.CHUNK
Asked = Annotated[BrowseQuery, Query()]


class Texts(dict[int, str]):
    """Tokens as text, by id; each is made once. as_json: written as JSON strings."""

    def __init__(self, vocabulary: Vocabulary, *, as_json: bool = False) -> None:
        self._vocabulary, self._as_json = vocabulary, as_json

    def __missing__(self, token_id: int) -> str:
        text = self._vocabulary.text(token_id)
        self[token_id] = json.dumps(text, ensure_ascii=False) if self._as_json else text
        return self[token_id]


def scalars(row: Sequence[Any]) -> list[Any]:
    """The columns before the tokens, with None for what is no number."""
    return [None if isinstance(x, float) and math.isnan(x) else x for x in row[:N_SCALARS]]


def csv_text(rows: Sequence[Any], texts: Texts) -> str:
    """Lines of CSV. Lists of tokens are JSON. Text that a spreadsheet would take for a formula gets a leading
    apostrophe; numbers stay numbers. texts: of JSON strings."""
    out = io.StringIO()
    writer = csv.writer(out)
    for row in rows:
        values = scalars(row)
        for place in TEXT:
            if values[place].startswith(FORMULA):
                values[place] = f"'{values[place]}"
        tokens = (None if ids is None else f"[{', '.join([texts[i] for i in ids])}]" for ids in row[N_SCALARS:])
        writer.writerow([*values, *tokens])
    return out.getvalue()


def parquet_schema(about: dict[str, str]) -> Any:
    import pyarrow as pa  # type: ignore[import-untyped]

    whole = {"index": pa.int32(), "fired": pa.int64(), "first_fired": pa.int64(), "last_fired": pa.int64()}
    kinds = {**whole, "documents": pa.int64(), "label": pa.string(), "label_source": pa.string()}
    kinds |= dict.fromkeys(COLUMNS[-3:], pa.list_(pa.string()))
    return pa.schema([(name, kinds.get(name, pa.float32())) for name in COLUMNS], metadata=about)


class Parquet:
    """Rows into a file, a row group at a time. ``about`` goes into the file's metadata."""

    def __init__(self, file: IO[bytes], vocabulary: Vocabulary, about: dict[str, str]) -> None:
        import pyarrow.parquet as pq  # type: ignore[import-untyped]

        self._schema = parquet_schema(about)
        self._writer = pq.ParquetWriter(file, self._schema, compression="zstd")
        self._texts = Texts(vocabulary)
        self._rows: list[list[Any]] = []

    def add(self, rows: Sequence[Any]) -> None:
        texts = self._texts
        self._rows += [
            scalars(row) + [None if ids is None else [texts[i] for i in ids] for ids in row[N_SCALARS:]] for row in rows
        ]
        if len(self._rows) >= ROW_GROUP:
            self._write()

    def _write(self) -> None:
        import pyarrow as pa

        columns = list(zip(*self._rows, strict=True)) if self._rows else [()] * len(COLUMNS)
        arrays = [pa.array(column, field.type) for column, field in zip(columns, self._schema, strict=True)]
        self._writer.write_table(pa.Table.from_arrays(arrays, schema=self._schema))
        self._rows = []

    def finish(self) -> None:
        if self._rows:
            self._write()
        self.close()

    def close(self) -> None:
        self._writer.close()


def turn(request: Request) -> asyncio.Semaphore:
    """What an export holds while it reads the database.

    Raises:
        ServerBusy: as many as may run at once are running.
    """
    exports = state_of(request).exports
    if exports.locked():
        raise ServerBusy("Too many exports are running already; try again when one of them is done.")
    return exports


async def prepared(request: Request, slug: str, query: BrowseQuery) -> tuple[q.SAERecord, b.Filters, Vocabulary]:
    state = state_of(request)
    async with state.database.connect() as db:
        sae = await q.get_sae(db, slug)
        chosen = await on_map(db, sae, query)
    vocabulary = await state.vocabulary(sae)
    kept = form.filters(query, sae, form.tokens_meant(query, sae, vocabulary))
    return sae, replace(kept, on_map=chosen), vocabulary


def headers(sae: q.SAERecord, ending: str) -> dict[str, str]:
    name = f"{sae.slug}@{sae.revision}-features.{ending}"
    return {"content-disposition": f'attachment; filename="{name}"', "cache-control": "private, no-store"}


def all_rows(
    db: AsyncConnection, sae: q.SAERecord, kept: b.Filters, query: BrowseQuery
) -> aclosing[AsyncGenerator[Sequence[Any], None]]:
    """Closed with its cursor by whoever leaves, also midway."""
    return aclosing(b.stream(db, sae.id, kept, sort=query.sort, descending=query.way() == "desc"))


@router.get("/saes/{slug}/features.csv", response_class=Response)
async def features_csv(request: Request, slug: str, query: Asked) -> Response:
    """Every row of the feature table, in its order, as CSV; lists of tokens are JSON within their cells."""
    sae, kept, vocabulary = await prepared(request, slug, query)
    held = turn(request)

    async def lines() -> AsyncGenerator[str, None]:
        texts = Texts(vocabulary, as_json=True)
        yield ",".join(COLUMNS) + "\r\n"
        async with held, state_of(request).database.connect() as db, all_rows(db, sae, kept, query) as parts:
            async for rows in parts:
                yield await asyncio.to_thread(csv_text, rows, texts)

    return Streamed(lines(), media_type="text/csv; charset=utf-8", headers=headers(sae, "csv"))


@router.get("/saes/{slug}/features.parquet", response_class=Response)
async def features_parquet(request: Request, slug: str, query: Asked) -> Response:
    """Every row of the feature table, in its order, as Parquet, with metadata of the SAE, corpus and filters."""
    sae, kept, vocabulary = await prepared(request, slug, query)
    about = {
        "sae": sae.slug, "revision": sae.revision, "subject": sae.subject, "corpus": sae.corpus,
        "corpus_sha256": sae.corpus_sha256, "tokens": str(sae.tokens), "filters": json.dumps(query.ordered()),
    }  # fmt: skip
    held = turn(request)
    file = tempfile.SpooledTemporaryFile(IN_MEMORY)  # noqa: SIM115 - sent, and closed, after this returns
    try:
        table = await asyncio.to_thread(Parquet, file, vocabulary, about)
        with closing(table):
            async with held, state_of(request).database.connect() as db, all_rows(db, sae, kept, query) as parts:
                async for rows in parts:
                    await asyncio.to_thread(table.add, rows)
            await asyncio.to_thread(table.finish)
    except OSError as error:
        file.close()
        raise DiskFull(f"The file could not be made: {error.strerror or error}.") from error
    except BaseException:
        file.close()
        raise
    size = file.tell()
    file.seek(0)
    return Streamed(
        pieces(file),
        media_type="application/vnd.apache.parquet",
        headers=headers(sae, "parquet") | {"content-length": str(size)},
    )


async def pieces(file: IO[bytes]) -> AsyncGenerator[bytes, None]:
    with file:
        while piece := await asyncio.to_thread(file.read, PIECE):
            yield piece
