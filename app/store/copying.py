"""PostgreSQL's binary COPY, encoded column by column with numpy: no Python loop over rows.

The format is that of https://www.postgresql.org/docs/current/sql-copy.html, arrays as array_send writes them; all
numbers are big endian.
"""

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt
import psycopg
from psycopg import sql
from sqlalchemy import Connection

Array = npt.NDArray[Any]
Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.integer[Any]]

HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
TRAILER = b"\xff\xff"

_INT4 = np.dtype(">i4")
# Element types: how numpy writes them, and their oid.
_ELEMENTS = {
    "bool": ("?", 16), "int8": (">i8", 20), "int2": (">i2", 21), "int4": (">i4", 23), "float4": (">f4", 700),
    "float8": (">f8", 701),
}  # fmt: skip
_TAKES = {"b": "b", "i": "iu", "u": "u", "f": "fiu"}  # the kinds of values an array of a kind can be made from


class Fixed(NamedTuple):
    """One number or bool a row. values: [rows]; nulls: [rows] bool, true where NULL (whatever the value there)."""

    values: Array
    nulls: Bools | None = None


class Ragged(NamedTuple):
    """One array a row. values: [sum of lengths], row after row; lengths: [rows], 0 where NULL; nulls: [rows] bool."""

    values: Array
    lengths: Ints
    nulls: Bools | None = None


class Raw(NamedTuple):
    """One text (UTF-8) or bytea a row. data: [sum of lengths] uint8; lengths: [rows], 0 where NULL; nulls: [rows]."""

    data: npt.NDArray[np.uint8]
    lengths: Ints
    nulls: Bools | None = None

    @classmethod
    def of_bytes(cls, rows: Sequence[bytes | None]) -> Self:
        data = np.frombuffer(b"".join(row or b"" for row in rows), np.uint8)
        return cls(data, *_lengths_and_nulls(rows))

    @classmethod
    def of_strings(cls, rows: Sequence[str | None]) -> Self:
        return cls.of_bytes([None if row is None else row.encode() for row in rows])


Column = Fixed | Ragged | Raw


def ragged(rows: Array | Sequence[Any], dtype: npt.DTypeLike) -> Ragged:
    """``rows`` as ``dtype``: a [rows, length] array, or a list with a sequence of numbers a row, None for NULL.

    Raises:
        ValueError: a value does not fit ``dtype``.
    """
    if isinstance(rows, np.ndarray) and rows.ndim == 2:
        return Ragged(_cast(rows.reshape(-1), np.dtype(dtype)), np.full(len(rows), rows.shape[1]))
    # An empty list has no dtype of its own and would make floats of the others.
    filled = [row for row in rows if row is not None and len(row)]
    values = np.concatenate(filled) if filled else np.empty(0, dtype)
    return Ragged(_cast(values, np.dtype(dtype)), *_lengths_and_nulls(rows))


def encode(types: dict[str, str], columns: dict[str, Column]) -> memoryview:
    """The rows of ``columns``, fields in the order of ``types`` (name: PostgreSQL type), without header and trailer.

    Raises:
        ValueError: a column is missing, has another number of rows, or holds what its type cannot.
    """
    if types.keys() != columns.keys():
        raise ValueError(f"types and columns do not both name {sorted(types.keys() ^ columns.keys())}")
    counts = {
        name: len(column.values if isinstance(column, Fixed) else column.lengths) for name, column in columns.items()
    }
    if len(set(counts.values())) != 1:
        raise ValueError(f"columns must have the same number of rows, got {counts}")
    rows = next(iter(counts.values()))
    parts = [_part(np.full(rows, len(types), ">i2"), np.ones(rows))]
    for name, kind in types.items():
        try:
            parts += _field(kind, columns[name], rows)
        except ValueError as error:
            raise ValueError(f"column {name!r}: {error}") from None
    return _interleaved(_joined(parts, rows)).data if rows else memoryview(b"")


def copy_in(
    connection: Connection, table: sql.Identifier, types: dict[str, str], chunks: Iterable[dict[str, Column]]
) -> int:
    """Stream ``chunks`` into ``table`` by one COPY; return the number of rows the server took."""
    raw: psycopg.Connection = connection.connection.driver_connection  # type: ignore[assignment]
    names = sql.SQL(", ").join(map(sql.Identifier, types))
    with raw.cursor() as cursor:
        with cursor.copy(sql.SQL("COPY {} ({}) FROM STDIN (FORMAT BINARY)").format(table, names)) as copy:
            copy.write(HEADER)
            for chunk in chunks:
                copy.write(encode(types, chunk))
            copy.write(TRAILER)
        return cursor.rowcount


class _Part(NamedTuple):
    """A piece of every row: the next ``counts[row]`` items. items: [sum of counts, width] uint8; counts: [rows]."""

    items: npt.NDArray[np.uint8]
    counts: Ints


def _part(items: Array, counts: Array) -> _Part:
    """items: [n] or [n, k] of any dtype; counts: [rows]."""
    matrix = items if items.ndim == 2 else items[:, None]
    return _Part(np.ascontiguousarray(matrix).view(np.uint8), counts.astype(np.int64))


def _lengths_and_nulls(rows: Iterable[Any]) -> tuple[Ints, Bools]:
    lengths = np.array([-1 if row is None else len(row) for row in rows], np.int64)
    return np.maximum(lengths, 0), lengths < 0


def _field(kind: str, column: Column, rows: int) -> list[_Part]:
    """A field: its int32 length in bytes, -1 for NULL, then the bytes."""
    nulls = np.zeros(rows, np.bool_) if column.nulls is None else column.nulls
    if nulls.dtype != np.bool_ or nulls.shape != (rows,):
        raise ValueError(f"nulls must be a bool for each of the {rows} rows, got {nulls.dtype} {list(nulls.shape)}")
    element = kind.removesuffix("[]")
    match column:
        case Fixed() if kind in _ELEMENTS:
            body = [_part(_cast(column.values[~nulls], np.dtype(_ELEMENTS[kind][0])), ~nulls)]
        case Ragged() if kind != element and element in _ELEMENTS:
            body = _array(*_ELEMENTS[element], column, ~nulls)
        case Raw() if kind in ("text", "bytea"):
            if kind == "text" and not column.data.all():
                raise ValueError("PostgreSQL's text cannot hold a NUL character")
            body = [_part(_cast(column.data, np.dtype(np.uint8)), column.lengths)]
        case _:
            raise ValueError(f"{type(column).__name__} cannot be written as {kind!r}")
    items, counts = body[-1]
    if counts.min(initial=0) < 0 or counts.sum() != len(items) or counts[nulls].any():
        raise ValueError(f"lengths must be 0 where NULL and sum to the {len(items)} values, got {counts.sum()}")
    sizes = np.sum([part.counts * part.items.shape[1] for part in body], axis=0)
    return [_part(_cast(np.where(nulls, -1, sizes), _INT4), np.ones(rows)), *body]


def _array(dtype: str, oid: int, column: Ragged, present: Bools) -> list[_Part]:
    """Number of dimensions (0 if empty), has-null flag, oid; then length and lower bound; then size and value each."""
    filled = column.lengths > 0
    heads = np.zeros((np.count_nonzero(present), 3), _INT4)
    heads[:, 0], heads[:, 2] = filled[present], oid
    bounds = np.ones((np.count_nonzero(filled), 2), _INT4)
    bounds[:, 0] = column.lengths[filled]
    elements = np.empty(len(column.values), [("size", _INT4), ("value", dtype)])
    elements["size"], elements["value"] = np.dtype(dtype).itemsize, _cast(column.values, np.dtype(dtype))
    return [_part(heads, present), _part(bounds, filled), _part(elements, column.lengths)]


def _cast(values: Array, dtype: np.dtype[Any]) -> Array:
    """values: [n] -> [n] of ``dtype``. Floats are rounded, but never to infinity; integers do not wrap."""
    if values.ndim != 1 or values.dtype.kind not in _TAKES[dtype.kind]:
        raise ValueError(f"expected 1-d values to write as {dtype}, got {values.ndim}-d {values.dtype}")
    if np.can_cast(values.dtype, dtype) or not len(values):
        return values.astype(dtype)
    with np.errstate(over="ignore"):
        cast = values.astype(dtype)
    if (wrong := np.isinf(cast) & np.isfinite(values) if dtype.kind == "f" else cast != values).any():
        raise ValueError(f"{values[wrong][0]} overflows {dtype}")
    return cast


def _joined(parts: list[_Part], rows: int) -> list[_Part]:
    """The same bytes in fewer parts: neighbours with as many items in every row become one item a row."""
    joined: list[_Part] = []
    for even, run in groupby(parts, key=lambda part: bool((part.counts == part.counts[0]).all())):
        group = list(run)
        if even:
            group = [_part(np.hstack([part.items.reshape(rows, -1) for part in group]), np.ones(rows))]
        joined += group
    return joined


def _interleaved(parts: list[_Part]) -> npt.NDArray[np.uint8]:
    """Row after row, each with its items of every part in turn -> [bytes]."""
    if len(parts) == 1:
        return parts[0].items.reshape(-1)
    sizes = [part.counts * part.items.shape[1] for part in parts]
    ends = np.cumsum(np.sum(sizes, axis=0))
    out = np.empty(ends[-1], np.uint8)
    at = ends - np.sum(sizes, axis=0)  # where the next item of each row goes
    for (items, counts), size in zip(parts, sizes, strict=True):
        n, width = items.shape
        if items.size:
            firsts = np.cumsum(size) - size
            places = np.repeat(at - firsts, counts) + np.arange(0, n * width, width)
            # A place an item and not a byte: to numpy, an item as wide as this part starts at every byte of out.
            windows = np.ndarray((len(out) - width + 1,), f"V{width}", out, strides=(1,))
            windows[places] = items.view(f"V{width}")[:, 0]
        at += size
    return out
