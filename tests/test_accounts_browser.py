"""Accounts in a real Chromium: without JavaScript, on a phone, in both themes."""

import re

import pytest
from playwright.sync_api import expect

from app.main import create_app
from app.web.assets import install_assets
from tests.conftest import LAYERS
from tests.serving import serving
from tests.team import PASSWORD, make_account, team
from tests.test_browser import browser  # noqa: F401
from tests.test_lists_browser import check

FEATURE = f"/saes/{LAYERS[0]}/features/13"
NAME = "<b>Ada</b> " + "Lovelace" * 5


@pytest.fixture(scope="module")
def own(layered):
    return team(layered, allowed_hosts="")


@pytest.fixture(scope="module")
def site(own):
    install_assets()
    with serving(create_app(own)) as base:
        yield base


def sign_in(tab, name):
    tab.get_by_label("Name").fill(name)
    tab.get_by_label("Password").fill(PASSWORD)
    tab.get_by_role("button", name="Sign in").click()


def test_from_an_invitation_to_a_shared_list_without_javascript(browser, site, own):  # noqa: F811
    make_account(own, "Admin in a browser", "admin")
    admin, guest, stranger = (browser.new_context(base_url=site, java_script_enabled=False) for _ in range(3))
    tab = admin.new_page()
    tab.goto("/lists")
    assert tab.url.startswith(f"{site}/login?next=")
    sign_in(tab, "Admin in a browser")
    tab.wait_for_url(f"{site}/lists")
    tab.get_by_role("link", name="Admin", exact=True).click()
    tab.get_by_role("button", name="Make an invitation").click()
    link = tab.locator("#secret").input_value()

    other = guest.new_page()
    other.goto(link)
    other.get_by_label("Your name here").fill("Guest")
    other.get_by_label("New password").fill(PASSWORD)
    other.get_by_label("The same once more").fill(PASSWORD + "x")
    other.get_by_role("button", name="Join").click()
    assert "not the same" in other.get_by_role("alert").inner_text()
    assert other.get_by_label("Your name here").input_value() == "Guest"
    other.get_by_label("New password").fill(PASSWORD)
    other.get_by_label("The same once more").fill(PASSWORD)
    other.get_by_role("button", name="Join").click()
    expect(other.locator(".who a").first).to_have_text("Guest")
    other.goto("/lists")
    other.locator("summary", has_text="New list").click()
    other.get_by_label("Title", exact=True).fill("Kept from others")
    other.get_by_label("Who may see it").select_option("private")
    other.get_by_role("button", name="Make the list").click()
    expect(other.locator("h1")).to_have_text("Kept from others")
    assert "private" in other.locator("main").inner_text()
    page = other.url
    other.locator("summary", has_text="without an account").click()
    other.get_by_role("button", name="Make the link").click()
    link = other.locator("#secret").input_value()

    third = stranger.new_page()
    third.goto(page)
    assert "/login?next=" in third.url
    third.goto(link)
    assert third.url == page
    assert third.locator("h1").inner_text() == "Kept from others"
    other.goto("/account")
    other.get_by_role("button", name=re.compile("Revoke the link")).click()
    expect(other.get_by_role("button", name=re.compile("Revoke the link"))).to_have_count(0)
    third.goto(page)
    assert "/login?next=" in third.url
    other.get_by_role("button", name="Sign out", exact=True).click()
    expect(other.get_by_role("button", name="Sign out", exact=True)).to_have_count(0)
    other.goto(FEATURE)
    assert "/login?next=" in other.url
    for context in (admin, guest, stranger):
        context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_of_accounts_fit_a_phone_and_axe_finds_nothing_serious(browser, site, own, scheme):  # noqa: F811
    from axe_playwright_python.sync_playwright import Axe

    make_account(own, NAME, "admin")
    context = browser.new_context(base_url=site, color_scheme=scheme, viewport={"width": 380, "height": 800})
    tab, told = context.new_page(), []
    tab.on("console", lambda message: told.append(message.text) if message.type == "error" else None)
    tab.on("dialog", lambda dialog: told.append(dialog.message))
    tab.goto("/login")
    sign_in(tab, NAME)
    tab.goto("/account")
    tab.locator("summary", has_text="New token").click()
    tab.get_by_label("What it is for").fill(NAME)
    tab.get_by_role("button", name="Make the token").click()
    assert tab.locator("#secret").input_value().startswith("sae_")
    paths = ("/login", "/account", "/admin", "/admin/audit", "/lists", FEATURE)
    for path in paths:
        tab.goto(path)
        for details in tab.locator("main details").all():
            details.evaluate("(one) => { one.open = true; }")
        assert tab.evaluate("document.documentElement.scrollWidth") <= 380, path
    assert told == []
    state = context.storage_state()
    context.close()
    context = browser.new_context(base_url=site, color_scheme=scheme, storage_state=state, bypass_csp=True)
    tab = context.new_page()
    for path in paths[:-2]:
        tab.goto(path)
        for details in tab.locator("main details").all():
            details.evaluate("(one) => { one.open = true; }")
        check(tab, Axe(), path)
    context.close()
