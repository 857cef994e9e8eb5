"""The feature page in a real Chromium: switches, glyphs, panels over the whole page, charts, print, phones."""

import re
import time

import pytest

from benchmarks.browser import NOTE, arrived
from benchmarks.tab import Tab
from tests.chromium import CHROMIUM
from tests.conftest import SLUG
from tests.test_browser import app, browser, page, site  # noqa: F401

FEATURE = f"/saes/{SLUG}/features/3"
TEXTS = """() => [...document.querySelectorAll(".example-heat")].map((one) => one.textContent)"""
LINES = """() => [...document.querySelectorAll(".interval > .example > .example-heat")].map(
  (one) => one.getBoundingClientRect().height / parseFloat(getComputedStyle(one).lineHeight))"""


def current(page, name):  # noqa: F811
    return page.locator(f'[data-switch="{name}"][aria-current]').get_attribute("data-value")


def eventually_ready(tab, path):
    end = time.monotonic() + 240
    while not tab.ready(path):
        assert time.monotonic() < end, path
        time.sleep(0.05)


def test_a_switch_works_at_once_stands_in_the_url_and_is_remembered(page):  # noqa: F811
    page.goto(FEATURE)
    assert page.locator(".interval .far").first.is_hidden()
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.get_by_role("link", name="Full length").click()
    assert page.locator(".interval .far").first.is_visible()
    page.get_by_role("link", name="Row").click()
    assert page.url.endswith("?view=full&norm=row")
    assert (current(page, "view"), current(page, "norm")) == ("full", "row")
    assert page.locator(".by-row").is_visible()
    assert page.locator(".by-latent").is_hidden()
    assert asked == []
    page.keyboard.press("j")
    page.wait_for_url("**/features/4?view=full&norm=row")
    page.goto(f"/saes/{SLUG}/features/5")
    assert page.url.endswith("/features/5?view=full&norm=row")
    page.goto(f"{FEATURE}?view=stacked")
    assert (current(page, "view"), current(page, "norm")) == ("stacked", "row")
    page.get_by_role("link", name="Snippets").click()
    page.get_by_role("link", name="Latent").click()
    assert page.url.endswith(FEATURE)


def test_colours_follow_the_latent_or_the_row(page):  # noqa: F811
    page.goto(f"{FEATURE}?norm=row")
    colour = "(one) => getComputedStyle(one).backgroundColor"
    full = page.locator(".legend.by-row .a10").evaluate(colour)
    peaks = page.locator(".interval .example-heat .peak:not(.a0)")
    by_row = peaks.evaluate_all("(all) => all.map((one) => getComputedStyle(one).backgroundColor)")
    assert set(by_row) == {full}
    page.get_by_role("link", name="Latent").click()
    by_latent = peaks.evaluate_all("(all) => all.map((one) => getComputedStyle(one).backgroundColor)")
    assert by_latent[0] == full
    assert len(set(by_latent)) > 1


def test_stacked_examples_take_one_line_each_with_their_peaks_below_one_another(page):  # noqa: F811
    page.goto(f"{FEATURE}?view=stacked")
    assert all(height == pytest.approx(1, abs=0.2) for height in page.evaluate(LINES))
    middles = page.locator(".interval .example-heat > :nth-child(2)").evaluate_all(
        "(all) => all.map((one) => { const box = one.getBoundingClientRect(); return (box.left + box.right) / 2; })"
    )
    assert max(middles) - min(middles) < 2
    page.set_viewport_size({"width": 420, "height": 800})
    assert all(height == pytest.approx(1, abs=0.2) for height in page.evaluate(LINES))
    page.get_by_role("link", name="Full length").click()
    assert max(page.evaluate(LINES)) > 1.5


def test_glyphs_stand_for_whitespace_and_go_without_a_trace(page):  # noqa: F811
    page.goto(FEATURE)
    before = page.evaluate(TEXTS)
    markup = page.inner_html("#examples")
    page.get_by_role("link", name="Glyphs").click()
    shown = page.evaluate(TEXTS)
    assert shown != before
    assert not any(re.search(r"\s", text) for text in shown)
    assert [text.replace("·", " ") for text in shown] == [text.replace("\n", "↵") for text in before]
    page.get_by_role("link", name="Plain").click()
    assert page.evaluate(TEXTS) == before
    assert page.inner_html("#examples") == markup
    page.goto(f"{FEATURE}?space=glyphs")
    assert page.evaluate(TEXTS) == shown
    page.get_by_role("link", name="Plain").click()
    assert page.evaluate(TEXTS) == before


def test_f_spreads_a_panel_over_the_page_and_esc_puts_it_back(page):  # noqa: F811
    page.goto(FEATURE)
    page.keyboard.press("f")
    assert page.locator(".panel.whole").get_attribute("id") == "examples"
    box = page.locator("#examples").bounding_box()
    assert (box["x"], box["y"], box["width"]) == (0, 0, page.viewport_size["width"])
    assert page.locator("#logits").evaluate("(one) => !!one.closest('[inert]')")
    page.keyboard.press("Escape")
    assert page.locator(".panel.whole, [inert]").count() == 0
    page.get_by_role("button", name="Logits over the whole page").click()
    assert page.locator(".panel.whole").get_attribute("id") == "logits"
    page.keyboard.press("f")
    assert page.locator(".panel.whole").count() == 0
    page.locator("#text").focus()
    page.keyboard.type("fjkr")
    assert page.locator(".panel.whole").count() == 0
    assert page.locator("#text").input_value() == "fjkr"
    assert page.url.endswith(FEATURE)


def test_a_bar_of_the_histogram_leads_to_its_examples(page):  # noqa: F811
    page.goto(FEATURE)
    link = page.locator("#histogram svg a").last
    target = link.get_attribute("href")
    link.locator("rect").last.click()
    assert page.url.endswith(target)
    below = page.locator(target).bounding_box()["y"]
    title = page.locator(".sticky").bounding_box()
    assert title["y"] + title["height"] - 1 <= below <= page.viewport_size["height"]


def test_without_javascript_switches_and_bars_are_links(browser, site):  # noqa: F811
    context = browser.new_context(base_url=site, java_script_enabled=False)
    tab = context.new_page()
    tab.goto(FEATURE)
    tab.get_by_role("link", name="Full length").click()
    tab.get_by_role("link", name="Glyphs").click()
    tab.wait_for_url("**?view=full&space=glyphs")
    assert tab.locator(".interval .far").first.is_visible()
    assert tab.locator(".expand").count() == 0
    tab.get_by_role("link", name="Values").first.click()
    tab.locator(".readings td").first.wait_for()
    tab.go_back()
    href = tab.locator("#histogram svg a").first.get_attribute("href")
    tab.goto(f"{FEATURE}{href}")
    assert tab.locator(href).is_visible()
    context.close()


@pytest.mark.parametrize("view", ["snippet", "stacked", "full"])
def test_every_view_fits_a_phone(browser, site, view):  # noqa: F811
    context = browser.new_context(base_url=site, viewport={"width": 380, "height": 800})
    tab = context.new_page()
    for path in (f"{FEATURE}?view={view}", f"{FEATURE}?view={view}&space=glyphs&text=Paris+is+warm", "/patterns"):
        tab.goto(path)
        for details in tab.locator("main details").all():
            details.evaluate("(one) => { one.open = true; }")
        assert tab.evaluate("document.documentElement.scrollWidth") <= 380
    context.close()


def test_print_keeps_the_examples_and_their_colours_and_leaves_out_the_controls(browser, site):  # noqa: F811
    context = browser.new_context(base_url=site)
    tab = context.new_page()
    tab.goto(FEATURE)
    tab.emulate_media(media="print")
    for gone in (".switches", "#test", "header.site", ".expand", ".pager"):
        assert tab.locator(gone).first.is_hidden()
    for kept in ("h1", ".stats", "#histogram svg", ".interval .peak", ".by-latent"):
        assert tab.locator(kept).first.is_visible()
    assert tab.locator(".interval .peak").first.evaluate("(one) => getComputedStyle(one).printColorAdjust") == "exact"
    assert tab.locator(".sticky").evaluate("(one) => getComputedStyle(one).position") == "static"
    context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious_in_any_state(browser, site, scheme):  # noqa: F811
    from axe_playwright_python.sync_playwright import Axe

    context = browser.new_context(base_url=site, color_scheme=scheme, bypass_csp=True)
    tab = context.new_page()
    own_text = f"{FEATURE}?view=full&space=glyphs&text=Paris+is+warm"
    for path in (f"{FEATURE}?view=stacked&norm=row", own_text, "/patterns"):
        tab.goto(path)
        for details in tab.locator("main details").all():
            details.evaluate("(one) => { one.open = true; }")
        found = Axe().run(tab).response["violations"]
        serious = [v for v in found if v["impact"] in ("serious", "critical")]
        serious = [(path, v["id"], [node["html"][:200] for node in v["nodes"]]) for v in serious]
        assert serious == []
    context.close()


def test_who_leafs_by_j_or_k_finds_the_next_page_ready_and_nobody_else_has_pages_made(site):  # noqa: F811
    path = f"/saes/{SLUG}/features/"
    with Tab(CHROMIUM, width=1280, height=860) as tab:
        tab.open(f"{site}{path}3")
        arrived(tab, f"{path}3")
        ready = []
        for key, index, made in (("j", 4, False), ("j", 5, True), ("k", 4, False), ("k", 3, True)):
            if made:
                eventually_ready(tab, f"{path}{index}")
            tab.ask(NOTE)
            tab.press(key)
            ready.append(arrived(tab, f"{path}{index}")["ready"])
        assert ready == [False, True, False, True]
        assert tab.ask("document.documentElement.dataset.leafing") == "k"
        tab.open(f"{site}{path}6")
        arrived(tab, f"{path}6")
        assert tab.ask("document.documentElement.dataset.leafing ?? null") is None
        assert tab.errors == []
