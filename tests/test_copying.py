"""Binary COPY by columns: what psycopg sends row by row, and what PostgreSQL gives back."""

import struct
from contextlib import contextmanager
from math import inf, nan

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from psycopg import sql
from psycopg.copy import LibpqWriter

from app.store.copying import HEADER, TRAILER, Fixed, Ragged, Raw, copy_in, encode, ragged
from app.store.engine import database_url, sync_engine
from tests.conftest import database_beside

TYPES = {
    "flag": "bool", "small": "int2", "whole": "int4", "big": "int8", "single": "float4", "double": "float8",
    "smalls": "int2[]", "wholes": "int4[]", "bigs": "int8[]", "singles": "float4[]", "words": "text", "blob": "bytea",
}  # fmt: skip
DTYPES = {"bool": "?", "int2": "i2", "int4": "i4", "int8": "i8", "float4": "f4", "float8": "f8"}
LARGEST = float(np.finfo(np.float32).max)
# One row in each line, in the order of TYPES.
ROWS = [
    (True, 1, 2, 3, 0.5, 0.1, [1, 2], [3], [4, 5, 6], [0.25, -0.5], "word", b"\0\1"),
    (None,) * 12,
    (False, -(2**15), -(2**31), -(2**63), -inf, nan, [], [], [], [], "", b""),
    (True, 2**15 - 1, 2**31 - 1, 2**63 - 1, nan, inf, [-(2**15), 2**15 - 1], [-(2**31), 2**31 - 1],
     [-(2**63), 2**63 - 1], [inf, -inf, nan, -0.0, LARGEST], "naïve 🎉 שלום\n\\.\t", b"\xff\xfe"),
    (None, 0, None, 0, None, 0.0, None, [0], None, [0.0], None, b"PGCOPY\n\xff\r\n\0"),
]  # fmt: skip


@pytest.fixture(scope="module")
def beside(settings):
    engine = sync_engine(database_url(database_beside(settings, "copying")))
    yield engine
    engine.dispose()


@pytest.fixture
def connection(beside):
    with table_of(beside, TYPES) as connection:
        yield connection


@contextmanager
def table_of(engine, types):
    with engine.connect() as connection:
        fields = ", ".join(f"{name} {kind}" for name, kind in types.items())
        connection.exec_driver_sql(f"CREATE TEMPORARY TABLE copied ({fields}) ON COMMIT DROP")
        yield connection


def columns_of(rows, types=TYPES):
    return {name: column_of(kind, [row[i] for row in rows]) for i, (name, kind) in enumerate(types.items())}


def column_of(kind, values):
    if kind == "text":
        return Raw.of_strings(values)
    if kind == "bytea":
        return Raw.of_bytes(values)
    if kind.endswith("[]"):
        return ragged(values, DTYPES[kind[:-2]])
    nulls = np.array([value is None for value in values], bool)
    return Fixed(np.array([0 if value is None else value for value in values], DTYPES[kind]), nulls)


class Tee(LibpqWriter):
    """Also keeps what psycopg sends."""

    def __init__(self, cursor):
        super().__init__(cursor)
        self.sent = b""

    def write(self, data):
        self.sent += bytes(data)
        super().write(data)


def sent_by_psycopg(connection, types, rows):
    with connection.connection.cursor() as cursor:
        tee = Tee(cursor)
        with cursor.copy("COPY copied FROM STDIN (FORMAT BINARY)", writer=tee) as copy:
            copy.set_types(list(types.values()))
            for row in rows:
                copy.write_row(row)
        return tee.sent


def read(connection):
    # Binary: as text a float4 has fewer digits than the Python float that equals it.
    with connection.connection.cursor(binary=True) as cursor:
        return cursor.execute("SELECT * FROM copied").fetchall()


def exactly(rows):
    """Comparable: NaN equals itself and -0.0 is not 0.0, unlike with ==."""
    return [[repr(field) for field in row] for row in rows]


def copy(connection, chunks, types=TYPES):
    return copy_in(connection, sql.Identifier("copied"), types, chunks)


def test_every_type_comes_back_from_several_chunks(connection):
    chunks = [columns_of(rows) for rows in (ROWS[:2], [], ROWS[2:], ROWS[:1])]
    assert copy(connection, chunks) == 6
    assert exactly(read(connection)) == exactly([*ROWS, ROWS[0]])


def test_no_rows_at_all(connection):
    assert copy(connection, []) == 0
    assert copy(connection, [columns_of([])]) == 0
    assert read(connection) == []


def test_by_hand():
    rows = encode({"a": "int2", "b": "int4[]"}, {"a": Fixed(np.array([7])), "b": ragged([[5, -1]], "i4")})
    array = struct.pack(">iii ii ii ii", 1, 0, 23, 2, 1, 4, 5, 4, -1)
    assert bytes(rows) == struct.pack(">h ih i", 2, 2, 7, len(array)) + array
    empty = encode({"b": "int4[]"}, {"b": ragged([[], None], "i4")})
    assert bytes(empty) == struct.pack(">h i iii  h i", 1, 12, 0, 0, 23, 1, -1)


def test_the_same_bytes_as_psycopg_for_every_type(connection):
    sent = sent_by_psycopg(connection, TYPES, ROWS)
    assert HEADER + bytes(encode(TYPES, columns_of(ROWS))) + TRAILER == sent


def ints(bits):
    return st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


ELEMENTS = {
    "bool": st.booleans(), "int2": ints(16), "int4": ints(32), "int8": ints(64),
    "float4": st.floats(width=32, allow_nan=False) | st.just(nan),
    "float8": st.floats(allow_nan=False) | st.just(nan),
    "text": st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=5),
    "bytea": st.binary(max_size=5),
}  # fmt: skip
ARRAYS = {f"{kind}[]": st.lists(ELEMENTS[kind], max_size=4) for kind in ("int2", "int4", "int8", "float4")}


@st.composite
def tables(draw):
    kinds = draw(st.lists(st.sampled_from(sorted(ELEMENTS | ARRAYS)), min_size=1, max_size=5))
    fields = [(ELEMENTS | ARRAYS)[kind] for kind in kinds]
    fields = [draw(st.sampled_from([field, st.none() | field])) for field in fields]
    rows = draw(st.lists(st.tuples(*fields), max_size=6))
    return {f"c{i}": kind for i, kind in enumerate(kinds)}, rows


@hypothesis_settings(max_examples=150, deadline=None)
@given(tables())
def test_the_same_bytes_as_psycopg_for_random_rows(beside, table):
    types, rows = table
    with table_of(beside, types) as connection:
        sent = sent_by_psycopg(connection, types, rows)
        assert HEADER + bytes(encode(types, columns_of(rows, types))) + TRAILER == sent
        assert exactly(read(connection)) == exactly(rows)


def test_a_matrix_is_rows_of_one_length():
    matrix = np.arange(6).reshape(3, 2)
    assert encode({"a": "int2[]"}, {"a": ragged(matrix.T[::-1], "i2")}) == encode(
        {"a": "int2[]"}, {"a": ragged([[1, 3, 5], [0, 2, 4]], "i4")}
    )
    empty = ragged(np.empty((2, 0)), "f4")
    assert encode({"a": "float4[]"}, {"a": empty}) == encode({"a": "float4[]"}, {"a": ragged([[], []], "f4")})


def test_whatever_stands_at_null_is_not_looked_at():
    nulls = np.array([False, True])
    given = encode({"a": "float4"}, {"a": Fixed(np.array([1.5, 1e300]), nulls)})
    assert bytes(given) == struct.pack(">h i f  h i", 1, 4, 1.5, 1, -1)


def test_columns_that_are_views_of_others():
    matrix = np.arange(6, dtype=">i4").reshape(3, 2)
    assert encode({"a": "int4"}, {"a": Fixed(matrix[:, 1])}) == encode({"a": "int4"}, {"a": Fixed(np.array([1, 3, 5]))})
    data = np.frombuffer(b"a-b-c-", np.uint8)[::2]
    assert encode({"a": "text"}, {"a": Raw(data, np.array([1, 2]))}) == encode(
        {"a": "text"}, {"a": Raw.of_strings(["a", "bc"])}
    )


NO, YES = np.array([False]), np.array([True])


@pytest.mark.parametrize(
    ("kind", "column", "reason"),
    [
        ("int2", Fixed(np.array([2**15])), "32768 overflows >i2"),
        ("int4", Fixed(np.array([-(2**31) - 1])), "-2147483649 overflows >i4"),
        ("int8", Fixed(np.array([2**64 - 1])), "18446744073709551615 overflows >i8"),
        ("float4", Fixed(np.array([1e39])), r"1e\+39 overflows >f4"),
        ("int2[]", Ragged(np.array([1, 70000]), np.array([2])), "70000 overflows >i2"),
        ("float4[]", Ragged(np.array([-1e39]), np.array([1])), r"-1e\+39 overflows >f4"),
        ("int4", Fixed(np.array([1.0])), "1-d values to write as >i4, got 1-d float64"),
        ("bool", Fixed(np.array([1])), "1-d values to write as bool, got 1-d int64"),
        ("int4", Fixed(np.array([[1]])), "got 2-d int64"),
        ("bytea", Raw(np.array([256]), np.array([1])), "to write as uint8, got 1-d int64"),
        ("text", Raw.of_strings(["a\0b"]), "NUL"),
        ("text", Fixed(np.array([1])), "Fixed cannot be written as 'text'"),
        ("int4", ragged([[1]], "i4"), "Ragged cannot be written as 'int4'"),
        ("json", Raw.of_strings(["{}"]), "Raw cannot be written as 'json'"),
        ("int4", Fixed(np.array([1]), np.array([True, False])), r"each of the 1 rows, got bool \[2\]"),
        ("int4", Fixed(np.array([1]), np.array([0])), r"nulls must be a bool .* got int64 \[1\]"),
        ("int4[]", Ragged(np.array([1, 2]), np.array([1])), "sum to the 2 values, got 1"),
        ("text", Raw(np.array([65], np.uint8), np.array([2])), "sum to the 1 values, got 2"),
        ("int4[]", Ragged(np.array([1]), np.array([1]), YES), "lengths must be 0 where NULL"),
    ],
)  # fmt: skip
def test_refusals_name_the_column(kind, column, reason):
    with pytest.raises(ValueError, match=rf"column 'shares': .*{reason}"):
        encode({"fine": "int4", "shares": kind}, {"fine": Fixed(np.array([1]), NO), "shares": column})


def test_a_negative_length_is_refused():
    with pytest.raises(ValueError, match="column 'a': lengths"):
        encode({"a": "int4[]"}, {"a": Ragged(np.array([1]), np.array([2, -1]))})


def test_ragged_does_not_wrap():
    with pytest.raises(ValueError, match="70000 overflows int16"):
        ragged([np.array([1]), np.array([70000])], "i2")


def test_columns_must_have_the_same_rows_and_names():
    one, two = Fixed(np.array([1])), Raw.of_strings(["a", "b"])
    with pytest.raises(ValueError, match=r"same number of rows, got {'a': 1, 'b': 2}"):
        encode({"a": "int4", "b": "text"}, {"a": one, "b": two})
    with pytest.raises(ValueError, match=r"do not both name \['b', 'c'\]"):
        encode({"a": "int4", "b": "int4"}, {"a": one, "c": one})


def test_a_refused_chunk_leaves_nothing_and_the_connection_usable(connection):
    connection.exec_driver_sql("SAVEPOINT before")
    wrong = columns_of(ROWS) | {"small": Fixed(np.full(5, 2**15))}
    with pytest.raises(ValueError, match="column 'small'"):
        copy(connection, [columns_of(ROWS), wrong])
    connection.exec_driver_sql("ROLLBACK TO before")
    assert read(connection) == []
