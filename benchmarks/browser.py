"""A hundred features opened by `j` in a row in headless Chromium: `python -m benchmarks.browser URL [SLUG]`.

Prints the time from key to first paint of the next feature (its first contentful paint, by the browser's own clocks),
the same to the end of its loading, and what the tab holds in memory after every tenth feature.
"""

import argparse
import json
import os
import statistics

from playwright.sync_api import CDPSession, sync_playwright

from app.demo.run import SLUG

STEPS = 100
# The key's time outlives the page in the session's storage, as time since 1970.
NOTE = """addEventListener("keydown", (event) => {
  sessionStorage.setItem("key", performance.timeOrigin + event.timeStamp);
}, true)"""
TIMES = """() => new Promise((done) => {
  const key = Number(sessionStorage.getItem("key"));
  const told = (entry) => done({
    painted: performance.timeOrigin + entry.startTime - key,
    loaded: performance.timeOrigin + performance.getEntriesByType("navigation")[0].loadEventStart - key,
  });
  new PerformanceObserver((list) => {
    const first = list.getEntries().find((entry) => entry.name === "first-contentful-paint");
    if (first) told(first);
  }).observe({ type: "paint", buffered: true });
})"""


def memory(session: CDPSession) -> dict[str, float]:
    session.send("HeapProfiler.collectGarbage")
    told = {one["name"]: one["value"] for one in session.send("Performance.getMetrics")["metrics"]}
    return {"heap_mb": round(told["JSHeapUsedSize"] / 1e6, 2), "nodes": told["Nodes"], "documents": told["Documents"]}


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
    given = parser.parse_args()
    chromium = os.environ.get("SAESCOPE_TEST_CHROMIUM", "/usr/bin/chromium")
    errors: list[str] = []
    painted, loaded, held = [], [], []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_context(viewport={"width": 1280, "height": 860}).new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.add_init_script(NOTE)
        session = page.context.new_cdp_session(page)
        session.send("Performance.enable")
        page.goto(f"{given.url}/saes/{given.slug}/features/0", wait_until="load")
        for step in range(1, STEPS + 1):
            page.keyboard.press("j")
            page.wait_for_url(f"**/features/{step}", wait_until="load")
            told = page.evaluate(TIMES)
            painted.append(told["painted"])
            loaded.append(told["loaded"])
            if step % 10 == 0:
                held.append(memory(session))
        browser.close()
    out = {"painted": spread(painted), "loaded": spread(loaded), "memory": held, "errors": errors}
    print(json.dumps(out, indent=1))


if __name__ == "__main__":
    main()
