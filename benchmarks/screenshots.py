"""Pictures of every page at 1280 and 380 pixels in both themes, taken in headless Chromium from a running demo.

    python -m benchmarks.screenshots URL [FOLDER]

Those the README shows go to docs/pictures; with a folder, all of them go there as name-width-theme.png, whole pages.
"""

import argparse
import os
from pathlib import Path

from playwright.sync_api import sync_playwright

from app.demo.run import SLUG

SAE = f"/saes/{SLUG}"
PAGES = {
    "home": "/",
    "sae": SAE,
    "features": f"{SAE}/features?sort=density&density_min=0.0001",
    "feature": f"{SAE}/features/7",
    "feature-text": f"{SAE}/features/7?text=The+Eiffel+Tower+stands+in+Paris",
    "example": f"{SAE}/features/7/examples/top/0",
    "feature-embed": f"{SAE}/features/7/embed?logits=1",
    "feature-preview": f"{SAE}/features/7/og.png",
    "sae-preview": f"{SAE}/og.png",
    "inspect": "/inspect?text=The+Eiffel+Tower+stands+in+Paris%2C+the+capital+of+France.&token=7",
    "inspect-expected": "/inspect?text=The+Eiffel+Tower+stands+in+Paris%2C+the+capital+of+France.&predict=1",
    "intervene": f"/intervene?text=My+favourite+city+is&feature={SLUG}%2F2934&kind=add&strength=0.5&temperature=0",
    "attribute": f"/attribute?text=The+Eiffel+Tower+stands+in+the+city+of&sae={SLUG}&token=Paris&against=London",
    "two-prompts": f"/inspect/compare?text=The+king+of+France&other=The+queen+of+England&sae={SLUG}",
    "contrast": f"/inspect/contrast?here=The+king+of+France%0AThe+queen+of+England&there=The+cat+sat&sae={SLUG}",
    "contexts": f"/contexts?text=The+treaty+was+signed+in+Paris&sae={SLUG}",
    "map": f"{SAE}/map",
    "map-held": f"{SAE}/map?feature=830",
    "map-text": f"{SAE}/map?text=The+treaty+was+signed+in+Paris",
    "compare-features": f"/compare?a={SLUG}/7&b={SLUG}/8",
    "compare-saes": f"/compare?a={SLUG}&b={SLUG}",
    "search": "/search?q=chemical+elements",
    "heads": "/inspect/heads",
    "lists": "/lists",
    "evaluations": f"{SAE}/evaluations",
    "map-beside": f"{SAE}/map?beside={SLUG}",
    "circuits": "/circuits",
    "graphs": "/graphs",
    "training": "/training",
    "harvests": "/harvests",
    "patterns": "/patterns",
    "api": "/api/docs",
    "not-found": f"{SAE}/features/99999999",
}
SHOWN = ("feature", "sae", "inspect", "map")  # in the README and docs
ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("folder", nargs="?", type=Path)
    given = parser.parse_args()
    chromium = os.environ.get("SAESCOPE_TEST_CHROMIUM", "/usr/bin/chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_context(viewport={"width": 1280, "height": 860}).new_page()
        for name in SHOWN:
            page.goto(given.url + PAGES[name], wait_until="networkidle")
            page.screenshot(path=ROOT / "docs" / "pictures" / f"{name}.png")
        if given.folder:
            given.folder.mkdir(parents=True, exist_ok=True)
            for theme in ("light", "dark"):
                for width in (1280, 380):
                    context = browser.new_context(viewport={"width": width, "height": 860}, color_scheme=theme)
                    page = context.new_page()
                    for name, path in PAGES.items():
                        page.goto(given.url + path, wait_until="networkidle", timeout=120_000)
                        page.screenshot(path=given.folder / f"{name}-{width}-{theme}.png", full_page=True)
                    context.close()
        browser.close()


if __name__ == "__main__":
    main()
