"""Search over many explanations: `python -m benchmarks.search --home DIR [--n 1000000]`.

The rows are made up: each text is one of ``TEXTS`` lists of words that the sentence model embeds in earnest, and its
vector is that text's with noise, of norm 1 (cosine about 0.9 to the text's own). Latents have narrow rows, of 2 to 3 kB
less than real ones. Queries are other texts. They are asked of app.store.search as pages do, one after another: time to
build, sizes, percentiles with and without filters, and the recall of the 10 nearest against all compared.
"""

import argparse
import asyncio
import hashlib
import json
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.embed.folder import fetched_model
from app.embed.model import SentenceModel
from app.settings import load_settings
from app.store import search as s
from app.store.browse import Range
from app.store.bulk import _LATENT_TYPES, fill_partition
from app.store.copying import Column, Fixed, Ragged, Raw
from app.store.embeddings import literal
from app.store.engine import async_engine, database_url, sync_engine
from app.store.migrate import migrate

DATABASE, TEXTS, QUERIES, CHUNK = "saescope_search", 2000, 100, 8192
_TYPES = {
    "sae_id": "int4", "latent": "int4", "method": "text", "text": "text", "label": "text", "embedding": "bytea",
}  # fmt: skip
LATENTS = _LATENT_TYPES | {"explanation_id": "int8"}
_HALFVEC = 4  # bytes before its numbers
Floats = npt.NDArray[np.float32]


def words() -> list[str]:
    """Common English words, from this repository's own prose."""
    prose = " ".join(file.read_text() for file in sorted(Path("docs").glob("*.md"))).lower()
    found = {word.strip(".,:;()`|*\"'") for word in prose.split()}
    return sorted(word for word in found if word.isalpha() and len(word) > 3)


def lists(rng: np.random.Generator, n: int) -> list[str]:
    """Words that come together: each list draws around a place in the alphabetical order of all."""
    known = np.array(words())
    places = rng.integers(0, len(known), (n, 1)) + rng.integers(0, 40, (n, 6))
    return [", ".join(row) for row in known[places % len(known)].tolist()]


def noisy(rng: np.random.Generator, vectors: Floats) -> Floats:
    rows = vectors + rng.normal(0, 0.48 / np.sqrt(vectors.shape[1]), vectors.shape).astype(np.float32)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def halfvecs(vectors: Floats) -> Raw:
    n, d = vectors.shape
    head = np.tile(np.frombuffer(np.array([d, 0], ">u2").tobytes(), np.uint8), (n, 1))
    data = np.concatenate([head, vectors.astype(">f2").view(np.uint8).reshape(n, 2 * d)], axis=1)
    return Raw(data.reshape(-1), np.full(n, 2 * d + _HALFVEC))


def explanations(n: int, texts: list[str], vectors: Floats) -> Iterator[dict[str, Column]]:
    rng = np.random.default_rng(1)
    for start in range(0, n, CHUNK):
        count = min(CHUNK, n - start)
        drawn = rng.integers(0, len(texts), count)
        said = [f"fires on {texts[i]}" for i in drawn.tolist()]
        methods = np.where(rng.random(count) < 0.001, "person", "token-rules").tolist()
        yield {
            "latent": Fixed(np.arange(start, start + count)), "method": Raw.of_strings(methods),
            "text": Raw.of_strings(said), "label": Raw.of_strings(said),
            "embedding": halfvecs(noisy(rng, vectors[drawn])),
        }  # fmt: skip


def latents(n: int, texts: list[str]) -> Iterator[dict[str, Column]]:
    """Rows with what search reads; all else is empty."""
    rng = np.random.default_rng(2)
    for start in range(0, n, CHUNK):
        count = min(CHUNK, n - start)
        density = 10 ** rng.normal(-3.2, 0.6, count).clip(-6, -0.5)
        told: dict[str, Column] = {
            "index": Fixed(np.arange(start, start + count)), "density": Fixed(density),
            "maximum": Fixed(np.ones(count)),
            "label": Raw.of_strings([texts[i] for i in rng.integers(0, len(texts), count).tolist()]),
            "label_source": Raw.of_strings(["token-rules"] * count), "label_score": Fixed(rng.random(count)),
            # Six of seven labels are an explanation's, as on the demo.
            "explanation_id": Fixed(np.arange(count), rng.random(count) > 0.86),
        }  # fmt: skip
        for name, kind in LATENTS.items():
            if name in told or name == "sae_id":
                continue
            empty = np.zeros(0, np.float32 if kind.startswith("float") else np.int32)
            told[name] = (
                Ragged(empty, np.zeros(count, np.int64)) if kind.endswith("[]") else Fixed(np.zeros(count, np.int64))
            )
        yield {name: told[name] for name in LATENTS if name != "sae_id"}


def known(connection: Connection, n: int) -> dict[str, Any]:
    """The rows of an earlier run."""
    found = connection.execute(text("SELECT id FROM sae WHERE slug = :s"), {"s": f"search-{n}"}).scalar()
    return {} if found is None else {"sae": found}


def load(connection: Connection, n: int, texts: list[str], vectors: Floats) -> dict[str, Any]:
    slug = f"search-{n}"
    subject = connection.execute(
        text(
            "INSERT INTO subject (name, path, facts) VALUES ('none', 'none', '{}') "
            "ON CONFLICT (name) DO UPDATE SET path = 'none' RETURNING id"
        )
    ).scalar_one()
    sae = connection.execute(
        text(
            "INSERT INTO sae (slug, revision, subject_id, reads, writes, architecture, d_in, n_latents, signed, "
            "config, path, sha256) VALUES (:s, '0', :m, '{}', '{}', 'topk', 576, :n, 0, '{}', 'none', :h) RETURNING id"
        ),
        {"s": slug, "m": subject, "n": n, "h": hashlib.sha256(slug.encode()).hexdigest()},
    ).scalar_one()
    started = time.perf_counter()
    fill_partition(connection, "latent", sae, LATENTS, latents(n, texts))
    rows = time.perf_counter()
    connection.exec_driver_sql("SET LOCAL maintenance_work_mem = '3GB'")
    connection.exec_driver_sql("SET LOCAL max_parallel_maintenance_workers = 2")
    fill_partition(connection, "explanation", sae, _TYPES, explanations(n, texts, vectors))
    return {"sae": sae, "latents_s": round(rows - started, 1), "explanations_s": round(time.perf_counter() - rows, 1)}


def sizes(connection: Connection, sae: int) -> dict[str, float]:
    """MB of the explanations' table and each of its indexes."""
    found = connection.execute(
        text(
            "SELECT coalesce(am.amname, 'table') || ' ' || c.relname, pg_relation_size(c.oid) / 1e6 FROM pg_class c "
            "LEFT JOIN pg_am am ON am.oid = c.relam WHERE c.relname LIKE :n AND c.relkind IN ('r', 'i')"
        ),
        {"n": f"explanation_{sae}%"},
    )
    return {name: round(float(mb), 1) for name, mb in found}


def percentiles(times: list[float]) -> dict[str, float]:
    ordered = sorted(1000 * one for one in times)
    return {"p50_ms": round(statistics.median(ordered), 1), "p95_ms": round(ordered[int(0.95 * len(ordered))], 1)}


async def exact(connection: AsyncConnection, sae: int, vector: str) -> list[float]:
    """The cosines of the 10 nearest, all compared."""
    await connection.exec_driver_sql("SET LOCAL enable_indexscan = off")
    rows = await connection.execute(
        text(
            "SELECT 1 - (embedding <=> CAST(:v AS halfvec)) FROM explanation WHERE sae_id = :s "
            "ORDER BY embedding <=> CAST(:v AS halfvec) LIMIT 10"
        ),
        {"v": vector, "s": sae},
    )
    return [float(one) for one in rows.scalars()]


async def measure(url: Any, n: int, sae: int, asked: list[str], vectors: Floats) -> dict[str, Any]:
    engine = async_engine(url)
    literals = [literal(vector) for vector in vectors]
    kinds: dict[str, tuple[s.Kept, bool, bool]] = {
        "words": (s.Kept((sae,), size=n), True, False),
        "meaning": (s.Kept((sae,), size=n), False, True),
        "both": (s.Kept((sae,), size=n), True, True),
        "both, a tenth by density": (s.Kept((sae,), size=n, density=Range(low=10**-2.43)), True, True),
        "both, a hundredth by density": (s.Kept((sae,), size=n, density=Range(low=10**-1.8)), True, True),
        "both, a thousandth by method": (s.Kept((sae,), size=n, method="person"), True, True),
        "both, a tenth by score": (s.Kept((sae,), size=n, score=Range(low=0.9)), True, True),
    }
    told: dict[str, Any] = {}
    for name, (kept, worded, meant) in kinds.items():
        times, full = [], 0
        for number in range(-5, len(asked)):  # five to warm up
            query, vector = (asked[number] if worded else ""), (literals[number] if meant else None)
            async with engine.connect() as connection:
                started = time.perf_counter()
                found = await s.both(connection, kept, query, vector, [sae], loose=False)
                seconds = time.perf_counter() - started
            if number >= 0:
                times.append(seconds)
                full += len(found.found) >= 20
        told[name] = percentiles(times) | {"full_pages": full / len(asked)}
        print(name, told[name], file=sys.stderr)
    least = []
    for vector in literals:
        async with engine.connect() as connection:
            least.append((await exact(connection, sae, vector))[-1])
    for ef in (40, 100, 200):
        s.EF_SEARCH, times, hits = ef, [], 0
        for vector, last in zip(literals, least, strict=True):
            async with engine.connect() as connection:
                started = time.perf_counter()
                found = await s.both(connection, s.Kept((sae,), size=n), "", vector, [sae], loose=False)
                times.append(time.perf_counter() - started)
            hits += sum((one.cosine or 0.0) >= last - 1e-6 for one in found.found[:10])
        told[f"ef_search {ef}"] = percentiles(times) | {"recall_at_10": hits / (10 * len(literals))}
        print(ef, told[f"ef_search {ef}"], file=sys.stderr)
    await engine.dispose()
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--n", type=int, default=1_000_000)
    parser.add_argument("--queries", type=int, default=QUERIES)
    parser.add_argument("--load", action="store_true", help="only load, for a run on a quiet machine later")
    given = parser.parse_args()
    settings = load_settings(home=given.home)
    server = sync_engine(database_url(settings))
    with server.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        there = connection.execute(text("SELECT 1 FROM pg_database WHERE datname = :n"), {"n": DATABASE}).scalar()
        if not there:
            connection.exec_driver_sql(f"CREATE DATABASE {DATABASE}")
    url = server.url.set(database=DATABASE)
    server.dispose()
    rng = np.random.default_rng(0)
    texts, asked = lists(rng, TEXTS), [one.split(", ")[0] for one in lists(rng, given.queries)]
    model = SentenceModel(fetched_model(settings))
    queries = model.encode([f"{one} and the like" for one in asked])
    engine = sync_engine(url)
    migrate(engine)
    with engine.begin() as connection:
        told = known(connection, given.n) or load(connection, given.n, texts, model.encode(texts))
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("VACUUM ANALYZE")
        told["mb"] = sizes(connection, told["sae"])
    print(told, file=sys.stderr)
    if given.load:
        return
    told |= asyncio.run(measure(url, given.n, told["sae"], asked, queries))
    print(json.dumps(told, indent=1))


if __name__ == "__main__":
    main()
