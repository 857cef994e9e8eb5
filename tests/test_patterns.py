"""Pictures of every component, compared with those in tests/pictures.

Renew them after a wanted change with ``.venv/bin/python -m tests.test_patterns --renew`` and look at what changed.
A stored picture is a sheet of the components at a quarter of their size. It holds the widths that its fonts give a
line of text: where the fonts are others, only which components there are is compared.
"""

import json
import sys
import threading
import time
from io import BytesIO
from operator import sub
from pathlib import Path

import pytest
from PIL import Image, ImageChops
from PIL.PngImagePlugin import PngInfo

from tests.chromium import launched

PICTURES = Path(__file__).parent / "pictures"
VARIANTS = [(width, scheme) for width in (1280, 380) for scheme in ("light", "dark")]
BLOCK = 4  # pixels a side that are averaged before they are stored and compared: letters' edges count for little
DIFFERS = 12  # of 255, in any channel, for an average to differ
SHARE = 0.001  # of a component's averages may differ

_STILL = "progress:not([value]) { visibility: hidden } * { animation: none !important; caret-color: transparent }"
_QUIETEN = """(text) => {
  const sheet = new CSSStyleSheet();
  sheet.replaceSync(text);
  document.adoptedStyleSheets = [sheet];
}"""  # the page's policy lets no style element in
_BOXES = """() => Object.fromEntries([...document.querySelectorAll(".pattern")].map((one) => {
  const box = one.getBoundingClientRect();
  return [one.id, [box.x, box.y + scrollY, box.right, box.bottom + scrollY].map(Math.round)];
}))"""
_FONTS = """() => ["system-ui", "ui-monospace, monospace"].map((font) => {
  const pen = document.createElement("canvas").getContext("2d");
  pen.font = `100px ${font}`;
  return Math.round(pen.measureText("The quick brown fox · شكرا 谢谢 🎉 ⊢").width);
})"""


def take(browser, base, width, scheme):
    """The picture of /patterns with its components' boxes and its fonts' widths."""
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page = context.new_page()
    page.goto(f"{base}/patterns", wait_until="load")
    page.evaluate(_QUIETEN, _STILL)
    facts = {"boxes": page.evaluate(_BOXES), "fonts": page.evaluate(_FONTS)}
    shot = page.screenshot(full_page=True, animations="disabled")
    context.close()
    return Image.open(BytesIO(shot)).convert("RGB"), facts


def reduced(picture, boxes):
    """Each component by itself, every BLOCK x BLOCK pixels averaged."""
    parts = {name: picture.crop(box) for name, box in boxes.items()}
    return {
        name: part.resize((part.width // BLOCK, part.height // BLOCK), Image.Resampling.BOX)
        for name, part in parts.items()
    }


def save(picture, facts, path):
    """One sheet of the reduced components, one below the other."""
    parts = reduced(picture, facts["boxes"])
    sheet = Image.new("RGB", (max(p.width for p in parts.values()), sum(p.height for p in parts.values())))
    places, top = {}, 0
    for name, part in parts.items():
        sheet.paste(part, (0, top))
        places[name] = [0, top, part.width, top + part.height]
        top += part.height
    note = PngInfo()
    note.add_text("facts", json.dumps({"boxes": places, "fonts": facts["fonts"]}))
    sheet.point(lambda value: min(255, (value + 2) // 4 * 4)).save(path, optimize=True, pnginfo=note)


def stored(path):
    """The components of a stored sheet by name, and what it says of its fonts."""
    with Image.open(path) as sheet:
        facts = json.loads(sheet.text["facts"])
        whole = sheet.convert("RGB")
    return {name: whole.crop(box) for name, box in facts["boxes"].items()}, facts["fonts"]


def differing(a, b):
    """The share of pixels in which two pictures of one size differ."""
    red, green, blue = ImageChops.difference(a, b).split()
    most = ImageChops.lighter(ImageChops.lighter(red, green), blue)
    return sum(most.histogram()[DIFFERS + 1 :]) / (a.width * a.height)


def compare(now, then):
    """What is wrong with each component, by name; nothing where the pictures agree."""
    wrong = {}
    for name in dict.fromkeys([*then, *now]):
        if name not in now or name not in then:
            wrong[name] = "missing" if name not in now else "new"
            continue
        a, b = now[name], then[name]
        if abs(a.width - b.width) > 1 or abs(a.height - b.height) > 1:
            wrong[name] = f"is {a.size}, was {b.size}"
            continue
        common = (0, 0, *map(min, a.size, b.size))
        if (share := differing(a.crop(common), b.crop(common))) > SHARE:
            wrong[name] = f"differs in {share:.2%}"
    return wrong


@pytest.fixture(scope="module")
def base():
    yield from served()


def served():
    """The site without a database; /patterns needs none."""
    import socket

    import uvicorn

    from app.main import create_app
    from app.settings import Settings

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config = uvicorn.Config(create_app(Settings(worker=False)), port=port, log_level="error", lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.05)
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join()


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = launched(playwright)
        yield chromium
        chromium.close()


@pytest.mark.parametrize(("width", "scheme"), VARIANTS)
def test_components_look_as_they_did(browser, base, width, scheme):
    then, fonts = stored(PICTURES / f"patterns-{width}-{scheme}.png")
    picture, facts = take(browser, base, width, scheme)
    assert set(facts["boxes"]) == set(then)
    if facts["fonts"] != fonts:
        pytest.skip(f"these pictures were taken with other fonts: a line was {fonts} wide, here {facts['fonts']}")
    wrong = compare(reduced(picture, facts["boxes"]), then)
    for _ in range(2):  # a busy machine's browser may leave out a tile of a picture, but not the same each time
        if wrong:
            picture, facts = take(browser, base, width, scheme)
            again = compare(reduced(picture, facts["boxes"]), then)
            wrong = {name: what for name, what in wrong.items() if name in again}
    assert wrong == {}


def recoloured(picture, old, new):
    """Whatever is nearly of one colour in another one."""
    made = Image.new("RGB", picture.size)
    made.putdata([new if max(map(abs, map(sub, p, old))) < 6 else p for p in picture.get_flattened_data()])
    return made


def test_a_changed_colour_a_missing_component_and_a_taller_one_are_seen():
    then, _ = stored(PICTURES / "patterns-1280-light.png")
    assert compare(then, then) == {}
    for changed in ((0xF7, 0xC1, 0xB3), (0xDF, 0xC1, 0x8B)):  # --a5 is #f7c18b
        now = {name: recoloured(then[name], (0xF7, 0xC1, 0x8B), changed) for name in ("pattern-legend", "pattern-form")}
        assert set(compare({**then, **now}, then)) == {"pattern-legend"}
    fewer = {name: part for name, part in then.items() if name != "pattern-error"}
    assert compare(fewer, then) == {"pattern-error": "missing"}
    assert compare(then, fewer) == {"pattern-error": "new"}
    width, height = then["pattern-stats"].size
    for other in ((0, 0, width, height - 2), (0, 2, width, height + 2)):
        assert set(compare({**then, "pattern-stats": then["pattern-stats"].crop(other)}, then)) == {"pattern-stats"}


def renew():
    from playwright.sync_api import sync_playwright

    PICTURES.mkdir(exist_ok=True)
    with sync_playwright() as playwright:
        chromium = launched(playwright)
        for address in served():
            for width, scheme in VARIANTS:
                save(*take(chromium, address, width, scheme), PICTURES / f"patterns-{width}-{scheme}.png")
        chromium.close()


if __name__ == "__main__":
    if sys.argv[1:] != ["--renew"]:
        sys.exit("usage: python -m tests.test_patterns --renew")
    renew()
