"""Time and memory of maps of synthetic SAEs: `python -m benchmarks.map --home DIR [--sizes 16384 131072 1000000]`.

Directions are drawn, as wide as the demo's subject: every latent near one of n / 64 others, which lie near one of
n / 4096. Every size has a process of its own; memory is its peak so far, the vectors included. Quality is measured as
`saescope map` does. At more than 131,072 latents UMAP and t-SNE lay out a sample of so many, and the others go to their
nearest. Tiles are asked of a server of their own over one connection, in random order.
"""

import argparse
import json
import random
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from sqlalchemy import text

from app.atlas import knn, layout, tiles
from app.atlas.arrays import Floats, Places
from app.atlas.finish import Laid, Part, finish
from app.atlas.places import apart, frame
from app.atlas.quality import quality
from app.atlas.recipe import SAMPLE, Recipe, Watch
from app.atlas.regions import by_density
from app.atlas.vectors import Vectors
from app.corpus.sources import documents
from app.demo.run import CORPUS, prepare_subject
from app.settings import load_settings
from app.store.engine import database_url, sync_engine
from app.store.map_bulk import MapRow, save_maps
from app.store.map_sources import find_source, read_latents
from benchmarks.pages import database, load, server
from benchmarks.wire import Wire

D = 576
VIEW = 60_000  # points drawn at once
T = TypeVar("T")


def directions(n: int, seed: int = 0) -> Floats:
    rng = np.random.default_rng(seed)
    coarse = rng.normal(size=(max(n // 4096, 2), D)).astype(np.float32)
    fine = coarse[rng.integers(0, len(coarse), max(n // 64, 8))] + rng.normal(size=(max(n // 64, 8), D)).astype(
        np.float32
    )
    rows = fine[rng.integers(0, len(fine), n)]
    rows += 0.7 * rng.standard_normal((n, D), dtype=np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows


class Stages:
    def __init__(self) -> None:
        self.told: dict[str, Any] = {}

    def __call__(self, name: str, run: Callable[[], T]) -> T:
        start, before = time.perf_counter(), time.process_time()
        out = run()
        seconds, cpu = time.perf_counter() - start, time.process_time() - before
        gb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        self.told[name] = {"seconds": round(seconds, 1), "cpu_s": round(cpu, 1), "gb": round(gb, 2)}
        print(name, self.told[name], file=sys.stderr, flush=True)
        return out


def numerics(n: int, methods: list[str], stages: Stages, device: str) -> tuple[Floats, Places]:
    rows = stages("vectors", lambda: directions(n))
    pca = stages("pca", lambda: layout.components(rows).places(rows))
    layouts = {"pca": pca}
    if {"umap", "tsne"} & {*methods}:
        chosen = np.sort(np.random.default_rng(0).permutation(n)[:SAMPLE])
        some = rows if len(chosen) == n else rows[chosen]
        graph = stages("knn", lambda: knn.graph(some, seed=0, device=device))
        stages.told["knn"] |= {"exact": graph.exact, "recall": round(graph.recall, 3), "laid_out": len(chosen)}
        if "pynndescent" in methods:
            knn.approximate(some[:500], knn.K, seed=0)  # compiles
            ids, _ = stages("pynndescent", lambda: knn.approximate(some, knn.K, seed=0))
            stages.told["pynndescent"] |= {"recall": round(knn.recall(ids, graph.ids), 3)}
        others = np.setdiff1d(np.arange(n), chosen)
        near = None
        if len(others):
            near = stages("nearest of the others", lambda: layout.into(rows[others], some, device=device))
        for name, lay_out in (("umap", layout.umap), ("tsne", layout.tsne)):
            if name not in methods:
                continue
            mine = stages(name, partial(lay_out, graph, pca[chosen], seed=0))
            layouts[name] = mine
            if near is not None:
                whole = np.empty((n, 2), np.float32)
                whole[chosen], whole[others] = mine, near.places(mine)
                layouts[name] = whole
    for name, places in layouts.items():
        found = stages(f"quality of {name}", partial(quality, rows, places, seed=0, device=device))
        stages.told[f"quality of {name}"] |= {
            "trustworthiness": round(found.trustworthiness, 3), "knn_preservation": round(found.knn_preservation, 3)
        }  # fmt: skip
    return rows, layouts[next((name for name in ("umap", "tsne") if name in layouts), "pca")]


def cutting(places: Places, stages: Stages) -> None:
    n = len(places)
    grid = stages("places", lambda: apart(frame(places).on_grid(places)))
    stages("regions", lambda: by_density(grid))
    rank = tiles.ranks(np.ones(n, bool), np.zeros(n, bool), np.full(n, np.nan), 0)
    cut = stages("tiles", lambda: list(tiles.tree(grid, rank)))
    stages.told["tiles"] |= {"tiles": len(cut), "levels": max(tile.z for tile in cut) + 1}
    points = size = 0
    for tile in cut:  # the whole map is seen: tiles by level until as many points are drawn as may be
        if points + len(tile.members) <= VIEW:
            points += len(tile.members)
            size += tiles.HEADER.itemsize + 9 * len(tile.members)
    stages.told["first view"] = {"points": points, "bytes": size}


def stored(home: Path, n: int, rows: Floats, places: Places, stages: Stages) -> None:
    """The rest of `saescope map`, and what a tile takes."""
    settings = load_settings(home=home)
    url = database(database_url(settings))
    folder = prepare_subject(home)
    texts = [document.text for document in documents(CORPUS, home / "packages")][:20]
    load(url, folder, texts, [n])
    engine = sync_engine(url)
    with engine.connect() as connection:
        source = find_source(connection, f"synthetic-{n}", None)
        latents = stages("reading latents", lambda: read_latents(connection, source.id))
    laid, vectors = Laid(places, {}, {}), Vectors(rows, np.arange(n))

    def finished() -> MapRow:
        whole = finish(Part(source, latents, vectors), Recipe(), laid, home, time.monotonic(), Watch())
        save_maps(engine, [whole])
        return whole.row

    row = stages("regions, names, tiles, COPY", finished)
    with engine.connect() as connection:
        asked = [
            tuple(row)
            for row in connection.execute(
                text("SELECT z, x, y FROM map_tile JOIN map ON id = map_id WHERE version = :v"), {"v": row.version}
            )
        ]
    engine.dispose()
    random.Random(0).shuffle(asked)
    took, size = [], 0
    with server(home, url) as (base, _):
        wire = Wire(base)
        here = f"/saes/synthetic-{n}/map/{row.version}"
        wire.get(f"{here}/0/0/0.bin")
        for z, x, y in asked * (1 + 200 // len(asked)):
            start = time.perf_counter()
            answer = wire.get(f"{here}/{z}/{x}/{y}.bin")
            took.append(1000 * (time.perf_counter() - start))
            assert answer.status == 200
            size = max(size, len(answer.body))
        picture = len(wire.get(f"{here}/density.png").body)
        wire.close()
    took.sort()
    stages.told["tile over HTTP"] = {
        "p50_ms": round(statistics.median(took), 1), "p95_ms": round(took[int(0.95 * len(took))], 1), "n": len(took),
        "largest": size, "picture": picture,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, help="where the demo has run; without it nothing is stored")
    parser.add_argument("--sizes", type=int, nargs="+", default=[16_384, 131_072])
    parser.add_argument(
        "--methods", nargs="+", default=["pca", "umap", "tsne"], help="also pynndescent, for its recall"
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one is None:
        told = {}
        for size in given.sizes:
            command = [sys.executable, "-m", "benchmarks.map", *sys.argv[1:], "--one", str(size)]
            told[size] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
        print(json.dumps(told, indent=1))
        return
    stages = Stages()
    rows, places = numerics(given.one, given.methods, stages, given.device)
    cutting(places, stages)
    if given.home is not None:
        stored(given.home, given.one, rows, places, stages)
    print(json.dumps(stages.told))


if __name__ == "__main__":
    main()
