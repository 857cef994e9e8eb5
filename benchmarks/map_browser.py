"""A map in headless Chromium: `python -m benchmarks.map_browser URL SLUG [--webgl]`.

Prints what the first view loads and how long it takes, what tiles take over HTTP, how many points are drawn while the
deepest part of the map is zoomed into, whether a latent there is found by zooming and by its number, and the longest
tasks of the main thread while the map is panned and zoomed, from Chromium's own trace. Where WebGL would be done by
software, as in most headless browsers, the page draws on a plain canvas; --webgl has it take WebGL all the same.
"""

import argparse
import json
import os
import random
import re
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from playwright.sync_api import Page, sync_playwright

from app.atlas import tiles

SOFTWARE = """(() => {
  const { getExtension } = WebGLRenderingContext.prototype;
  WebGLRenderingContext.prototype.getExtension = function (name) {
    return name === "WEBGL_debug_renderer_info" ? null : getExtension.call(this, name);
  };
})()"""  # the page cannot tell that it is software
LOADED = """() => performance.getEntriesByType("resource").concat(performance.getEntriesByType("navigation"))
  .map((one) => [one.name, one.encodedBodySize])"""
SIDE, MARGIN, BUDGET = 65_536, 0.92, 60_000


def quantiles(times: list[float]) -> dict[str, float]:
    ordered = sorted(times)
    return {
        "p50_ms": round(statistics.median(ordered), 1), "p95_ms": round(ordered[int(0.95 * len(ordered))], 1),
        "n": len(ordered),
    }  # fmt: skip


def walk(url: str, template: str) -> tuple[dict[str, Any], tuple[int, int, int]]:
    """Every tile once in random order; what they took, and the last latent of the deepest with its place."""
    parts = urlsplit(url)
    connection = HTTPConnection(parts.hostname or "", parts.port)
    waiting, took, deepest, latents = [(0, 0, 0)], [], None, 0
    while waiting:
        z, x, y = waiting.pop(random.randrange(len(waiting)))
        start = time.perf_counter()
        connection.request("GET", template.format(z=z, x=x, y=y))
        data = connection.getresponse().read()
        took.append(1000 * (time.perf_counter() - start))
        tile = tiles.decoded(data)
        latents += len(tile.latent)
        waiting += [(z + 1, 2 * x + bit % 2, 2 * y + bit // 2) for bit in range(4) if tile.children >> bit & 1]
        if deepest is None or z > deepest.z:
            deepest = tile
    if deepest is None:
        raise ValueError("the map has no tiles")
    last = int(deepest.latent[-1]), int(deepest.x[-1]), int(deepest.y[-1])
    return {**quantiles(took), "latents": latents, "levels": deepest.z + 1}, last


def still(page: Page, act: Callable[[], object] | None = None) -> tuple[float, int]:
    """Do ``act``; zoom and points drawn, once the view stands still."""
    frame = page.locator("#map")
    if act is not None:
        frame.evaluate("(one) => delete one.dataset.settled")
        act()
    page.locator("#map[data-settled]").wait_for()
    z, shown = (frame.get_attribute("data-settled") or "").split()
    return float(z), int(shown)


def place(page: Page, view: list[float], x: int, y: int) -> tuple[float, float]:
    box = page.locator("#map").bounding_box()
    if box is None:
        raise ValueError("the map is not on the page")
    width, height = box["width"] - 2, box["height"] - 2
    scale = min(width, height) * MARGIN / SIDE * 2 ** view[2]
    return box["x"] + 1 + width / 2 + (x - view[0]) * scale, box["y"] + 1 + height / 2 - (y - view[1]) * scale


def view_of(page: Page) -> list[float]:
    given = dict(re.findall(r"[?&]([xyz])=([\d.]+)", page.url))
    return [float(given.get(name, usual)) for name, usual in (("x", SIDE / 2), ("y", SIDE / 2), ("z", 0))]


def zoomed(page: Page, x: int, y: int, latent: int) -> dict[str, Any]:
    """Zoom at one latent's place with the wheel until the pointer finds it."""
    drawn: list[int] = []
    for step in range(40):
        left, top = place(page, view_of(page), x, y)
        page.mouse.move(left + 1, top)
        page.mouse.move(left, top)
        hovered = page.locator(".map-hover")
        if step and hovered.count() and hovered.get_attribute("data-latent") == str(latent):
            return {"found": True, "z": view_of(page)[2], "most_drawn": max(drawn), "steps": step}
        drawn.append(still(page, lambda: page.mouse.wheel(0, -150))[1])
    return {"found": False, "z": view_of(page)[2], "most_drawn": max(drawn)}


def longest(trace: Path) -> dict[str, Any]:
    """Of the tasks on the page's main thread: the longest, as the clock and as the processor's time had them."""
    events = json.loads(trace.read_text())["traceEvents"]
    names = {(e["pid"], e["tid"]): e["args"]["name"] for e in events if e["name"] == "thread_name"}
    tasks = [e for e in events if e["name"].endswith("RunTask") and names.get((e["pid"], e["tid"])) == "CrRendererMain"]
    wall, cpu = (np.array([e.get(key, 0) / 1000 for e in tasks]) for key in ("dur", "tdur"))
    return {
        "tasks": len(tasks), "longest_ms": round(float(wall.max()), 1), "longest_cpu_ms": round(float(cpu.max()), 1),
        "over_50_ms": int((wall > 50).sum()), "over_200_ms": int((wall > 200).sum()),
    }  # fmt: skip


def gestures(page: Page) -> None:
    """Zoom far in and out again, and pan by pointer and keys."""
    box = page.locator("#map").bounding_box()
    if box is None:
        raise ValueError("the map is not on the page")
    left, top = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(left, top)
    for turn in (-100, 100):
        for _ in range(15):
            page.mouse.wheel(0, turn)
            page.wait_for_timeout(30)
        page.mouse.down()
        page.mouse.move(left + 200, top + 120, steps=30)
        still(page, lambda: page.mouse.move(left - 200, top - 80, steps=30))
        page.mouse.up()
    page.locator("#map").focus()
    for key in ("ArrowLeft", "ArrowUp", "+", "+", "ArrowRight", "-", "-"):
        still(page, partial(page.keyboard.press, key))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("slug")
    parser.add_argument("--webgl", action="store_true", help="by WebGL, though only by software")
    given = parser.parse_args()
    path = f"/saes/{given.slug}/map"
    told: dict[str, Any] = {}
    with sync_playwright() as playwright:
        chromium = os.environ.get("SAESCOPE_TEST_CHROMIUM", "/usr/bin/chromium")
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_context(viewport={"width": 1280, "height": 900}, base_url=given.url).new_page()
        if given.webgl:
            page.add_init_script(SOFTWARE)
        page.set_default_timeout(120_000)
        shown = page.request.get(f"{path}.json").json()["map"]
        told["tiles"], (latent, x, y) = walk(given.url, shown["tiles"])
        page.goto("/healthz")
        began = time.perf_counter()
        page.goto(path)
        page.locator("#map-shown", has_text="shown").wait_for()
        first = time.perf_counter() - began
        page.locator("#map[data-settled]").wait_for()
        loaded = dict(page.evaluate(LOADED))
        told["first view"] = {
            "first_points_s": round(first, 2), "whole_s": round(time.perf_counter() - began, 2),
            "bytes": sum(loaded.values()), "requests": len(loaded), "said": page.inner_text("#map-shown"),
            "webgl": page.evaluate("() => !!document.querySelector('#map canvas').getContext('webgl')"),
        }  # fmt: skip
        told["zooming to a latent of the deepest tile"] = zoomed(page, x, y, latent)
        page.goto(path)
        still(page)
        began = time.perf_counter()
        page.get_by_label("Find").fill(str(latent))
        page.keyboard.press("Enter")
        page.get_by_role("heading", name=f"Feature {latent}").wait_for()
        z, drawn = still(page)
        while view_of(page)[0] == SIDE / 2 or still_moving(page, z):
            z, drawn = still(page)
        told["its number"] = {"z": z, "drawn": drawn, "seconds": round(time.perf_counter() - began, 2)}
        page.goto(path)
        still(page)
        with tempfile.TemporaryDirectory() as folder:
            trace = Path(folder) / "trace.json"
            browser.start_tracing(page=page, path=trace, categories=["toplevel", "devtools.timeline"])
            gestures(page)
            browser.stop_tracing()
            told["pan and zoom"] = longest(trace)
        browser.close()
    print(json.dumps({"latents": shown["placed"], "budget": BUDGET, **told}, indent=1))


def still_moving(page: Page, z: float) -> bool:
    page.wait_for_timeout(500)
    return view_of(page)[2] != z


if __name__ == "__main__":
    main()
