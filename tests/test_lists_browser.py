"""Lists in a real Chromium: by keyboard, without JavaScript, on a phone, in both themes."""

import re

import pytest
from playwright.sync_api import expect
from sqlalchemy import text

from tests.conftest import SLUG
from tests.test_browser import app, browser, page, site  # noqa: F401

FEATURE = f"/saes/{SLUG}/features/3"
HOSTILE = "<img src=x onerror=alert(1)> " + "long" * 40


@pytest.fixture
def clean(engine):
    yield
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM list"))
        connection.execute(text("DELETE FROM note"))


@pytest.fixture
def filled(site, clean):  # noqa: F811
    """A list with everything in it, hostile and long."""
    import httpx2

    items = [{"kind": "feature", "sae": SLUG, "index": i, "comment": HOSTILE, "tags": ["a", "b"]} for i in range(3, 6)]
    items += [{"kind": "run", "run": "gone"}, {"kind": "feature", "sae": "else", "revision": "00", "index": 1}]
    body = {"title": HOSTILE, "description": f"See {FEATURE}.\n\n{HOSTILE}", "tags": ["t"], "items": items}
    return httpx2.post(f"{site}/api/lists", json=body, trust_env=False, timeout=300).json()


def in_order(tab, *numbers):
    """Waits for the page that a button leads to."""
    expect(tab.locator(".listed h3 a")).to_have_text([re.compile(rf"\b{number}$") for number in numbers])


def test_b_adds_the_feature_to_a_list_without_leaving_it(page, clean):  # noqa: F811
    page.goto(FEATURE)
    page.keyboard.press("b")
    dialog = page.locator("dialog#add")
    dialog.get_by_role("button", name="Cancel").click()
    assert dialog.is_hidden()
    page.keyboard.press("b")
    dialog.get_by_label("Title of the list").wait_for()
    page.keyboard.type("bj from the keyboard")
    page.keyboard.press("Enter")
    dialog.get_by_text("1 item added to").wait_for()
    assert page.url.endswith(FEATURE)
    page.keyboard.press("Escape")
    assert dialog.is_hidden()
    page.keyboard.press("j")
    page.wait_for_url("**/features/4")
    page.keyboard.press("b")
    dialog.locator("select").wait_for()
    assert page.evaluate("document.activeElement.name") == "list"
    dialog.get_by_role("button", name="Add").click()
    dialog.get_by_role("link", name="bj from the keyboard").click()
    expect(page.locator("h1")).to_have_text("bj from the keyboard")
    in_order(page, 3, 4)


def test_b_adds_the_rows_that_are_selected(page, clean):  # noqa: F811
    page.goto(f"/saes/{SLUG}")
    for index in (2, 7):
        page.get_by_label(f"Select feature {index}", exact=True).check()
    page.locator("h1").first.click()
    page.keyboard.press("b")
    page.wait_for_url("**/lists/add?**")
    page.get_by_label("Title of the list").fill("Rows")
    page.get_by_role("button", name="Add").click()
    page.wait_for_url("**/lists/rows-*")
    in_order(page, 2, 7)


def test_everything_works_without_javascript(browser, site, clean):  # noqa: F811
    context = browser.new_context(base_url=site, java_script_enabled=False)
    tab = context.new_page()
    tab.goto(FEATURE)
    tab.get_by_role("link", name="Add to a list").click()
    tab.get_by_label("Title of the list").fill("By hand")
    tab.get_by_role("button", name="Add").click()
    tab.wait_for_url("**/lists/by-hand-*")
    address = tab.url
    tab.goto(f"/lists/add?sae={SLUG}&index=5&index=6")
    tab.get_by_role("button", name="Add").click()
    tab.wait_for_url(address)
    in_order(tab, 3, 5, 6)
    tab.get_by_role("button", name="Move to the top").last.click()
    in_order(tab, 6, 3, 5)
    tab.get_by_role("button", name="Move down").first.click()
    in_order(tab, 3, 6, 5)
    tab.get_by_role("button", name="Remove from the list").last.click()
    tab.locator("summary", has_text="Comment, tags").first.click()
    tab.get_by_label("Comment", exact=True).first.fill("two\n\nparagraphs")
    tab.get_by_role("button", name="Save").first.click()
    expect(tab.locator(".comment p")).to_have_text(["two", "paragraphs"])
    tab.locator("summary", has_text="Title, description, tags").click()
    tab.get_by_label("Title", exact=True).fill("Renamed")
    tab.locator("#about").get_by_role("button", name="Save").click()
    expect(tab.locator("h1")).to_have_text("Renamed")
    assert tab.url == address
    tab.get_by_role("link", name="A link that holds the list itself").click()
    tab.get_by_role("button", name="Keep it here").click()
    tab.wait_for_url("**/lists/renamed-*")
    assert tab.url != address
    in_order(tab, 3, 6)
    tab.get_by_role("link", name="Delete this list").click()
    tab.get_by_role("button", name="Delete").click()
    tab.wait_for_url(f"{site}/lists")
    expect(tab.locator("article h2")).to_have_text(["Renamed"])
    tab.locator("summary", has_text="Import").click()
    file = {"name": "l.csv", "mimeType": "text/csv", "buffer": b"kind,run\nrun,abc\n"}
    tab.locator('input[type="file"]').set_input_files(files=[file])
    tab.get_by_role("button", name="Import").click()
    assert "give a title" in tab.get_by_role("alert").inner_text()
    tab.locator('input[type="file"]').set_input_files(files=[file])
    tab.locator("#import").get_by_label("Its title").fill("Read in")
    tab.get_by_role("button", name="Import").click()
    expect(tab.locator("h1")).to_have_text("Read in")
    context.close()


def test_a_note_is_written_without_javascript_and_stays(browser, site, clean):  # noqa: F811
    context = browser.new_context(base_url=site, java_script_enabled=False)
    tab = context.new_page()
    tab.goto(FEATURE)
    tab.locator("summary", has_text="Write a note").click()
    tab.get_by_label("Note", exact=True).fill(f"See {FEATURE}\n\n{HOSTILE}")
    tab.get_by_role("button", name="Save the note").click()
    tab.wait_for_url(f"**{FEATURE}#notes")
    assert tab.locator("#notes .note a").get_attribute("href") == FEATURE
    assert tab.locator("#notes .note img").count() == 0
    tab.get_by_role("link", name="All versions").click()
    expect(tab.locator("article.note")).to_have_count(1)
    context.close()


def test_pages_of_lists_fit_a_phone_and_hold_no_script(browser, site, filled):  # noqa: F811
    context = browser.new_context(base_url=site, viewport={"width": 380, "height": 800})
    tab, told = context.new_page(), []
    tab.on("console", lambda message: told.append(message.text) if message.type == "error" else None)
    tab.on("dialog", lambda dialog: told.append(dialog.message))
    for path in pages(filled):
        tab.goto(path)
        for details in tab.locator("main details").all():
            details.evaluate("(one) => { one.open = true; }")
        assert tab.evaluate("document.documentElement.scrollWidth") <= 380, path
        small = tab.locator("main .moves button").evaluate_all(
            "(all) => all.filter((one) => one.getBoundingClientRect().height < 24).length"
        )
        assert small == 0
    assert told == []
    context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious_on_pages_of_lists(browser, site, filled, scheme):  # noqa: F811
    from axe_playwright_python.sync_playwright import Axe

    context = browser.new_context(base_url=site, color_scheme=scheme, bypass_csp=True)
    tab = context.new_page()
    for path in pages(filled):
        tab.goto(path)
        for details in tab.locator("main details").all():
            details.evaluate("(one) => { one.open = true; }")
        check(tab, Axe(), path)
    tab.goto(FEATURE)
    tab.keyboard.press("b")
    tab.locator("dialog#add form").wait_for()
    check(tab, Axe(), "dialog")
    context.close()


def check(tab, axe, path):
    found = axe.run(tab).response["violations"]
    serious = [v for v in found if v["impact"] in ("serious", "critical")]
    assert [(path, v["id"], [node["html"][:200] for node in v["nodes"]]) for v in serious] == []


def pages(filled):
    shared = f"/lists/shared?title=Shared&items={SLUG}/3,4~run/x"
    return ("/lists", filled["url"], f"{filled['url']}/delete", f"/lists/add?sae={SLUG}&index=3&index=4", shared,
            f"{FEATURE}/notes")  # fmt: skip


def test_the_dialog_shows_why_something_cannot_be_added(browser, site, clean):  # noqa: F811
    context = browser.new_context(base_url=site)
    tab = context.new_page()
    tab.goto(FEATURE)
    tab.locator("#listing").evaluate("(one) => { one.href = one.href.replace('index=3', 'index=99'); }")
    tab.keyboard.press("b")
    tab.locator("dialog#add").get_by_text("its features are 0 to 39").wait_for()
    context.close()
