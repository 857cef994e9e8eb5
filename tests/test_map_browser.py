"""The map in a real Chromium: drawn with and without WebGL, moved, searched, outlined, saved, and opened again."""

import io
import re
from urllib.parse import parse_qs, urlsplit
from urllib.request import urlopen

import numpy as np
import pytest
from PIL import Image
from sqlalchemy import text

from app.atlas import make, tiles
from app.main import create_app
from app.store.engine import database_url, sync_engine
from app.web.assets import install_assets
from benchmarks.map_browser import SOFTWARE
from tests.conftest import SLUG
from tests.test_browser import browser, site  # noqa: F401
from tests.test_map_routes import mapped  # noqa: F401

MAP = f"/saes/{SLUG}/map"
SIDE, MARGIN = 65_536, 0.92
LOSE = """() => document.querySelector("#map canvas").getContext("webgl")
  .getExtension("WEBGL_lose_context").loseContext()"""
CONTEXT = "((kind) => document.querySelector('#map canvas').getContext(kind) !== null)"
PLAN = """async ({ template, budget }) => {
  const { Tiles, isDrawn } = await import("/static/js/map/tiles.js");
  const whole = { left: 0, right: 65536, bottom: 0, top: 65536 };
  const tiles = new Tiles(template, "density", { changed() {}, dropped() {}, failed() {} });
  let plan = tiles.plan(whole, budget);
  while (plan.coming) {
    await new Promise((done) => setTimeout(done, 20));
    plan = tiles.plan(whole, budget);
  }
  const of = plan.drawn.map(({ tile, draw }) => ({ z: tile.z, n: tile.n, draw }));
  return { shown: plan.shown, whole: plan.whole, of };
}"""


@pytest.fixture(scope="module")
def app(mapped, settings):  # noqa: F811
    install_assets()
    return create_app(settings)


@pytest.fixture
def page(browser, site):  # noqa: F811
    context = browser.new_context(base_url=site)
    page = context.new_page()
    troubles = []
    page.on("console", lambda said: troubles.append(said.text) if said.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.on("request", lambda r: None if r.url.startswith((site, "data:", "blob:")) else troubles.append(r.url))
    yield page
    context.close()
    assert [one for one in troubles if "ReadPixels" not in one] == []  # which pictures of the page lead to


@pytest.fixture
def opened(page):
    """The map's page, once it stands still."""
    page.set_viewport_size({"width": 1280, "height": 900})
    page.goto(MAP)
    still(page)
    return page


def still(page):
    page.locator("#map[data-settled]").wait_for()
    page.locator("#map-shown", has_text="shown").wait_for()


def moved(page, act):
    """Do ``act`` and wait until the view it leads to stands still and is in the URL."""
    before = page.url
    act()
    page.wait_for_url(lambda url: url != before)


def seen(page):
    """The middle of the view and its zoom, as the URL has them."""
    given = parse_qs(urlsplit(page.url).query)
    return [float(given.get(name, [usual])[0]) for name, usual in (("x", SIDE / 2), ("y", SIDE / 2), ("z", 0))]


def on_screen(page, x, y):
    """Where a place of the map is on the page."""
    box = page.locator("#map").bounding_box()
    width, height = box["width"] - 2, box["height"] - 2  # inside its border
    middle_x, middle_y, z = seen(page)
    scale = min(width, height) * MARGIN / SIDE * 2**z
    return box["x"] + 1 + width / 2 + (x - middle_x) * scale, box["y"] + 1 + height / 2 - (y - middle_y) * scale


@pytest.fixture(scope="module")
def points(site, mapped):  # noqa: F811
    """Every latent's place, by latent."""
    waiting, found = [(0, 0, 0)], {}
    while waiting:
        z, x, y = waiting.pop()
        with urlopen(f"{site}{MAP}/{mapped.row.version}/{z}/{x}/{y}.bin") as answer:
            tile = tiles.decoded(answer.read())
        found |= zip(tile.latent.tolist(), zip(tile.x.tolist(), tile.y.tolist(), strict=True), strict=True)
        waiting += [(z + 1, 2 * x + bit % 2, 2 * y + bit // 2) for bit in range(4) if tile.children >> bit & 1]
    return found


def coloured(page, places):
    """Of places on the page, how many are drawn on: as seen in a picture of it, text left out."""
    page.evaluate("() => document.querySelector('.map-over')?.remove()")
    picture = np.asarray(Image.open(io.BytesIO(page.screenshot())).convert("RGB")).astype(int)
    return sum(
        bool((np.ptp(picture[round(top) - 2 : round(top) + 3, round(left) - 2 : round(left) + 3], axis=2) > 40).any())
        for left, top in places
    )


def test_every_latent_is_drawn_where_it_is(opened, points):
    assert opened.inner_text("#map-shown") == "40 of 40 shown, all of them"
    assert opened.evaluate(f"{CONTEXT}('2d')")  # where WebGL would be software
    places = [on_screen(opened, x, y) for x, y in points.values()]
    assert coloured(opened, places) == 40
    shifted = [(left + 60, top - 200) for left, top in places]  # heaps are at two corners
    assert coloured(opened, shifted) == 0


def test_webgl_draws_the_same(page, points):
    page.set_viewport_size({"width": 1280, "height": 900})
    page.add_init_script(SOFTWARE)
    page.goto(MAP)
    still(page)
    assert page.evaluate(f"{CONTEXT}('webgl')")
    assert coloured(page, [on_screen(page, x, y) for x, y in points.values()]) == 40
    page.evaluate(LOSE)
    page.locator("#map canvas:not([data-device])").wait_for()
    page.wait_for_timeout(300)
    assert coloured(page, [on_screen(page, x, y) for x, y in points.values()]) == 40


def test_the_map_moves_by_keys_wheel_and_drag(opened):
    frame = opened.locator("#map")
    frame.focus()
    moved(opened, lambda: opened.keyboard.press("+"))
    assert seen(opened) == [SIDE / 2, SIDE / 2, 0.5]
    moved(opened, lambda: opened.keyboard.press("ArrowRight"))
    x, y, _ = seen(opened)
    assert x > SIDE / 2
    assert y == SIDE / 2
    moved(opened, lambda: opened.keyboard.press("ArrowUp"))
    assert seen(opened)[1] > SIDE / 2
    moved(opened, lambda: opened.keyboard.press("0"))
    assert opened.url.endswith(MAP)
    box = frame.bounding_box()
    left, top = box["x"] + 200, box["y"] + 120
    opened.mouse.move(left, top)
    moved(opened, lambda: opened.mouse.wheel(0, -300))
    x, y, z = seen(opened)
    assert z == 1
    assert x < SIDE / 2 < y  # towards the pointer
    opened.mouse.down()
    opened.mouse.move(left + 50, top + 20, steps=5)
    moved(opened, opened.mouse.up)
    after = seen(opened)
    assert after[0] < x
    assert after[1] > y
    moved(opened, lambda: opened.get_by_role("button", name="Zoom out").click())
    assert seen(opened)[2] == 0.5
    moved(opened, lambda: opened.get_by_role("button", name="Whole map").click())
    assert opened.url.endswith(MAP)


def test_the_pointer_shows_a_card_and_a_click_holds_with_lines(opened, points):
    latent = 7
    opened.mouse.move(*on_screen(opened, *points[latent]))
    hovered = opened.locator(".map-hover")
    hovered.wait_for(state="attached")
    near = int(hovered.get_attribute("data-latent"))
    opened.locator("#card h2 a", has_text=re.compile(f"^{near}$")).wait_for()
    opened.mouse.down()
    opened.mouse.up()
    opened.get_by_role("heading", name=f"Feature {near}").wait_for()
    assert f"feature={near}" in opened.url
    company = opened.locator(".map-spot ol a").count()
    assert opened.locator(".map-lines polyline").count() == company > 0
    assert opened.locator(".map-hold .held").get_attribute("data-latent") == str(near)
    opened.locator(".map-spot .heat").wait_for()
    opened.locator(".map-spot ol a").first.hover()
    opened.locator(".map-ring").wait_for(state="attached")
    opened.mouse.move(0, 0)
    opened.locator("#map").focus()
    opened.keyboard.press("Escape")
    opened.get_by_role("heading", name="Regions and clusters").wait_for()
    assert opened.locator(".map-lines polyline").count() == 0
    assert "feature" not in opened.url
    opened.go_back()
    opened.get_by_role("heading", name=f"Feature {near}").wait_for()


def test_tab_walks_the_features_and_enter_holds_one(opened):
    opened.locator("#map").focus()
    first = opened.locator(".map-spots a").first
    first.wait_for(state="attached")
    opened.keyboard.press("Tab")
    assert first.evaluate("(one) => one === document.activeElement")
    latent = first.get_attribute("data-latent")
    opened.locator(f".map-spots a[aria-label^='Feature {latent}: ']").wait_for(state="attached")
    opened.locator("#card").wait_for()
    opened.keyboard.press("Tab")
    second = opened.evaluate("() => document.activeElement.dataset.latent")
    assert second not in (None, latent)
    opened.keyboard.press("Enter")
    opened.get_by_role("heading", name=f"Feature {second}").wait_for()
    opened.keyboard.press("Escape")
    opened.get_by_role("heading", name="Regions and clusters").wait_for()


def test_a_number_is_reached_and_a_label_marks(opened, points):
    deep = 11
    opened.get_by_label("Find").fill(str(deep))
    moved(opened, lambda: opened.keyboard.press("Enter"))
    opened.get_by_role("heading", name=f"Feature {deep}").wait_for()
    opened.wait_for_url("**&x=*")
    x, y, z = seen(opened)
    assert (x, y) == pytest.approx(points[deep], abs=1)
    assert z >= 2
    assert coloured_at_middle(opened)
    label = opened.locator(".map-spot .label").inner_text().split(",")[0]
    opened.get_by_label("Find").fill(label)
    opened.keyboard.press("Enter")
    opened.get_by_role("heading", name=f"Features with “{label}” in the label").wait_for()
    assert opened.locator(f"#beside [data-latent='{deep}']").count() == 1
    assert "feature=" not in opened.url
    opened.get_by_text("marked", exact=True).wait_for()
    opened.get_by_role("link", name="Clear").click()
    opened.get_by_role("heading", name="Regions and clusters").wait_for()


def coloured_at_middle(page):
    box = page.locator("#map").bounding_box()
    clip = {"x": box["x"] + box["width"] / 2 - 3, "y": box["y"] + box["height"] / 2 - 3, "width": 6, "height": 6}
    shot = np.asarray(Image.open(io.BytesIO(page.screenshot(clip=clip))).convert("RGB")).astype(int)
    return bool((np.ptp(shot, axis=2) > 20).any())


@pytest.mark.parametrize("by", ["shift", "button"])
def test_a_lasso_lists_what_is_in_it(opened, points, by):
    xs, ys = np.array(list(points.values())).T
    chosen = [latent for latent, (x, _) in points.items() if x < SIDE / 2]
    assert 0 < len(chosen) < 40
    low_x, high_x = min(xs) - 900, SIDE / 2
    corners = [(low_x, ys.min() - 900), (high_x, ys.min() - 900), (high_x, ys.max() + 900), (low_x, ys.max() + 900)]
    places = [on_screen(opened, x, y) for x, y in corners]
    if by == "shift":
        opened.keyboard.down("Shift")
    else:
        opened.get_by_role("button", name="Lasso").click()
    opened.mouse.move(*places[0])
    opened.mouse.down()
    for place in places[1:]:
        opened.mouse.move(*place, steps=6)
    opened.mouse.up()
    if by == "shift":
        opened.keyboard.up("Shift")
    opened.get_by_role("heading", name="Features within the outline").wait_for()
    listed = opened.locator("#beside li [data-latent]").evaluate_all("(all) => all.map((one) => +one.dataset.latent)")
    assert sorted(listed) == sorted(chosen)
    assert opened.locator(".map-outline polygon").count() == 1
    assert seen(opened) == [SIDE / 2, SIDE / 2, 0]  # it did not move
    for box in opened.locator("#beside [name=index]").all()[:2]:
        box.check()
    opened.get_by_role("button", name="Compare two selected").click()
    opened.wait_for_url("**/compare?**")


def test_a_text_lights_the_map_up(opened):
    opened.locator("#text").fill("Paris is the capital of France")
    opened.get_by_role("button", name="Light up").click()
    opened.get_by_role("heading", name="Features that fire on the text").wait_for()
    assert "text=Paris+is" in opened.url
    opened.get_by_text("share of its maximum on the text").wait_for()
    opened.get_by_role("link", name="Token by token").click()
    opened.locator(".tokens button").first.wait_for()


def test_a_view_opens_alike_elsewhere(browser, site, opened):  # noqa: F811
    opened.get_by_label("Colour").select_option("density")
    opened.locator("#map-legend", has_text="never fired").wait_for()
    opened.locator(".map-names a").first.click()
    opened.get_by_role("heading", name="Features in the region").wait_for()
    opened.locator("#map").focus()
    moved(opened, lambda: opened.keyboard.press("+"))
    url, shown, beside = opened.url, opened.inner_text("#map-shown"), opened.inner_text("#beside")
    assert "color=density" in url
    assert "region=" in url
    context = browser.new_context(base_url=site, viewport={"width": 1280, "height": 900})
    other = context.new_page()
    other.goto(url)
    still(other)
    assert other.url == url
    assert other.inner_text("#map-shown") == shown
    assert other.inner_text("#beside") == beside
    assert other.get_by_label("Colour").input_value() == "density"
    context.close()


def test_the_view_is_saved_as_files(opened):
    with opened.expect_download() as given:
        opened.get_by_role("button", name="PNG").click()
    picture = Image.open(given.value.path())
    assert picture.format == "PNG"
    assert len(picture.convert("RGB").getcolors(1 << 20) or []) > 10
    with opened.expect_download() as given:
        opened.get_by_role("button", name="SVG").click()
    drawing = given.value.path().read_text()
    assert drawing.count("<circle") == 40
    assert drawing.count("<text") > 0
    link = opened.get_by_role("link", name="CSV of this view").get_attribute("href")
    assert len(opened.request.get(link).text().splitlines()) == 41


@pytest.mark.parametrize(("budget", "shown"), [(60_000, 40), (20, 20), (3, 3)])
def test_no_more_points_are_drawn_than_the_budget(opened, mapped, budget, shown):  # noqa: F811
    template = f"{MAP}/{mapped.row.version}/{{z}}/{{x}}/{{y}}.bin"
    plan = opened.evaluate(PLAN, {"template": template, "budget": budget})
    assert shown - 4 < plan["shown"] <= shown
    assert plan["whole"] == (budget > 40)
    assert sum(one["draw"] for one in plan["of"]) == plan["shown"]
    assert plan["of"][0]["z"] == 0
    if budget == 20:
        assert plan["of"][0]["draw"] == 8  # the root whole, and its children as far as it goes


@pytest.fixture(scope="module")
def second(mapped, settings):  # noqa: F811
    """Another map of the same SAE; both are said to share a frame."""
    engine = sync_engine(database_url(settings))
    made = make.make_map(SLUG, make.Recipe("pca", "encoder"), engine, settings.home).row
    with engine.begin() as connection:
        connection.execute(text("UPDATE map SET together = 'one'"))
        last = text("UPDATE map SET quality = '{}' WHERE version = :v")  # pages open with the other
        connection.execute(last, {"v": made.version})
    yield made
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM map WHERE version = :v"), {"v": made.version})
    engine.dispose()


def ringed(page, frame):
    """The latent that is held on a map."""
    return page.locator(f"{frame} .map-hold .held").get_attribute("data-latent")


def test_two_maps_are_linked_by_what_is_held_and_marked_and_move_together(page, second, mapped):  # noqa: F811
    page.set_viewport_size({"width": 1280, "height": 900})
    page.goto(f"{MAP}?map={mapped.row.version}")
    still(page)
    page.get_by_label("Beside").select_option(second.version)
    page.wait_for_url("**beside=*")
    page.locator("#map-beside[data-settled]").wait_for()
    assert page.inner_text("#map-shown-beside") == "40 of 40 shown, all of them"
    page.locator("#map-beside .map-spots a").first.focus()
    latent = page.evaluate("() => document.activeElement.dataset.latent")
    page.keyboard.press("Enter")
    page.get_by_role("heading", name=f"Feature {latent}").wait_for()
    page.locator("#map .map-hold .held").wait_for()
    assert ringed(page, "#map") == ringed(page, "#map-beside") == latent
    page.get_by_role("button", name="Lines").click()
    line = page.locator(".map-between line")
    line.wait_for(state="attached")
    ends = line.evaluate("(one) => ['x1', 'y1', 'x2', 'y2'].map((name) => Number(one.getAttribute(name)))")
    around = page.locator("#map-pair").bounding_box()
    for frame, x, y in (("#map", *ends[:2]), ("#map-beside", *ends[2:])):
        box = page.locator(f"{frame} .map-hold .held circle").bounding_box()
        middle = box["x"] + box["width"] / 2 - around["x"], box["y"] + box["height"] / 2 - around["y"]
        assert (x, y) == pytest.approx(middle, abs=2)
    page.keyboard.press("Escape")
    page.locator("#map .map-hold .held").wait_for(state="detached")
    together = page.get_by_role("button", name="Move together")
    together.click()
    assert together.get_attribute("aria-pressed") == "true"
    page.locator("#map-beside").focus()
    moved(page, lambda: page.keyboard.press("+"))
    given = parse_qs(urlsplit(page.url).query)
    assert given["z"] == given["z2"] == ["0.5"]
    outlined = f"{MAP}?map={mapped.row.version}&beside={second.version}&side=right&within=0,0+65536,30000"
    page.goto(outlined)
    page.locator("#map-beside[data-settled]").wait_for()
    page.get_by_role("heading", name="Features within the outline").wait_for()
    assert page.locator("#map-beside .map-outline polygon").count() == 1
    assert page.locator("#map .map-outline polygon").count() == 0
    page.locator(".map-list li a[data-latent]").first.focus()
    assert page.locator(".map-ring").count() == 2


def test_without_scripts_it_is_a_page_of_lists(browser, site, mapped):  # noqa: F811
    context = browser.new_context(base_url=site, java_script_enabled=False, viewport={"width": 380, "height": 800})
    page = context.new_page()
    page.goto(MAP)
    assert page.locator("#map img").evaluate("(one) => one.naturalWidth") == 512
    assert page.locator("#map-tools").is_hidden()
    page.locator(".map-regions summary").first.click()
    page.locator(".map-regions ul a").nth(1).click()
    page.wait_for_url("**/clusters/*")
    assert page.locator("tbody a").count() > 0
    page.goto(MAP)
    page.get_by_label("Find").fill("3")
    page.get_by_role("button", name="Show").click()
    page.get_by_role("heading", name="Feature 3").wait_for()
    assert page.url.endswith("feature=3")
    page.locator("#text").fill("Paris is big")
    page.get_by_role("button", name="Light up").click()
    page.get_by_role("heading", name="Features that fire on the text").wait_for()
    context.close()


@pytest.mark.parametrize("query", ["", "?feature=3", "?q=a&color=sign", "?text=Paris+is+big", "?beside={}&lines=1&q=a"])
def test_it_fits_a_phone(browser, site, query, second):  # noqa: F811
    query = query.format(second.version)
    context = browser.new_context(base_url=site, viewport={"width": 380, "height": 800}, has_touch=True)
    page = context.new_page()
    page.goto(MAP + query)
    still(page)
    assert page.evaluate("() => document.documentElement.scrollWidth") == 380
    context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(browser, site, mapped, second, scheme):  # noqa: F811
    from axe_playwright_python.sync_playwright import Axe

    context = browser.new_context(base_url=site, color_scheme=scheme, bypass_csp=True)
    page = context.new_page()
    group = f"{MAP}/{mapped.row.version}/clusters/0"
    for path in (
        MAP,
        f"{MAP}?feature=3&q=a",
        f"{MAP}?text=Paris+is+big",
        f"{MAP}?beside={second.version}&feature=3",
        group,
    ):
        page.goto(path)
        if path != group:
            still(page)
        found = Axe().run(page).response["violations"]
        serious = [(path, v["id"], v["nodes"][0]["html"]) for v in found if v["impact"] in ("serious", "critical")]
        assert serious == []
    context.close()
