"""A real Chromium, waited for longer than a starved machine takes."""

import os
from functools import wraps

from playwright.sync_api import expect

CHROMIUM = os.environ.get("SAESCOPE_TEST_CHROMIUM", "/usr/bin/chromium")
PATIENCE_MS = 240_000

expect.set_options(timeout=PATIENCE_MS)


def launched(playwright):
    """Its contexts and pages wait ``PATIENCE_MS`` at most for whatever they wait for."""
    browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"], timeout=PATIENCE_MS)
    browser.new_context, browser.new_page = _patient(browser.new_context), _patient(browser.new_page)
    return browser


def _patient(make):
    @wraps(make)
    def made(**given):
        one = make(**given)
        one.set_default_timeout(PATIENCE_MS)
        return one

    return made
