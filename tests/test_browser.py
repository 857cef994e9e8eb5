"""The walk a newcomer takes, in a real Chromium against a real server."""

import os
import socket
import threading
import time

import pytest
import uvicorn

from app.main import create_app
from app.web.assets import install_assets
from tests.conftest import SLUG

PAGES = [
    "/",
    f"/saes/{SLUG}",
    f"/saes/{SLUG}/features/3",
    "/inspect?text=Paris+is+big&token=2",
    "/nowhere",
    "/api/docs",
]
CHROMIUM = os.environ.get("SAESCOPE_TEST_CHROMIUM", "/usr/bin/chromium")


@pytest.fixture(scope="module")
def site(harvested, settings):
    install_assets()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = uvicorn.Server(uvicorn.Config(create_app(settings), port=port, log_level="error"))
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
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser, site):
    context = browser.new_context(base_url=site)
    page = context.new_page()
    troubles = []
    page.on(
        "console",
        lambda message: troubles.append(message.text) if message.type in ("error", "warning") else None,
    )
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.on("request", lambda r: None if r.url.startswith((site, "data:")) else troubles.append(r.url))
    yield page
    context.close()
    assert troubles == []


def test_from_home_to_a_latent_of_a_prompt(page):
    page.goto("/")
    page.get_by_role("link", name=SLUG).first.click()
    page.locator("#features th a", has_text="Density").click()
    page.wait_for_url("**sort=density**")
    page.wait_for_selector("th[aria-sort=descending]")
    label = page.locator("#features tbody td").first.inner_text().split(",")[0]
    page.fill("input[type=search]", label)
    page.get_by_role("button", name="Find").click()
    page.wait_for_function("document.querySelector('#features caption').innerText.includes('in the label')")
    page.locator("#features tbody a").first.click()
    page.wait_for_selector(".js-plotly-plot")
    assert page.locator(".heat .peak").count() > 0
    page.locator("a.neighbour").first.click()
    page.get_by_role("link", name="Inspect").click()
    page.get_by_label("Text, up to").fill("Paris is the capital of France")
    page.get_by_role("button", name="Inspect").click()
    page.locator(".tokens button").nth(2).click()
    page.wait_for_selector(".tokens button[aria-current]")
    assert "token=3" in page.url
    page.locator("a.latent").first.click()
    page.wait_for_selector(".stats")


def test_a_refused_prompt_leaves_the_form_and_the_next_one_works(browser, site):
    context = browser.new_context(base_url=site)
    page = context.new_page()
    page.goto("/inspect")
    page.fill("#text", "word " * 60)
    page.keyboard.press("Control+Enter")
    page.wait_for_selector("#result[role=alert]")
    assert "limit is 47" in page.inner_text("#result")
    assert "word+word" not in page.url
    page.fill("#text", "Paris is big")
    page.get_by_role("button", name="Inspect").click()
    page.wait_for_selector(".tokens button")
    assert page.locator("#text").count() == 1
    assert page.locator("[role=alert]").count() == 0
    page.locator(".tokens button").first.click()
    page.wait_for_selector(".tokens button[aria-current]")
    page.go_back()
    page.wait_for_selector(".tokens button")
    context.close()


def test_keys_help_theme_and_jump(browser, site):
    context = browser.new_context(base_url=site)
    page = context.new_page()
    page.goto(f"/saes/{SLUG}/features/3")
    page.keyboard.press("j")
    page.wait_for_url("**/features/4")
    page.keyboard.press("k")
    page.wait_for_url("**/features/3")
    page.keyboard.press("?")
    assert page.locator("#help").is_visible()
    page.keyboard.press("Escape")
    assert not page.locator("#help").is_visible()
    page.keyboard.press("/")
    page.keyboard.type("12")
    page.keyboard.press("Enter")
    page.wait_for_url("**/features/12")
    for theme in ("light", "dark", "system"):
        page.locator("#theme").click()
        assert page.locator("#theme").inner_text() == f"Theme: {theme}"
    context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(browser, site, scheme):
    from axe_playwright_python.sync_playwright import Axe

    context = browser.new_context(base_url=site, color_scheme=scheme, bypass_csp=True)
    page = context.new_page()
    for path in (
        "/",
        f"/saes/{SLUG}",
        f"/saes/{SLUG}/features/3",
        "/inspect?text=Paris+is+big",
        "/nowhere",
        "/api/docs",
    ):
        page.goto(path)
        found = Axe().run(page).response["violations"]
        serious = [(path, v["id"], v["nodes"][0]["html"]) for v in found if v["impact"] in ("serious", "critical")]
        assert serious == []
    context.close()


def test_pages_fit_a_phone_and_read_without_javascript(browser, site):
    context = browser.new_context(base_url=site, java_script_enabled=False, viewport={"width": 380, "height": 800})
    page = context.new_page()
    page.goto(f"/saes/{SLUG}/features/3")
    assert page.locator(".heat").count() > 0
    page.goto(f"/saes/{SLUG}?sort=max")
    assert page.locator("#features tbody tr").count() == 40
    context.close()
    context = browser.new_context(base_url=site, viewport={"width": 380, "height": 800})
    page = context.new_page()
    for path in (
        "/",
        f"/saes/{SLUG}",
        f"/saes/{SLUG}/features/3",
        "/inspect?text=Paris+is+big",
        "/api/docs",
        "/nowhere",
    ):
        page.goto(path)
        assert page.evaluate("document.documentElement.scrollWidth") <= 380
    context.close()
