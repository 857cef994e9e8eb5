"""Many people browsing for a while: `python -m benchmarks.soak --home DIR --clients 200 --minutes 10`.

Each client keeps one connection, opens a page, reads for a time (exponential, ``--pause`` seconds on average), and
opens the next: features at random, their cards and JSON, the table in several orders, the home page, and a few
prompts. An error is a status of 400 or more, or a connection that breaks. Memory is the server's own, every five
seconds from /metrics.
"""

import argparse
import asyncio
import gzip
import json
import random
import statistics
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

from prometheus_client.parser import text_string_to_metric_families

from app import urls
from app.settings import load_settings
from app.store.engine import database_url
from benchmarks.pages import server
from benchmarks.wire import AsyncWire

PROMPTS = [f"The capital of {place} is" for place in ("France", "Peru", "Japan", "Kenya", "Norway")]
KINDS = ("feature", "table", "card", "feature.json", "sae", "home", "inspect")
SHARES = (50, 15, 12, 8, 5, 5, 5)
SORTS = ("density", "max", "label", "index")


class Asked(NamedTuple):
    kind: str
    path: str
    body: Any = None


def next_page(slug: str, latents: int, drawn: random.Random) -> Asked:
    index = drawn.randrange(latents)
    match drawn.choices(KINDS, SHARES)[0]:
        case "feature":
            return Asked("feature", urls.feature(slug, index))
        case "table":
            return Asked("table", urls.features(slug, sort=drawn.choice(SORTS), order=drawn.choice(("asc", "desc"))))
        case "card":
            return Asked("card", urls.card(slug, index))
        case "feature.json":
            return Asked("feature.json", urls.feature_json(slug, index))
        case "sae":
            return Asked("sae", urls.sae(slug))
        case "home":
            return Asked("home", urls.home())
        case _:
            return Asked("inspect", urls.api_inspect(), {"sae": slug, "text": drawn.choice(PROMPTS)})


class Soak:
    """What was seen: seconds by kind of page, errors by what they were, memory by time."""

    def __init__(self, base: str, slug: str, latents: int, pause: float) -> None:
        self._base, self._slug, self._latents, self._pause = base, slug, latents, pause
        self.seconds: dict[str, list[float]] = {}
        self.errors: dict[str, int] = {}
        self.memory: list[tuple[float, float]] = []

    async def run(self, clients: int, seconds: float) -> None:
        end = time.perf_counter() + seconds
        await asyncio.gather(self._watch(end), *(self._client(number, end) for number in range(clients)))

    async def _client(self, number: int, end: float) -> None:
        drawn = random.Random(number)
        wire = None
        while True:
            await asyncio.sleep(drawn.expovariate(1 / self._pause))
            if time.perf_counter() > end:
                break
            asked = next_page(self._slug, self._latents, drawn)
            try:
                wire = wire or await AsyncWire(self._base).open()
                started = time.perf_counter()
                answer = await (wire.get(asked.path) if asked.body is None else wire.post(asked.path, asked.body))
                self.seconds.setdefault(asked.kind, []).append(time.perf_counter() - started)
                if answer.status >= 400:
                    self._error(f"{asked.kind} {answer.status}")
            except (OSError, asyncio.IncompleteReadError) as error:
                self._error(f"{asked.kind} {type(error).__name__}")
                wire = None
        if wire is not None:
            wire.close()

    def _error(self, what: str) -> None:
        self.errors[what] = self.errors.get(what, 0) + 1

    async def _watch(self, end: float) -> None:
        started = time.perf_counter()
        while time.perf_counter() < end:
            wire = await AsyncWire(self._base).open()
            body = (await wire.get("/metrics")).body
            wire.close()
            self.memory.append((time.perf_counter() - started, _resident(body)))
            await asyncio.sleep(5)

    def told(self, minutes: float, clients: int) -> dict[str, Any]:
        every = [one for times in self.seconds.values() for one in times]
        held, third = [taken / 1e6 for _, taken in self.memory], max(len(self.memory) // 3, 1)
        return {
            "clients": clients, "minutes": minutes, "requests": len(every),
            "per_second": round(len(every) / (60 * minutes), 1),
            "errors": sum(self.errors.values()), "errors_by_kind": self.errors,
            "ms": _percentiles(every) | {kind: _percentiles(times) for kind, times in sorted(self.seconds.items())},
            "memory_mb": {
                "first": round(held[0]), "middle_third": round(statistics.mean(held[third : 2 * third] or held)),
                "last_third": round(statistics.mean(held[-third:])), "most": round(max(held)),
            },
        }  # fmt: skip


def _percentiles(times: list[float]) -> dict[str, Any]:
    found = sorted(times)
    at = {f"p{p}": round(1000 * found[min(len(found) * p // 100, len(found) - 1)], 1) for p in (50, 95, 99)}
    return at | {"n": len(found)}


def _resident(body: bytes) -> float:
    text = _plain(body).decode()
    for family in text_string_to_metric_families(text):
        for one in family.samples:
            if one.name == "process_resident_memory_bytes":
                return float(one.value)
    raise SystemExit(f"/metrics does not say how much memory the server takes: {text[:200]}")


def _plain(body: bytes) -> bytes:
    return gzip.decompress(body) if body[:2] == b"\x1f\x8b" else body


async def _first(base: str) -> tuple[str, int]:
    wire = await AsyncWire(base).open()
    body = (await wire.get(urls.saes_json())).body
    wire.close()
    found = json.loads(_plain(body))["items"]
    if not found:
        raise SystemExit("There is no SAE to browse; run scripts/demo on that home first.")
    return found[0]["slug"], found[0]["n_latents"]


def main() -> None:
    options = argparse.ArgumentParser(description="Many people browsing for a while.")
    options.add_argument("--home", type=Path, help="serve this home while it lasts")
    options.add_argument("--url", help="or ask a server that runs on this machine")
    options.add_argument("--clients", type=int, default=200)
    options.add_argument("--minutes", type=float, default=10.0)
    options.add_argument("--pause", type=float, default=5.0, help="seconds a client reads, on average")
    given = options.parse_args()
    if (given.home is None) == (given.url is None):
        options.error("give --home or --url")
    here = (
        nullcontext((given.url, 0)) if given.url else server(given.home, database_url(load_settings(home=given.home)))
    )
    with here as (base, _):
        slug, latents = asyncio.run(_first(base))
        soak = Soak(base, slug, latents, given.pause)
        print(f"{given.clients} clients for {given.minutes:g} minutes on {slug}", file=sys.stderr)
        asyncio.run(soak.run(given.clients, 60 * given.minutes))
    told = soak.told(given.minutes, given.clients)
    print(json.dumps(told, indent=1))
    if told["errors"]:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
