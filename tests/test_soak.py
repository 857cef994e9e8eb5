"""The soak itself: it asks, counts what goes wrong, and reads the server's memory."""

import asyncio
import random

from app.main import create_app
from benchmarks.soak import KINDS, Soak, next_page
from tests.conftest import SLUG
from tests.serving import serving


def soaked(settings, slug, seconds=3.0):
    with serving(create_app(settings.model_copy(update={"allowed_hosts": ""}))) as url:
        soak = Soak(url, slug, 40, 0.05)
        asyncio.run(soak.run(4, seconds))
    return soak


def test_what_is_there_is_browsed_without_errors_and_what_is_not_is_counted(harvested, settings):
    soak = soaked(settings, SLUG)
    told = soak.told(0.05, 4)
    assert soak.errors == {}
    assert told["requests"] == sum(len(times) for times in soak.seconds.values()) > 0
    assert 0 < told["ms"]["p50"] <= told["ms"]["p95"] <= told["ms"]["p99"]
    assert told["memory_mb"]["most"] >= told["memory_mb"]["first"] > 10
    wrong = soaked(settings, "no-such-sae")
    assert set(wrong.errors) <= {f"{kind} 404" for kind in KINDS}
    assert sum(wrong.errors.values()) > 0


def test_a_client_opens_every_kind_of_page_and_the_same_ones_each_time():
    def drawn():
        numbers = random.Random(1)
        return [next_page("an-sae", 100, numbers) for _ in range(300)]

    assert {asked.kind for asked in drawn()} == set(KINDS)
    assert drawn() == drawn()
