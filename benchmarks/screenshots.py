"""Pictures for the README, taken in headless Chromium from a running demo."""

import os
import sys

from playwright.sync_api import sync_playwright

SAE = "/saes/smollm2-135m-l9-topk-4096"
PAGES = {
    "feature": f"{SAE}/features/7",
    "sae": SAE,
    "inspect": "/inspect?text=The+Eiffel+Tower+stands+in+Paris%2C+the+capital+of+France.&token=7",
}


def main(base: str) -> None:
    chromium = os.environ.get("SAESCOPE_TEST_CHROMIUM", "/usr/bin/chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_context(viewport={"width": 1280, "height": 860}).new_page()
        for name, path in PAGES.items():
            page.goto(base + path, wait_until="networkidle")
            page.screenshot(path=f"docs/pictures/{name}.png")
        browser.close()


if __name__ == "__main__":
    main(sys.argv[1])
