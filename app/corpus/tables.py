"""Tables: parquet on this machine, read by small batches, and data sets streamed from the Hugging Face hub."""

import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from app.corpus.document import Columns, Document, Skipped, Unreadable, printable
from app.corpus.files import listed, why
from app.errors import CorpusUnavailable, HubUnavailable

BATCH = 64  # rows held at once
BUFFER = 1 << 20  # bytes of a column read at once: a row group need not fit into memory


def parquet(path: Path, columns: Columns, skipped: Skipped) -> Iterator[Document]:
    """Every row of the files at ``path`` as a document; rows, row groups and files that are none are skipped.

    Raises:
        CorpusUnavailable: there is no file, the only one is no parquet, or one lacks a column that is wanted.
    """
    import pyarrow as pa  # type: ignore[import-untyped]
    import pyarrow.parquet as pq  # type: ignore[import-untyped]

    files = listed(path, ".parquet")
    for file in files:  # before the first row, so that hours of reading do not end in a refusal
        try:
            names = pq.read_schema(file).names
        except (OSError, pa.ArrowException, UnicodeDecodeError) as error:  # the last of a column's name
            if file == path:
                raise CorpusUnavailable(f"{printable(str(path))} is no whole parquet file.", path=str(path)) from error
            continue  # met again below, and counted there
        columns.check(names, printable(str(file)))
    for file in files:
        name = str(file.relative_to(path) if file != path else file.name)
        try:
            with pq.ParquetFile(file, buffer_size=BUFFER) as table:
                wanted = columns.check(table.schema_arrow.names, printable(str(file)))
                start = 0
                for group in range(table.num_row_groups):
                    yield from _row_group(table, group, start, wanted, columns, name, skipped)
                    start += table.metadata.row_group(group).num_rows
        except FileNotFoundError:
            skipped.add(name, "gone")
        except (OSError, pa.ArrowException, UnicodeDecodeError):
            skipped.add(name, "no whole parquet file")


def _row_group(
    table: Any, group: int, start: int, wanted: list[str], columns: Columns, name: str, skipped: Skipped
) -> Iterator[Document]:
    """The documents of one row group, whose first row is number ``start`` + 1 of the file."""
    import pyarrow as pa

    number, rows = start, table.metadata.row_group(group).num_rows
    try:
        for batch in table.iter_batches(BATCH, row_groups=[group], columns=wanted, use_threads=False):
            read = {column: batch.column(batch.schema.names.index(column)) for column in wanted}
            for i in range(batch.num_rows):
                number += 1
                try:
                    row = {column: values[i].as_py() for column, values in read.items()}
                    document = columns.document(row, f"{name}:{number}")
                except (Unreadable, ValueError, OverflowError) as error:
                    skipped.add(f"{name}:{number}", why(error))
                    continue
                yield document
    except (OSError, pa.ArrowException):
        skipped.add(f"{name}:{number + 1}", "damaged", start + rows - number)


class DataSet(NamedTuple):
    """A data set of the hub. config, revision: None for the default."""

    repo: str
    config: str | None = None
    split: str = "train"
    revision: str | None = None


def streamed(source: DataSet, columns: Columns, skipped: Skipped) -> Iterator[Document]:
    """Every row as a document, named by its id or its number; HF_ENDPOINT and HF_TOKEN are honoured.

    Raises:
        HubUnavailable: the hub cannot be reached, or not this data set with this token.
        CorpusUnavailable: it has no such config, split or column.
    """
    for number, row in enumerate(_rows(source, columns), 1):
        try:
            document = columns.document(row, str(number))
        except Unreadable as error:
            skipped.add(f"{source.repo}:{number}", str(error))
            continue
        yield document


def _rows(source: DataSet, columns: Columns) -> Iterator[dict[str, object]]:
    import datasets  # type: ignore[import-untyped]
    from huggingface_hub import HfApi

    known, rows, reading = False, None, None
    try:
        # Asked first, since an unreachable hub is found out at once here and after half a minute of retries below.
        commit = HfApi().dataset_info(source.repo, revision=source.revision).sha
        # The hf:// makes it the hub's even where a folder here has the same name.
        rows = datasets.load_dataset(
            f"hf://datasets/{source.repo}", source.config, split=source.split, revision=commit, streaming=True
        )
        if rows.column_names:
            rows, known = rows.select_columns(columns.check(rows.column_names, source.repo)), True
        reading = iter(rows)
        for row in reading:
            if not known:
                columns.check(row, source.repo)
                known = True
            yield row
    except CorpusUnavailable:
        raise
    except Exception as error:  # its transport's and its readers' errors have no base of their own
        raise _refusal(source, error) from None
    finally:
        # Where reading stops early, pyarrow's threads would abort the process at its end (apache/arrow#45214).
        reading = rows = None
        gc.collect()


def _refusal(source: DataSet, error: Exception) -> HubUnavailable | CorpusUnavailable:
    from datasets.exceptions import DatasetsError  # type: ignore[import-untyped]
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError

    reason = printable(str(error).partition("\n")[0]).rstrip(".") or type(error).__name__
    match error:
        case GatedRepoError():
            says = f"{source.repo} is gated: ask for access on its page and set HF_TOKEN."
        case RepositoryNotFoundError():
            says = (
                f"There is no data set {source.repo} on the hub that can be read from here; a private one needs "
                "HF_TOKEN."
            )
        case RevisionNotFoundError():
            says = f"{source.repo} has no revision {source.revision!r}."
        case ValueError() | RuntimeError() | DatasetsError():  # of a config, a split or a file
            return CorpusUnavailable(f"{source.repo} cannot be read: {reason}.", repo=source.repo)
        case _:
            fault = "did not serve" if isinstance(error, HfHubHTTPError) else "cannot be reached for"
            says = (
                f"The hub {fault} {source.repo} ({reason}); try again, or download its files where there is a network "
                "and give parquet:FOLDER or jsonl:FOLDER."
            )
    return HubUnavailable(says, repo=source.repo, revision=source.revision)
