"""Pages leave nothing of their data behind in cycles: it would be held until the garbage collector comes, which stops
everyone meanwhile (25 ms after twenty feature pages, when templates did)."""

import gc
from collections import Counter

import pytest

from tests.conftest import SLUG

PAGES = {
    "home": "/",
    "sae": f"/saes/{SLUG}",
    "browse": f"/saes/{SLUG}/features",
    "feature": f"/saes/{SLUG}/features/3",
    "feature.json": f"/saes/{SLUG}/features/3.json",
    "card": f"/saes/{SLUG}/features/3/card",
    "embed": f"/saes/{SLUG}/features/3/embed",
    "search": "/search?q=the",
    "compare": f"/compare?a={SLUG}/3&b={SLUG}/4",
    "inspect": "/inspect",
    "patterns": "/patterns",
}


@pytest.mark.parametrize("page", PAGES)
def test_a_page_leaves_nothing_for_the_collector(client, page):
    for _ in range(2):  # what is loaded once
        assert client.get(PAGES[page]).status_code == 200
    # What a page leaves, it leaves each time; now and then the coverage tool holds the frames of whoever is at work.
    assert {} in [left_by(client, PAGES[page]) for _ in range(3)]


def left_by(client, path):
    """Objects of the site and its templates that only the collector can free after one request, counted by type."""
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        assert client.get(path).status_code == 200
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        left = Counter(f"{type(one).__module__}.{type(one).__name__}" for one in gc.garbage)
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.unfreeze()
        gc.enable()
    return {name: count for name, count in left.items() if name.startswith(("app.", "jinja2."))}
