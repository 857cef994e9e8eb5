"""The content security policy on every page, in a real Chromium that tells of each thing it kept from running."""

import re

import httpx2

from tests.conftest import SLUG
from tests.test_access import GIVEN, QUERIES, routes
from tests.test_browser import BROWSED, COMPARED, INTERVENED, TRAINED, app, browser, runs, site  # noqa: F401  (fixtures)

LISTEN = """addEventListener("securitypolicyviolation", (event) => {
  (window.kept ??= []).push(event.effectiveDirective + " " + event.sourceFile + " " + event.sample);
})"""
KEPT = "() => window.kept ?? []"


def pages(app, runs):  # noqa: F811
    """An address of every page that can be asked for, and some with more on them."""
    given = GIVEN | {"slug": SLUG, "run": str(next(iter(runs.values())))}
    plain = {
        re.sub(r"\{(\w+)(:\w+)?\}", lambda found: given[found[1]], path) + QUERIES.get(path, "")
        for method, path in routes(app)
        if method == "GET"
    }
    asked = {"/search?q=the", "/search?q=cat&by=tokens", f"/training/{TRAINED}", INTERVENED, *BROWSED, *COMPARED}
    return sorted(plain | asked | {"/inspect?text=Paris+is+big&token=2", "/attribute?text=Paris+is+big"})


def test_no_page_holds_what_its_policy_keeps_from_running(app, browser, site, runs):  # noqa: F811
    shown = []
    with httpx2.Client(base_url=site, timeout=300) as client:
        for path in pages(app, runs):
            answer = client.get(path)
            if answer.headers.get("content-type", "").startswith("text/html"):
                assert "script-src 'self'" in answer.headers["content-security-policy"], path
                shown.append(path)
    assert len(shown) > 40
    context = browser.new_context(base_url=site)
    context.add_init_script(LISTEN)
    page = context.new_page()
    for path in shown:
        page.goto(path, wait_until="load")
        assert (path, page.evaluate(KEPT)) == (path, [])
    page.evaluate("document.body.append(Object.assign(document.createElement('script'), {text: 'window.ran = 1'}))")
    page.wait_for_timeout(100)
    assert "script-src" in page.evaluate(KEPT)[0]
    assert page.evaluate("() => window.ran ?? 0") == 0
    context.close()
