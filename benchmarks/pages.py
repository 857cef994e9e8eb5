"""Server time of the pages of synthetic SAEs of several sizes: `python -m benchmarks.pages --home DIR`.

The rows are those of benchmarks/synthetic.py, in a database of their own, made once and kept. At a million latents
each sixteenth has examples (and only such are opened), which changes no page but spares 6 GB. One uvicorn process
serves; one client (benchmarks/wire.py) asks over a kept connection, gzip on, one request after another for the
percentiles, the sizes in turn, and four connections at once for the requests a second. cpu_ms is what the server's
event loop ran for.
"""

import argparse
import gzip
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx2 as httpx
import numpy as np
from sqlalchemy import URL, text

from app import urls
from app.corpus.sources import documents
from app.demo.run import CORPUS, prepare_subject
from app.settings import load_settings
from app.store.engine import database_url, sync_engine
from app.store.migrate import migrate
from benchmarks.synthetic import save_synthetic
from benchmarks.wire import Answer, Wire

DATABASE = "saescope_pages"
SPARSE = 500_000  # from so many latents on, one in sixteen has examples
CLIENTS = 4


def every(size: int) -> int:
    return 16 if size >= SPARSE else 1


def database(home: URL) -> URL:
    server = sync_engine(home)
    with server.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        there = connection.execute(text("SELECT 1 FROM pg_database WHERE datname = :n"), {"n": DATABASE}).scalar()
        if not there:
            connection.exec_driver_sql(f"CREATE DATABASE {DATABASE}")
    server.dispose()
    return home.set(database=DATABASE)


def load(url: URL, folder: Path, texts: list[str], sizes: list[int]) -> dict[int, dict[str, float]]:
    engine = sync_engine(url)
    migrate(engine)
    told: dict[int, dict[str, float]] = {}
    for size in sizes:
        with engine.connect() as connection:
            known = connection.execute(text("SELECT id FROM sae WHERE n_latents = :n"), {"n": size}).scalar()
        started = time.perf_counter()
        if known is None:
            save_synthetic(engine, folder, texts, size, every(size))
        seconds = time.perf_counter() - started
        with engine.connect() as connection:
            known = connection.execute(text("SELECT id FROM sae WHERE n_latents = :n"), {"n": size}).scalar_one()
            held = text("SELECT pg_total_relation_size(CAST(:t AS regclass))")
            gb = [connection.execute(held, {"t": f"{t}_{known}"}).scalar_one() / 1e9 for t in ("latent", "example")]
        told[size] = {"seconds": round(seconds, 1), "latent_gb": round(gb[0], 2), "example_gb": round(gb[1], 2)}
        print(f"{size:,} latents: {told[size]}", file=sys.stderr)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("VACUUM ANALYZE")
    engine.dispose()
    return told


@contextmanager
def server(home: Path, url: URL) -> Iterator[tuple[str, int]]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    given = {"SAESCOPE_DATABASE_URL": url.render_as_string(hide_password=False), "SAESCOPE_WORKER": "false"}
    command = [sys.executable, "-m", "app.cli", "serve", "--port", str(port), "--home", str(home)]
    process = subprocess.Popen(command, env={**os.environ, **given})
    base = f"http://127.0.0.1:{port}"
    try:
        for _ in range(300):
            try:
                httpx.get(f"{base}/healthz")
                break
            except httpx.TransportError:
                time.sleep(0.2)
        settle(process.pid)
        yield base, process.pid
    finally:
        process.terminate()
        process.wait(30)


def settle(process: int, at_most: float = 60.0) -> None:
    """Wait until the server has loaded the model, which it does in a thread of its own once it answers: a second in
    which the process runs for less than 20 ms."""
    end, told = time.perf_counter() + at_most, False
    while not told and time.perf_counter() < end:
        busy = _process_seconds(process)
        time.sleep(1)
        told = _process_seconds(process) - busy < 0.02


def _process_seconds(process: int) -> float:
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def paths(size: int, requests: int) -> dict[str, list[str]]:
    """The URLs of each page; latents are drawn at random among those with examples."""
    slug, step = f"synthetic-{size}", every(size)
    drawn = np.random.default_rng(size).choice(size // step, requests, replace=size // step < requests) * step
    found = {
        "feature": [urls.feature(slug, int(i)) for i in drawn],
        "feature.json": [urls.feature_json(slug, int(i)) for i in drawn],
        "card": [urls.card(slug, int(i)) for i in drawn],
        "sae": [urls.sae(slug)] * (requests // 4),
        "browse by label text": [urls.features(slug, q="the")] * (requests // 4),
    }
    for sort in ("index", "density", "max", "score", "label"):
        for order in ("asc", "desc"):
            found[f"browse by {sort} {order}"] = [urls.features(slug, sort=sort, order=order)] * (requests // 4)
    return found


def measure(base: str, wanted: dict[int, list[str]], process: int) -> dict[int, dict[str, float]]:
    """A page of every size, asked in turn, so that what else the machine does falls on all sizes alike."""
    times: dict[int, list[float]] = {size: [] for size in wanted}
    cpu = dict.fromkeys(wanted, 0.0)
    told: dict[int, dict[str, float]] = {}
    client = Wire(base)
    for paths in wanted.values():
        for path in paths[:10]:
            expect(client.get(path), 200, path)
    for number in range(len(next(iter(wanted.values())))):
        for size, paths in wanted.items():
            busy, start = on_cpu(process), time.perf_counter()
            answer = client.get(paths[number])
            times[size].append(1000 * (time.perf_counter() - start))
            cpu[size] += 1000 * (on_cpu(process) - busy)
            expect(answer, 200, paths[number])
            plain = gzip.decompress(answer.body) if answer.headers.get("content-encoding") == "gzip" else answer.body
            told[size] = {"kb_sent": round(len(answer.body) / 1000, 1), "kb": round(len(plain) / 1000, 1)}
    client.close()
    for size, paths in wanted.items():
        told[size] |= spread(times[size])
        told[size]["cpu_ms"] = round(cpu[size] / len(paths), 1)
        told[size]["requests_per_second"] = round(throughput(base, paths), 1)
    return told


def expect(answer: Answer, status: int, path: str) -> None:
    if answer.status != status:
        raise SystemExit(f"{path} was answered with {answer.status}, not {status}")


def on_cpu(process: int) -> float:
    """Seconds for which the thread that runs the server's event loop has run."""
    return int(Path(f"/proc/{process}/schedstat").read_text().split()[0]) / 1e9


def spread(times: list[float]) -> dict[str, float]:
    return {
        "p50_ms": round(statistics.median(times), 1),
        "p95_ms": round(sorted(times)[int(0.95 * len(times))], 1),
        "least_ms": round(min(times), 1),
    }


def throughput(base: str, wanted: list[str]) -> float:
    def ask(share: list[str]) -> None:
        client = Wire(base)
        for path in share:
            client.get(path)
        client.close()

    start = time.perf_counter()
    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(ask, (wanted[i::CLIENTS] for i in range(CLIENTS))))
    return len(wanted) / (time.perf_counter() - start)


def unchanged(base: str, wanted: list[str]) -> dict[str, float]:
    """The same pages to a reader who has them."""
    times, client = [], Wire(base)
    for path in wanted:
        tag = client.get(path).headers["etag"]
        start = time.perf_counter()
        answer = client.get(path, **{"if-none-match": tag})
        times.append(1000 * (time.perf_counter() - start))
        expect(answer, 304, path)
    client.close()
    return spread(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--home", type=Path)
    parser.add_argument("--sizes", type=int, nargs="+", default=[16_384, 131_072, 1_000_000])
    parser.add_argument("--requests", type=int, default=200)
    given = parser.parse_args()
    settings = load_settings(home=given.home)
    url = database(database_url(settings))
    texts = [document.text for document in documents(CORPUS, settings.home / "packages")]
    loaded = load(url, prepare_subject(settings.home), texts, given.sizes)
    out: dict[str, object] = {"loaded": loaded, "load": os.getloadavg()}
    asked = {size: paths(size, given.requests) for size in given.sizes}
    pages: dict[int, dict[str, dict[str, float]]] = {size: {} for size in given.sizes}
    with server(settings.home, url) as (base, process):
        for name in asked[given.sizes[0]]:
            told = measure(base, {size: asked[size][name] for size in given.sizes}, process)
            for size in given.sizes:
                pages[size][name] = told[size]
        for size in given.sizes:
            pages[size]["feature, 304"] = unchanged(base, asked[size]["feature"][:50])
    small, large = (pages[size]["feature"]["p50_ms"] for size in (min(given.sizes), max(given.sizes)))
    out |= {"pages": pages, "feature_largest_over_smallest": round(large / small, 2), "load_after": os.getloadavg()}
    print(json.dumps(out, indent=1))


if __name__ == "__main__":
    main()
