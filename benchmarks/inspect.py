"""Live inspection against a real server: `python -m benchmarks.inspect --home DIR [--soak MINUTES]`.

One uvicorn process on a home where the demo has run; this process is the client, and runs the bare model for
comparison in turn with it, so that what else the machine does falls on both. Every prompt is new, so that none comes
from the cache. Lag is how long /healthz takes while the load runs: the event loop's own, and the wire's.
"""

import argparse
import asyncio
import json
import os
import random
import statistics
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx2 as httpx
import torch

from app.demo.run import SAE_FOLDER, SLUG, SUBJECT, prepare_subject
from app.harvest.job import read_sae
from app.settings import load_settings
from app.store.engine import database_url
from app.subject.hooks import HookPoint, read_activations
from app.subject.load import Subject, load_subject
from benchmarks.pages import server
from benchmarks.wire import AsyncWire, Wire

WORDS = ("keeper", "journal", "storm", "passed", "over", "the", "sea", "while", "ships", "went", "by", "night")
TOGETHER = 16
PAUSE = 0.02  # seconds in which a team of OpenMP's threads, here or in the server, stops to spin for more work


class Bare:
    """The subject to the SAE's hook and the encoder, with nothing around them."""

    def __init__(self, subject: Subject) -> None:
        self.subject, self.sae = subject, read_sae(SAE_FOLDER).to(subject.device)
        self.hook = HookPoint.parse(self.sae.config.reads[0])

    def __call__(self, texts: list[str]) -> float:
        """Seconds for ``texts``, all of one length, in one batch."""
        ids = torch.tensor([self.ids(text) for text in texts], device=self.subject.device)
        start = time.perf_counter()
        x = read_activations(self.subject.model, ids, [self.hook])[self.hook]
        self.sae.encode(x[:, 1:].flatten(0, 1))
        return time.perf_counter() - start

    def ids(self, text: str) -> list[int]:
        return [int(self.subject.bos_id or 0), *self.subject.encode(text)]

    def text(self, tokens: int) -> str:
        """A new text of so many tokens, BOS included."""
        ids = self.ids(" ".join(random.choices(WORDS, k=2 * tokens)))[1:tokens]
        text = str(self.subject.tokenizer.decode(ids))
        return text if len(self.ids(text)) == tokens else self.text(tokens)


def ask(client: Wire, text: str) -> float:
    start = time.perf_counter()
    answer = client.post("/api/inspect", {"text": text, "sae": SLUG})
    if answer.status != 200:
        raise SystemExit(f"answered with {answer.status}: {answer.body[:200]!r}")
    return time.perf_counter() - start


def alone(client: Wire, bare: Bare, tokens: int, repeats: int) -> dict[str, float]:
    asked, bared = [], []
    for _ in range(repeats):
        text, other = bare.text(tokens), bare.text(tokens)
        time.sleep(PAUSE)
        bared.append(bare([text]))
        time.sleep(PAUSE)
        asked.append(ask(client, other))
    return {
        "bare_ms": round(1000 * statistics.median(bared), 1),
        "server_ms": round(1000 * statistics.median(asked), 1),
        "server_over_bare": round(statistics.median(a / b for a, b in zip(asked, bared, strict=True)), 2),
    }


async def at_once(many: list[AsyncWire], texts: list[str]) -> float:
    """Seconds until all of ``texts`` are answered, each asked for over a connection of its own."""
    start = time.perf_counter()
    bodies = ({"text": text, "sae": SLUG} for text in texts)
    answers = await asyncio.gather(*(wire.post("/api/inspect", body) for wire, body in zip(many, bodies, strict=True)))
    seconds = time.perf_counter() - start
    if {answer.status for answer in answers} != {200}:
        raise SystemExit(f"answered with {[answer.status for answer in answers]}")
    return seconds


async def together(base: str, bare: Bare, tokens: int, repeats: int) -> dict[str, float]:
    """What TOGETHER prompts at once gain over the same in turn, bare and through the server."""
    gains, bares, client = [], [], Wire(base)
    many = [await AsyncWire(base).open() for _ in range(TOGETHER)]
    for _ in range(repeats):
        texts = [bare.text(tokens) for _ in range(TOGETHER)]
        bares.append(sum(bare([text]) for text in texts) / bare(texts))
        in_turn = sum(ask(client, bare.text(tokens)) for _ in range(TOGETHER))
        gains.append(in_turn / await at_once(many, [bare.text(tokens) for _ in range(TOGETHER)]))
    client.close()
    for wire in many:
        wire.close()
    mine, other = statistics.median(gains), statistics.median(bares)
    return {"bare_gain": round(other, 2), "server_gain": round(mine, 2), "share": round(mine / other, 2)}


async def lag(client: httpx.AsyncClient, stop: asyncio.Event) -> list[float]:
    found = []
    while not stop.is_set():
        start = time.perf_counter()
        await client.get("/healthz")
        found.append(time.perf_counter() - start)
        await asyncio.sleep(0.05)
    return found


async def clients(base: str, bare: Bare, count: int, seconds: float) -> dict[str, Any]:
    """So many clients, each with one prompt of 16 to 128 tokens after another."""
    times: list[float] = []
    statuses: Counter[int] = Counter()
    end, stop = time.perf_counter() + seconds, asyncio.Event()
    texts = [bare.text(random.choice((16, 32, 64, 128))) for _ in range(200)]

    async def one(number: int) -> None:
        async with httpx.AsyncClient(base_url=base, timeout=120) as client:
            turn = 0
            while time.perf_counter() < end:
                turn += 1
                start = time.perf_counter()
                text = f"{number} {turn} {random.choice(texts)}"
                answer = await client.post("/api/inspect", json={"text": text, "sae": SLUG})
                statuses[answer.status_code] += 1
                times.append(time.perf_counter() - start)

    async with httpx.AsyncClient(base_url=base, timeout=120) as watcher:
        watching = asyncio.create_task(lag(watcher, stop))
        await asyncio.gather(*(one(number) for number in range(count)))
        stop.set()
        lags = await watching
    return {**spread(times), "requests_per_second": round(len(times) / seconds, 1),
            "statuses": dict(statuses), "lag": spread(lags)}  # fmt: skip


def spread(times: list[float]) -> dict[str, float]:
    ordered = sorted(times)
    return {
        "p50_ms": round(1000 * statistics.median(ordered), 1),
        "p95_ms": round(1000 * ordered[int(0.95 * len(ordered))], 1),
        "most_ms": round(1000 * ordered[-1], 1),
    }


async def soak(base: str, bare: Bare, minutes: float, pid: int) -> dict[str, Any]:
    """Mixed load with clients that vanish: prompts, pages, continuations left midway."""
    statuses: Counter[str] = Counter()
    end, stop = time.perf_counter() + 60 * minutes, asyncio.Event()
    texts = [bare.text(random.choice((16, 64, 256))) for _ in range(200)]

    async def one(number: int) -> None:
        turn = 0
        while time.perf_counter() < end:
            turn += 1
            text = f"{number} {turn} {random.choice(texts)}"
            kind = random.choice(("inspect", "inspect", "page", "leave", "generate"))
            patience = random.uniform(0.01, 0.3) if kind == "leave" else 120
            async with httpx.AsyncClient(base_url=base, timeout=patience) as client:
                try:
                    if kind == "page":
                        path = f"/saes/{SLUG}/features/{random.randrange(4096)}"
                        statuses[f"page {(await client.get(path)).status_code}"] += 1
                    elif kind == "generate":
                        edits = [{"feature": f"{SLUG}/{random.randrange(4096)}"}]
                        body = {"text": text[:100], "edits": edits, "max_new": 50, "stream": True}
                        async with client.stream("POST", "/api/generate", json=body) as answer:
                            statuses[f"generate {answer.status_code}"] += 1
                            lines = answer.aiter_lines()
                            for _ in range(random.randrange(1, 30)):
                                await anext(lines, None)
                    else:
                        answer = await client.post("/api/inspect", json={"text": text, "sae": SLUG})
                        statuses[f"inspect {answer.status_code}"] += 1
                except httpx.TimeoutException:
                    statuses["left"] += 1

    async with httpx.AsyncClient(base_url=base, timeout=120) as watcher:
        watching = asyncio.create_task(lag(watcher, stop))
        memory, kept = [resident(pid)], [(await gauges(watcher))["cache_bytes"]]
        loading = asyncio.gather(*(one(number) for number in range(8)))
        while not loading.done():
            await asyncio.wait({loading}, timeout=30)
            memory.append(resident(pid))
            kept.append((await gauges(watcher))["cache_bytes"])
        loading.result()
        stop.set()
        lags = await watching
        after = ask(Wire(base), bare.text(16))
        waiting = (await gauges(watcher))["waiting"]
    return {"minutes": minutes, "answers": dict(statuses), "resident_mb": memory,
            "of_it_kept_readings_mb": [int(size) // 1_000_000 for size in kept], "lag": spread(lags),
            "waiting_after": waiting, "prompt_after_ms": round(1000 * after, 1)}  # fmt: skip


async def gauges(client: httpx.AsyncClient) -> dict[str, float]:
    """What the engine says of itself at /metrics."""
    lines = (await client.get("/metrics")).text.splitlines()
    told = (line.removeprefix("saescope_engine_").split() for line in lines if line.startswith("saescope_engine_"))
    return {name: float(value) for name, value in told}


def resident(pid: int) -> int:
    """Memory of a process, in MB."""
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) // 1000


async def measured(base: str, pid: int, bare: Bare, given: argparse.Namespace) -> dict[str, Any]:
    out: dict[str, Any] = {"load": os.getloadavg()}
    client = Wire(base)
    ask(client, "load everything first")
    bare([bare.text(16)])
    out["alone"] = {n: alone(client, bare, n, given.repeats) for n in (16, 128, 512)}
    out["together"] = {n: await together(base, bare, n, given.repeats // 3) for n in (16, 32, 128)}
    client.close()
    print(json.dumps(out, indent=1), file=sys.stderr)
    out["clients"] = {n: await clients(base, bare, n, given.seconds) for n in (1, 8, 64)}
    if given.soak:
        out["soak"] = await soak(base, bare, given.soak, pid)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--home", type=Path)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--soak", type=float, default=0, help="minutes")
    given = parser.parse_args()
    settings = load_settings(home=given.home)
    random.seed(0)
    bare = Bare(load_subject(prepare_subject(settings.home), SUBJECT, settings.dtype, settings.device))
    with server(settings.home, database_url(settings)) as (base, pid):
        print(json.dumps(asyncio.run(measured(base, pid, bare, given)), indent=1))


if __name__ == "__main__":
    main()
