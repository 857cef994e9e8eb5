"""Indexes over contexts' sparse vectors, side by side: time to build, size, time to find the 10 most alike, recall.

    python -m benchmarks.contexts --home DIR                     the newest harvest's contexts
    python -m benchmarks.contexts --home DIR --windows 200000    made of them: of two the half each

``postings`` is what saescope uses: a row a latent, all of its contexts in it, added up by numpy. ``rows`` is a table of
a row a (latent, context), added up by SQL. ``sparsevec`` is pgvector's type, scanned whole, or by HNSW. ``seismic`` is
pyseismic-lsr, where it is installed. Queries are contexts made in the same way, with none of their sources' text.
Tables are made in the database of ``--home`` under names of their own and dropped again.
"""

import argparse
import asyncio
import importlib.util
import json
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from psycopg import sql
from sqlalchemy import Connection, text

from app.harvest.context_columns import Vectors, posting_columns
from app.live.alike import Vector, most_alike
from app.settings import load_settings
from app.store.bulk import _POSTING_TYPES
from app.store.contexts import get_postings
from app.store.copying import Column, Fixed, copy_in
from app.store.engine import async_engine, database_url, sync_engine

TOP = 10
Array = npt.NDArray[Any]
Find = Callable[[Vector], list[int]]


def stored(connection: Connection) -> tuple[Vectors, int]:
    """The newest harvest's vectors and its number of latents."""
    number, n = connection.execute(text("SELECT id, n_latents FROM sae ORDER BY id DESC LIMIT 1")).one()
    rows = connection.execute(
        text("SELECT latent, contexts, weights, offsets FROM posting WHERE sae_id = :i"), {"i": number}
    )
    context, latent, offset, weight = [], [], [], []
    for index, contexts, weights, offsets in rows:
        context.append(np.frombuffer(contexts, "<i4"))
        weight.append(np.frombuffer(weights, "<f2"))
        offset.append(np.frombuffer(offsets, np.uint8))
        latent.append(np.full(len(context[-1]), index))
    columns = [np.concatenate(column) for column in (context, latent, offset, weight)]
    order = np.lexsort((columns[1], columns[0]))
    none = np.zeros(int(columns[0].max()) + 1, np.int64)
    return Vectors(none, none, none, *(column[order] for column in columns)), n


def mixed(source: Vectors, n: int, seed: int) -> Vectors:
    """``n`` vectors, each of about half the latents of two of ``source``, as many as one has, of norm 1."""
    rng = np.random.default_rng(seed)
    count = len(source.sequence)
    ends = np.cumsum(np.bincount(source.context, minlength=count))
    begins = ends - np.bincount(source.context, minlength=count)
    context, latent, weight = [], [], []
    for number in range(n):
        a, b = rng.integers(count, size=2)
        held: dict[int, float] = {}
        for one in (a, b):
            entries = np.arange(begins[one], ends[one])
            for entry in rng.permutation(entries)[: (len(entries) + 1) // 2].tolist():
                held[int(source.latent[entry])] = float(source.weight[entry])
        names = np.array(sorted(held))
        values = np.array([held[name] for name in names.tolist()])
        context.append(np.full(len(names), number))
        latent.append(names)
        weight.append((values / np.linalg.norm(values)).astype(np.float16))
    entries, none = np.concatenate(context), np.zeros(n, np.int64)
    return Vectors(
        none, none, none, entries, np.concatenate(latent), np.zeros(len(entries), np.uint8), np.concatenate(weight)
    )


def asked(found: Vectors) -> list[Vector]:
    """The vectors as prompts'."""
    edges = np.searchsorted(found.context, np.arange(len(found.sequence) + 1))
    return [
        Vector(
            found.latent[a:b].astype(np.int64), np.zeros(b - a, np.int64), found.weight[a:b].astype(np.float64), b - a
        )
        for a, b in pairwise(edges)
    ]


def text_of(vector: Vector, n: int) -> str:
    pairs = zip(vector.latent.tolist(), vector.strength.tolist(), strict=True)
    return "{" + ",".join(f"{latent + 1}:{value:.6g}" for latent, value in pairs) + f"}}/{n}"


@contextmanager
def timed(out: dict[str, Any], name: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    out[name] = round(time.perf_counter() - start, 2)


def size(connection: Connection, table: str) -> float:
    bytes_: int = connection.execute(text(f"SELECT pg_total_relation_size('{table}')")).scalar_one()
    return round(bytes_ / 2**20, 1)


def measured(queries: list[Vector], find: Find, truth: list[list[int]] | None, out: dict[str, Any]) -> list[list[int]]:
    find(queries[0])
    answers, spent = [], []
    for query in queries:
        start = time.perf_counter()
        answers.append(find(query))
        spent.append(1000 * (time.perf_counter() - start))
    out["p50_ms"], out["p95_ms"] = round(statistics.median(spent), 1), round(sorted(spent)[int(0.95 * len(spent))], 1)
    if truth is not None:
        same = [len(set(a) & set(b)) / len(b) for a, b in zip(answers, truth, strict=True)]
        out["recall@10"] = round(statistics.mean(same), 3)
    return answers


def postings(
    connection: Connection, url: Any, given: Vectors, queries: list[Vector], out: dict[str, Any]
) -> list[list[int]]:
    """In the real table, as a partition of its own, through the functions that the site calls."""
    connection.execute(text("CREATE TABLE posting_999999 (LIKE posting INCLUDING STORAGE)"))
    with timed(out, "build_s"):
        chunks = ({"sae_id": Fixed(np.full(len(c["latent"].values), 999_999)), **c} for c in posting_columns(given))  # type: ignore[union-attr]
        copy_in(connection, sql.Identifier("posting_999999"), _POSTING_TYPES, chunks)
        connection.execute(text("ALTER TABLE posting ATTACH PARTITION posting_999999 FOR VALUES IN (999999)"))
    connection.commit()
    out["mb"] = size(connection, "posting_999999")
    connection.commit()
    try:
        with asyncio.Runner() as runner:
            engine = async_engine(url)

            async def find(query: Vector) -> list[int]:
                async with engine.connect() as db:
                    lists = await get_postings(db, 999_999, query.latent.tolist())
                best, _ = await asyncio.to_thread(most_alike, lists, query, top=TOP)
                return [one.context for one in best]

            answers = measured(queries, lambda query: runner.run(find(query)), None, out)
            runner.run(engine.dispose())
        return answers
    finally:
        connection.execute(text("DROP TABLE posting_999999"))
        connection.commit()


def rows(
    connection: Connection, given: Vectors, queries: list[Vector], truth: list[list[int]], out: dict[str, Any]
) -> None:
    connection.execute(text("CREATE UNLOGGED TABLE bench_rows (latent int4, context int4, weight float4)"))
    with timed(out, "build_s"):
        columns = {"latent": given.latent, "context": given.context, "weight": given.weight.astype(np.float32)}
        kinds = {"latent": "int4", "context": "int4", "weight": "float4"}
        step = 1 << 20
        chunks: Iterator[dict[str, Column]] = (
            {k: Fixed(v[i : i + step]) for k, v in columns.items()} for i in range(0, len(given.latent), step)
        )
        copy_in(connection, sql.Identifier("bench_rows"), kinds, chunks)
        connection.execute(text("CREATE INDEX ON bench_rows (latent) INCLUDE (context, weight)"))
        connection.execute(text("ANALYZE bench_rows"))
    out["mb"] = size(connection, "bench_rows")
    query = text(
        "SELECT r.context FROM unnest(CAST(:latents AS int4[]), CAST(:weights AS float4[])) AS q (latent, weight) "
        "JOIN bench_rows r USING (latent) GROUP BY r.context ORDER BY sum(q.weight * r.weight) DESC, r.context LIMIT 10"
    )

    def find(one: Vector) -> list[int]:
        given = {"latents": one.latent.tolist(), "weights": one.strength.tolist()}
        return list(connection.execute(query, given).scalars())

    measured(queries, find, truth, out)
    connection.execute(text("DROP TABLE bench_rows"))


def sparsevec(
    connection: Connection, given: Vectors, n: int, queries: list[Vector], truth: list[list[int]], out: dict[str, Any]
) -> None:
    connection.execute(text(f"CREATE UNLOGGED TABLE bench_vec (id int4, v sparsevec({n}))"))
    raw: Any = connection.connection.driver_connection
    with timed(out, "copy_s"), raw.cursor() as cursor, cursor.copy("COPY bench_vec FROM STDIN") as copy:
        for number, vector in enumerate(asked(given)):
            copy.write_row((number, text_of(vector, n)))
    out["scan_mb"] = size(connection, "bench_vec")
    query = text("SELECT id FROM bench_vec ORDER BY v <#> CAST(:v AS sparsevec) LIMIT 10")

    def find(one: Vector) -> list[int]:
        return list(connection.execute(query, {"v": text_of(one, n)}).scalars())

    out["scan"] = {}
    measured(queries[:20], find, truth[:20], out["scan"])
    connection.execute(text("SET LOCAL maintenance_work_mem = '2GB'"))
    with timed(out, "hnsw_build_s"):
        connection.execute(text("CREATE INDEX ON bench_vec USING hnsw (v sparsevec_ip_ops)"))
    out["hnsw_mb"] = size(connection, "bench_vec") - out["scan_mb"]
    connection.execute(text("SET LOCAL enable_seqscan = off"))
    for effort in (40, 200):
        connection.execute(text(f"SET LOCAL hnsw.ef_search = {effort}"))
        out[f"hnsw_ef{effort}"] = {}
        measured(queries, find, truth, out[f"hnsw_ef{effort}"])
    connection.execute(text("DROP TABLE bench_vec"))


def seismic(given: Vectors, n: int, queries: list[Vector], truth: list[list[int]], out: dict[str, Any]) -> None:
    """In memory; negative weights it has no notion of."""
    module: Any = importlib.import_module("seismic")
    edges = np.searchsorted(given.context, np.arange(len(given.sequence) + 1))
    with timed(out, "build_s"):
        dataset = module.SeismicDataset(dim=n)
        names = [str(number) for number in range(len(given.sequence))]
        dataset.add_documents_by_id(names, given.latent.astype(np.int64), given.weight.astype(np.float32), edges)
        index = module.SeismicIndex.build_from_dataset(dataset, num_threads=1)
    kind = module.get_seismic_string()
    for cut, heap in ((10, 0.8), (64, 1.0)):

        def find(one: Vector, cut: int = cut, heap: float = heap) -> list[int]:
            tokens = np.array([str(latent) for latent in one.latent.tolist()], dtype=kind)
            found = index.search(
                query_id="q", query_components=tokens, query_values=one.strength.astype(np.float32), k=TOP,
                query_cut=cut, heap_factor=heap,
            )  # fmt: skip
            return [int(name) for _, _, name in found]

        out[f"cut{cut}"] = {}
        measured(queries, find, truth, out[f"cut{cut}"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path)
    parser.add_argument("--windows", type=int, help="the default is the harvest's own")
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--only", default="postings,rows,sparsevec,seismic")
    given = parser.parse_args()
    url = database_url(load_settings(home=given.home))
    engine = sync_engine(url)
    with engine.connect() as connection:
        source, n = stored(connection)
        connection.rollback()
        vectors = source if given.windows is None else mixed(source, given.windows, 0)
        queries = asked(mixed(source, given.queries, 1))
        told: dict[str, Any] = {"contexts": len(vectors.sequence), "entries": len(vectors.latent), "latents": n}
        print(json.dumps(told), flush=True)
        wanted, truth = given.only.split(","), []
        for name in wanted:
            out: dict[str, Any] = {}
            if name == "postings":
                truth = postings(connection, url, vectors, queries, out)
            elif name == "rows":
                rows(connection, vectors, queries, truth, out)
            elif name == "sparsevec":
                sparsevec(connection, vectors, n, queries, truth, out)
            elif importlib.util.find_spec("seismic"):
                seismic(vectors, n, queries, truth, out)
            connection.rollback()
            print(json.dumps({name: out}), flush=True)
    engine.dispose()


if __name__ == "__main__":
    main()
