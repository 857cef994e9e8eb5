"""The walk a newcomer takes, in a real Chromium against a real server."""

import re
import time
from itertools import pairwise

import pytest
from sqlalchemy import func, insert, update

from app.main import create_app
from app.store import tables as t
from app.web.assets import install_assets
from tests.chromium import launched
from tests.conftest import SLUG
from tests.serving import serving
from tests.training_runs import NAME as TRAINED
from tests.training_runs import written

PAGES = [
    "/",
    f"/saes/{SLUG}",
    f"/saes/{SLUG}/features/3",
    "/inspect?text=Paris+is+big&token=2",
    "/nowhere",
    "/api/docs",
]
BROWSED = (
    f"/saes/{SLUG}/features?density_min=0.001&sort=label",
    f"/saes/{SLUG}/features?density_min=x",
    f"/saes/{SLUG}/features?index=1,2,3",
    f"/compare?a={SLUG}/3&b={SLUG}/4",
    f"/compare?a={SLUG}&b={SLUG}",
)
COMPARED = (
    "/inspect/compare",
    "/inspect/compare?text=Paris+is+the+capital+of+France&other=Paris+was+the+old+capital+of+Italy",
    "/inspect/compare?text=Paris+is+big&other=Rome+is+old&at=1&pin=" + f"{SLUG}%2F3",
    "/inspect/contrast?here=Paris+is+big%0AParis+is+warm&there=A+cat",
    "/inspect/heads",
)
INTERVENED = f"/intervene?text=Paris+is&feature={SLUG}%2F3&kind=add&strength=2&max_new=3"


@pytest.fixture(scope="module")
def app(harvested, settings):
    install_assets()
    return create_app(settings)


@pytest.fixture(scope="module")
def site(app):
    with serving(app) as base:
        yield base


@pytest.fixture(scope="module")
def runs(engine, harvested, home):
    """A harvest of every kind, by state; and a training run."""
    written(home)
    command = {"sae": "/somewhere/" + "long/" * 30, "model": "/models/tiny", "corpus": "pkg:brown", "slug": SLUG}
    common = {"kind": "harvest", "slugs": [SLUG], "command": command, "started": func.now(), "beat": func.now()}
    values = {
        "running": {"tokens": 250_000, "total": 1_000_000, "tokens_per_second": 1234.5, "facts": {"kept": 250_000},
                    "command": command | {"tokens": 1_000_000}},
        "failed": {"finished": func.now(), "message": "The SAE reads d_in 64; the subject has 32."},
        "done": {"finished": func.now(), "revisions": [harvested[0]], "metrics": {SLUG: {"fvu": 0.25, "l0": 4.0}}},
    }  # fmt: skip
    with engine.begin() as connection:
        return {
            state: connection.execute(
                insert(t.run).values(state=state, **{**common, **row}).returning(t.run.c.id)
            ).scalar_one()
            for state, row in values.items()
        }


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = launched(playwright)
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
    cell = page.locator("#features tbody tr td:nth-child(3)").first
    label = cell.evaluate("(one) => one.firstChild.data").split(",")[0].strip()
    page.fill("input[type=search]", label)
    page.get_by_role("button", name="Find").click()
    page.locator("#features caption", has_text="in the label").wait_for()
    page.locator("#features tbody a").first.click()
    page.wait_for_selector("#histogram svg rect")
    assert page.locator(".heat .peak").count() > 0
    page.locator("a.neighbour").first.click()
    page.get_by_role("link", name="Inspect").click()
    page.get_by_label("Text, up to").fill("Paris is the capital of France")
    page.get_by_role("button", name="Inspect").click()
    page.locator(".tokens button").nth(2).click()
    page.wait_for_selector(".tokens button[aria-current]")
    page.wait_for_url("**token=3**")
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


def test_a_pinned_view_is_kept_and_opens_alike_elsewhere(browser, site):
    context = browser.new_context(base_url=site)
    page = context.new_page()
    page.goto("/inspect")
    page.fill("#text", "Paris is the capital of France")
    page.get_by_label("Rank by").select_option("activation")
    page.locator("#text").press("Control+Enter")
    page.wait_for_selector(".tokens button")
    page.locator(".tokens button").nth(2).click()
    page.wait_for_selector(".tokens button[aria-current]")
    page.get_by_role("button", name="Pin feature").first.click()
    page.get_by_role("button", name="Unpin feature").wait_for()
    assert page.locator(".tokens button[aria-current]").count() == 1
    page.get_by_role("button", name="Keep and get a link").click()
    page.wait_for_url("**/inspect/*")
    shown = page.inner_text("#result")
    assert "sort=activation" in page.url
    assert "token=3" in page.url
    other = browser.new_context(base_url=site).new_page()
    other.goto(page.url)
    assert other.inner_text("#result") == shown
    assert other.get_by_label("Rank by").input_value() == "activation"
    assert other.locator(".tokens button[aria-current]").get_attribute("value") == "3"
    assert other.get_by_role("button", name="Unpin feature").count() == 1
    assert "Features at token 3" in shown
    other.context.close()
    context.close()


def test_two_prompts_are_compared_place_by_place(page):
    page.goto("/inspect?text=Paris+is+the+capital+of+France")
    page.get_by_role("link", name="Compare with another prompt").click()
    assert page.get_by_label("First text").input_value() == "Paris is the capital of France"
    page.get_by_label("Second text").fill("Paris was the old capital of Italy")
    page.keyboard.press("Control+Enter")
    page.locator("button.pair").first.wait_for()
    kinds = page.locator("button.pair").evaluate_all("(all) => all.map((one) => one.classList[1])")
    assert kinds.count("equal") == 4
    assert kinds.count("replaced") == 2
    assert kinds.count("only_second") == 1
    tops = page.locator("button.pair").evaluate_all(
        "(all) => all.map((one) => [...one.children].map((cell) => cell.getBoundingClientRect().top))"
    )
    assert len({tuple(pair) for pair in tops}) == 1  # two straight rows
    page.locator("button.pair.replaced").first.focus()
    page.keyboard.press("Enter")
    page.locator("button.pair[aria-current]").wait_for()
    page.wait_for_url("**at=2**")
    page.get_by_role("heading", name="What differs at place 2").wait_for()
    pin = page.locator("article h3 button", has_text="Pin").first
    feature = pin.get_attribute("value")
    pin.click()
    page.get_by_role("heading", name="Pinned").wait_for()
    page.wait_for_url("**pin=**")
    page.get_by_role("link", name="Swap the two").click()
    page.wait_for_url("**text=Paris+was**")
    assert page.get_by_label("First text").input_value().startswith("Paris was")
    assert page.locator(f"button[name=unpin][value='{feature}']").count() == 1
    page.get_by_role("button", name="Whole texts").click()
    page.get_by_role("heading", name="What differs over the whole texts").wait_for()
    page.get_by_role("button", name="Keep both and get a link").click()
    page.wait_for_url("**run=**other_run=**")
    page.get_by_text("shows what was read then").wait_for()


def test_two_prompts_line_up_on_a_phone_and_without_javascript(browser, site):
    context = browser.new_context(base_url=site, java_script_enabled=False, viewport={"width": 380, "height": 800})
    page = context.new_page()
    page.goto("/inspect/compare")
    page.get_by_label("First text").fill("Paris is the capital of France. " * 5)
    page.get_by_label("Second text").fill("Paris was the old capital of Italy. " * 5)
    page.get_by_role("button", name="Compare").click()
    page.locator("button.pair").first.wait_for()
    rows = page.locator("button.pair").evaluate_all(
        "(all) => all.map((one) => [...one.children].map((cell) => Math.round(cell.getBoundingClientRect().top)))"
    )
    lines = sorted(set(map(tuple, rows)))
    assert len(lines) > 2
    assert all(first < second < following for (first, second), (following, _) in pairwise(lines))
    page.locator("button.pair.replaced").first.click()
    page.get_by_role("heading", name="What differs at place").wait_for()
    page.goto("/inspect/contrast")
    page.get_by_label("It fires on these texts").fill("Paris is big\nParis is warm")
    page.get_by_label("and on none of these").fill("A cat")
    page.get_by_role("button", name="Search").click()
    page.locator(".lines .peak").first.wait_for()
    context.close()


def test_a_preset_fills_its_row_and_enter_goes_on(browser, site):
    context = browser.new_context(base_url=site)
    page = context.new_page()
    page.goto(f"/intervene?feature={SLUG}%2F3&max_new=2")
    page.fill("#text", "Paris is")
    page.get_by_role("button", name="double").first.click()
    assert page.locator("[name=kind]").first.input_value() == "scale"
    assert page.locator("[name=strength]").first.input_value() == "2"
    page.locator("[name=seed]").fill("7")
    page.locator("[name=where]").first.fill("generated")
    page.locator("[name=seed]").press("Enter")
    page.locator("#result .halves").first.wait_for()
    page.wait_for_url("**seed=7**")
    assert page.locator("[name=kind]").first.input_value() == "scale"
    assert "where=generated" in page.url
    assert page.url.count("feature=") == 1
    page.reload()
    assert page.locator("[name=where]").first.input_value() == "generated"
    page.locator("#baseline").wait_for()
    context.close()
    context = browser.new_context(base_url=site, java_script_enabled=False)
    page = context.new_page()
    page.goto(f"/intervene?feature={SLUG}%2F3")
    page.get_by_role("button", name="project out").first.click()
    page.wait_for_url("**kind=project**")
    page.fill("#text", "Paris is")
    page.locator("[name=max_new]").fill("2")
    page.locator("[name=max_new]").press("Enter")
    page.locator("#baseline").wait_for()
    assert "kind=project" in page.url
    context.close()


def test_steering_streams_stops_and_says_what_is_wrong(browser, site, app):
    context = browser.new_context(base_url=site)
    page = context.new_page()
    errors = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(f"/saes/{SLUG}/features/3")
    page.get_by_role("link", name="Intervene on it").click()
    assert page.locator("input[name=feature]").first.input_value() == f"{SLUG}/3"
    page.fill("#text", "Paris is")
    page.fill("input[name=max_new]", "30")
    page.get_by_role("button", name="Go on").click()
    page.locator("#result .heat").nth(1).wait_for()
    page.locator("#stop[hidden]").wait_for(state="attached")
    for shown in page.locator("#result .halves .heat").all_inner_texts():
        assert shown.startswith("Paris is")
        assert len(shown) > len("Paris is") + 10
    page.get_by_role("heading", name="What the edits change in the text itself").wait_for()
    page.wait_for_url("**text=Paris+is**")
    page.fill("input[name=max_new]", "512")
    page.get_by_role("button", name="Go on").click()
    # The first run's effect goes when the second one's stream begins.
    page.get_by_role("heading", name="What the edits change in the text itself").wait_for(state="detached")
    page.locator("#result .heat").nth(1).filter(has_text=re.compile(r"[\s\S]{21}")).wait_for()
    assert app.state.saescope.engine.pending == 1
    page.get_by_role("button", name="Stop").click()
    page.locator("#stop[hidden]").wait_for(state="attached")
    assert page.locator("[role=alert]").count() == 0
    page.get_by_text("of 512 tokens").wait_for()
    written = page.inner_text("#result")
    deadline = time.monotonic() + 20  # well before 512 tokens would be written
    while app.state.saescope.engine.pending and time.monotonic() < deadline:
        page.wait_for_timeout(20)
    assert app.state.saescope.engine.pending == 0
    assert page.inner_text("#result") == written
    page.fill("input[name=max_new]", "600")
    page.get_by_role("button", name="Go on").click()
    page.get_by_text("at most 512 tokens here").wait_for()
    page.fill("input[name=max_new]", "8")
    page.locator("input[name=feature]").first.fill(f"{SLUG}/4000")
    page.get_by_role("button", name="Go on").click()
    page.get_by_text("0 to 39").wait_for()
    assert errors == []
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


def test_a_running_harvest_is_watched_and_stopped(page, runs, engine):
    def tell(**values):
        with engine.begin() as connection:
            connection.execute(update(t.run).where(t.run.c.id == runs["running"]).values(beat=func.now(), **values))

    page.goto("/harvests")
    assert page.locator("progress").count() == 1
    page.get_by_role("link", name=f"Run {runs['running']}").click()
    page.get_by_role("button", name="Stop").focus()
    tell(tokens=500_000)
    page.locator("progress[value='500000']").wait_for()
    assert "500,000 of 1,000,000 tokens (50%)" in page.inner_text("#run")
    assert page.evaluate("document.activeElement.textContent") == "Stop"
    page.keyboard.press("Enter")
    page.get_by_text("stopping after the batch at hand").wait_for()
    tell(state="stopped", finished=func.now())
    page.get_by_role("button", name="Resume").wait_for()
    assert page.locator("[hx-trigger]").count() == 0
    tell(state="running", finished=None)


def test_the_form_that_starts_a_harvest_says_what_does_not_fit(browser, site, runs):
    context = browser.new_context(base_url=site, java_script_enabled=False)
    page = context.new_page()
    page.goto("/harvests")
    page.get_by_text("Start a harvest").click()
    page.get_by_label("Imported or harvested before").select_option(SLUG)
    page.get_by_label("or a Hugging Face folder on this machine").fill("/nowhere")
    page.get_by_label("At most this many tokens").fill("1,000")
    page.get_by_role("button", name="Start").click()
    assert "No model at /nowhere" in page.get_by_role("alert").inner_text()
    assert page.get_by_label("At most this many tokens").input_value() == "1,000"
    assert page.get_by_label("Imported or harvested before").input_value() == SLUG
    context.close()


_BROKEN = """() => {
  const broken = [], walker = document.createTreeWalker(document.querySelector(".runs tbody"), NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    for (const word of walker.currentNode.data.matchAll(/[^\\s/-]+/g)) {
      const range = document.createRange();
      range.setStart(walker.currentNode, word.index);
      range.setEnd(walker.currentNode, word.index + word[0].length);
      const lines = new Set([...range.getClientRects()].map((one) => Math.round(one.top)));
      const box = range.getBoundingClientRect();
      if (lines.size > 1 || box.right > innerWidth || box.left < 0) broken.push(word[0]);
    }
  }
  return broken;
}"""


@pytest.mark.parametrize(("width", "tallest"), [(1280, 120), (700, 300), (380, 330)])
def test_the_list_of_runs_breaks_no_word_and_hides_nothing(browser, site, runs, width, tallest):
    context = browser.new_context(base_url=site, viewport={"width": width, "height": 900})
    page = context.new_page()
    page.goto("/harvests")
    assert page.evaluate(_BROKEN) == []
    heights = page.locator(".runs tbody tr").evaluate_all("(rows) => rows.map((row) => row.offsetHeight)")
    assert max(heights) <= tallest
    failed = page.locator(".runs tr", has_text="the subject has 32.")
    assert failed.locator("td", has_text="pkg:brown").count() == 1
    labels = failed.locator("td.state").evaluate("(cell) => getComputedStyle(cell, '::before').content")
    assert ("State" in labels) == (width <= 800)
    failed.get_by_role("button", name="Remove run").wait_for()
    context.close()


def test_features_are_filtered_chosen_and_compared(page):
    page.goto(f"/saes/{SLUG}")
    page.locator("#features th a", has_text="Max").click()
    page.wait_for_selector("th[aria-sort=descending]")
    page.wait_for_url("**sort=max**")
    page.get_by_text("More filters").click()
    page.locator("#f-state").select_option("alive")
    page.get_by_role("button", name="Filter").click()
    page.wait_for_url("**state=alive**")
    assert "density_min" not in page.url
    assert "sort=max" in page.url
    page.locator(".charts a").nth(1).click()
    page.wait_for_url("**density_max**")
    page.locator(".charts a.chosen").wait_for()
    page.go_back()
    page.locator("#features input[type=checkbox]").nth(0).check()
    page.locator("#features input[type=checkbox]").nth(2).check()
    page.get_by_role("button", name="Show the selected").click()
    page.wait_for_url("**/features?index=**")
    assert page.locator("#features tbody tr").count() == 2
    page.goto("/compare")
    page.get_by_label("First").fill(f"{SLUG}/3")
    page.get_by_label("Second").fill(f"/saes/{SLUG}/features/4")
    page.get_by_role("button", name="Compare").click()
    page.get_by_text("Decoder cosine").wait_for()


def test_a_refused_filter_leaves_the_form_and_the_next_one_works(browser, site):
    context = browser.new_context(base_url=site)
    page = context.new_page()
    page.goto(f"/saes/{SLUG}/features?density_max=0.5")
    page.locator("#f-density-min").fill("x")
    page.get_by_role("button", name="Filter").click()
    page.locator("#features [role=alert]").wait_for()
    assert page.locator("#f-density-min").input_value() == "x"
    page.locator("#f-density-min").fill("")
    page.get_by_role("button", name="Filter").click()
    page.locator("#features tbody tr").first.wait_for()
    assert page.locator("[role=alert]").count() == 0
    context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(browser, site, runs, scheme):
    from axe_playwright_python.sync_playwright import Axe

    context = browser.new_context(base_url=site, color_scheme=scheme, bypass_csp=True)
    page = context.new_page()
    for path in (
        "/",
        f"/saes/{SLUG}",
        f"/saes/{SLUG}/features/3",
        f"/saes/{SLUG}/features/3/examples/top/0",
        "/inspect?text=Paris+is+big&predict=1&token=2",
        INTERVENED,
        "/attribute?text=Paris+is+big",
        "/nowhere",
        "/api/docs",
        "/harvests",
        "/training",
        f"/training/{TRAINED}",
        *BROWSED,
        *COMPARED,
        *(f"/harvests/{run}" for run in runs.values()),
    ):
        page.goto(path)
        found = Axe().run(page).response["violations"]
        serious = [(path, v["id"], v["nodes"][0]["html"]) for v in found if v["impact"] in ("serious", "critical")]
        assert serious == []
    context.close()


def test_pages_fit_a_phone_and_read_without_javascript(browser, site, runs):
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
        f"/saes/{SLUG}/features/3/examples/top/0",
        "/inspect?text=Paris+is+big&predict=1&token=2",
        INTERVENED,
        "/attribute?text=Paris+is+big",
        "/api/docs",
        "/nowhere",
        "/harvests",
        "/training",
        f"/training/{TRAINED}",
        *BROWSED,
        *COMPARED,
        *(f"/harvests/{run}" for run in runs.values()),
    ):
        page.goto(path)
        assert page.evaluate("document.documentElement.scrollWidth") <= 380
    context.close()
