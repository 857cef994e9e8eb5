"""A hundred features opened by `j` in a row in headless Chromium: `python -m benchmarks.browser URL [SLUG]`.

Prints the time from key to first paint of the next feature (its first contentful paint, by the browser's own clocks),
the same to the end of its loading, how many pages the browser had ready before, and what the tab holds in memory after
every tenth feature. ``--read`` waits so many seconds on each feature before the next key.
"""

import argparse
import json
import os
import statistics
import time
from typing import Any

from app.demo.run import SLUG
from benchmarks.tab import Failed, Tab

STEPS = 100
# The key's time outlives the page in the browser's storage, as time since 1970.
NOTE = """addEventListener("keydown", (event) => {
  localStorage.setItem("key", performance.timeOrigin + event.timeStamp);
}, true)"""
TIMES = """new Promise((done) => {
  const key = Number(localStorage.getItem("key"));
  const [page] = performance.getEntriesByType("navigation");
  const told = (entry) => done({
    painted: performance.timeOrigin + Math.max(entry.startTime, page.activationStart) - key,
    loaded: performance.timeOrigin + Math.max(page.loadEventEnd, page.activationStart) - key,
    ready: page.activationStart > 0,
  });
  const look = () => new PerformanceObserver((list) => {
    const first = list.getEntries().find((entry) => entry.name === "first-contentful-paint");
    if (first) told(first);
  }).observe({ type: "paint", buffered: true });
  if (document.readyState === "complete") look();
  else addEventListener("load", () => setTimeout(look));
})"""


def memory(tab: Tab) -> dict[str, float]:
    tab.call("Performance.enable", {})
    tab.call("HeapProfiler.collectGarbage", {})
    told = {one["name"]: one["value"] for one in tab.call("Performance.getMetrics", {})["metrics"]}
    return {"heap_mb": round(told["JSHeapUsedSize"] / 1e6, 2), "nodes": told["Nodes"], "documents": told["Documents"]}


def arrived(tab: Tab, path: str) -> dict[str, Any]:
    """What the page at ``path`` tells of its times, once it is the one that is shown, loaded and painted."""
    until = time.monotonic() + 240
    while time.monotonic() < until:
        try:
            if tab.ask("location.pathname") == path:
                told: dict[str, Any] = tab.ask(TIMES)
                return told
        except (Failed, IndexError, TimeoutError):  # the page was just being replaced
            pass
        time.sleep(0.005)
    raise TimeoutError(path)


def spread(times: list[float]) -> dict[str, float]:
    ordered = sorted(times)
    return {
        "median_ms": round(statistics.median(ordered), 1),
        "p95_ms": round(ordered[int(0.95 * len(ordered))], 1),
        "max_ms": round(ordered[-1], 1),
        "under_150_ms": sum(time < 150 for time in ordered),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("slug", nargs="?", default=SLUG)
    parser.add_argument("--read", type=float, default=0.0)
    given = parser.parse_args()
    chromium = os.environ.get("SAESCOPE_TEST_CHROMIUM", "/usr/bin/chromium")
    times: list[dict[str, Any]] = []
    held = []
    path = f"/saes/{given.slug}/features/"
    with Tab(chromium, width=1280, height=860) as tab:
        tab.open(f"{given.url}{path}0")
        arrived(tab, f"{path}0")
        for step in range(1, STEPS + 1):
            time.sleep(given.read)
            tab.ask(NOTE)
            tab.press("j")
            times.append(arrived(tab, f"{path}{step}"))
            if step % 10 == 0:
                held.append(memory(tab))
        errors = tab.errors
    out = {
        "painted": spread([one["painted"] for one in times]),
        "loaded": spread([one["loaded"] for one in times]),
        "ready_before": sum(one["ready"] for one in times),
        "memory": held,
        "errors": errors,
    }
    print(json.dumps(out, indent=1))


if __name__ == "__main__":
    main()
