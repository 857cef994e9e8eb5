"""The only place where a URL is built. Paths are stable: colleagues bookmark them."""

from functools import lru_cache
from urllib.parse import quote, urlencode


def _query(**parameters: object) -> str:
    given = {name: value for name, value in parameters.items() if value not in (None, "", [], ())}
    return f"?{urlencode(given, doseq=True)}" if given else ""


def _path(page: str, name: str | None) -> str:
    return page if name is None else f"{page}/{quote(name, safe='')}"


@lru_cache(1024)  # a page has a hundred and fifty links to the one SAE
def _slug(slug: str) -> str:
    return quote(slug, safe="@")


def home() -> str:
    return "/"


def sae(slug: str, **table: object) -> str:
    """``table`` is the feature table's state: its filters, sort, order and cursor."""
    return f"/saes/{_slug(slug)}" + _query(**table)


def sae_json(slug: str) -> str:
    return f"/saes/{_slug(slug)}.json"


def saes_json() -> str:
    return "/saes.json"


def features(slug: str, **table: object) -> str:
    """The feature table alone: the fragment htmx swaps in; opened directly, it is a page of its own."""
    return f"/saes/{_slug(slug)}/features" + _query(**table)


def features_json(slug: str, **table: object) -> str:
    return f"/saes/{_slug(slug)}/features.json" + _query(**table)


def features_csv(slug: str, **table: object) -> str:
    """Every row of the table's state, not a page of it."""
    return f"/saes/{_slug(slug)}/features.csv" + _query(**table)


def features_parquet(slug: str, **table: object) -> str:
    return f"/saes/{_slug(slug)}/features.parquet" + _query(**table)


def feature(
    slug: str,
    index: int,
    *,
    text: str | None = None,
    view: str | None = None,
    norm: str | None = None,
    space: str | None = None,
) -> str:
    """``view``, ``norm`` and ``space`` say how examples are shown."""
    return f"/saes/{_slug(slug)}/features/{index}" + _query(text=text, view=view, norm=norm, space=space)


def feature_json(slug: str, index: int) -> str:
    return f"/saes/{_slug(slug)}/features/{index}.json"


def example(slug: str, index: int, interval: str, sign: int, rank: int) -> str:
    """A stored context on a page of its own."""
    return f"/saes/{_slug(slug)}/features/{index}/examples/{example_kind(interval, sign)}/{rank}"


def example_json(slug: str, index: int, interval: str, sign: int, rank: int) -> str:
    return example(slug, index, interval, sign, rank) + ".json"


def example_kind(interval: str, sign: int) -> str:
    """``top``, ``interval-9``, ``negative-top``: an interval and sign, in URLs and as an id in pages."""
    name = f"interval-{interval}" if interval.isdigit() else interval
    return name if sign > 0 else f"negative-{name}"


def explanations(slug: str, index: int) -> str:
    """Where a new explanation is sent."""
    return f"/saes/{_slug(slug)}/features/{index}/explanations"


def explanation(slug: str, index: int, number: int) -> str:
    """Where another text of an explanation is sent."""
    return f"{explanations(slug, index)}/{number}"


def explanation_votes(slug: str, index: int, number: int) -> str:
    return f"{explanation(slug, index, number)}/votes"


def score(slug: str, index: int, score: int) -> str:
    """What an explanation said of the examples it was scored on."""
    return f"/saes/{_slug(slug)}/features/{index}/scores/{score}"


def score_json(slug: str, index: int, number: int) -> str:
    return score(slug, index, number) + ".json"


def card(slug: str, index: int) -> str:
    """A few lines about a feature: the fragment shown where the pointer rests on a link to it."""
    return f"/saes/{_slug(slug)}/features/{index}/card"


def card_of(feature: str) -> str:
    """The card of the feature whose page has the URL ``feature``."""
    return feature.partition("?")[0] + "/card"


def card_json(slug: str, index: int) -> str:
    return f"/saes/{_slug(slug)}/features/{index}/card.json"


def maps_json(slug: str) -> str:
    return f"/saes/{_slug(slug)}/maps.json"


def map_json(slug: str, version: str) -> str:
    return f"/saes/{_slug(slug)}/map/{version}.json"


def map_tiles(slug: str, version: str) -> str:
    """Of every tile, with {z}, {x} and {y} in the place of its numbers."""
    return f"/saes/{_slug(slug)}/map/{version}/{{z}}/{{x}}/{{y}}.bin"


def map_density(slug: str, version: str) -> str:
    return f"/saes/{_slug(slug)}/map/{version}/density.png"


def embed(slug: str, index: int, **panels: object) -> str:
    return f"/saes/{_slug(slug)}/features/{index}/embed" + _query(**panels)


def og_image(slug: str, index: int | None = None) -> str:
    """The picture of a feature, or of the SAE, that link previews show."""
    return f"/saes/{_slug(slug)}" + ("" if index is None else f"/features/{index}") + "/og.png"


def oembed(url: str) -> str:
    return "/oembed" + _query(url=url, format="json")


def jump(slug: str) -> str:
    """Takes ``?index=``; the form on every SAE's pages that goes to a feature by number."""
    return f"/saes/{_slug(slug)}/jump"


def random_feature(slug: str) -> str:
    return f"/saes/{_slug(slug)}/random"


def search(*, sae: str | None = None, q: str | None = None) -> str:
    return "/search" + _query(sae=sae, q=q)


def compare(a: str | None = None, b: str | None = None) -> str:
    """Two features (``slug/index`` or a feature's path) or two SAEs (``slug`` or ``slug@revision``)."""
    return "/compare" + _query(a=a, b=b)


def compare_json(a: str | None = None, b: str | None = None) -> str:
    return "/compare.json" + _query(a=a, b=b)


def inspect(kept: str | None = None, **state: object) -> str:
    """The prompt inspector, or a run of it that was kept; ``state`` is sae (one or several), text, token, sort and
    what else its page's URL says."""
    return _path("/inspect", kept) + _query(**state)


def inspect_json(kept: str | None = None, **state: object) -> str:
    return _path("/inspect", kept) + ".json" + _query(**state)


def keep_inspection() -> str:
    """Keeps a run, by POST, and leads to it."""
    return "/inspect/keep"


def compare_prompts(**state: object) -> str:
    """Two prompts side by side, and, by POST, where to find them."""
    return "/inspect/compare" + _query(**state)


def compare_prompts_json(**state: object) -> str:
    return "/inspect/compare.json" + _query(**state)


def keep_compared() -> str:
    """Keeps both prompts' runs, by POST, and leads to the comparison of them."""
    return "/inspect/compare/keep"


def contrast(**state: object) -> str:
    """Features that fire on the texts of one side and not on those of another."""
    return "/inspect/contrast" + _query(**state)


def contrast_json(**state: object) -> str:
    return "/inspect/contrast.json" + _query(**state)


def heads(**state: object) -> str:
    """A latent on attention outputs at one token, by head and source."""
    return "/inspect/heads" + _query(**state)


def heads_json(**state: object) -> str:
    return "/inspect/heads.json" + _query(**state)


def contexts(**state: object) -> str:
    """The corpus's contexts most like a text; ``state`` is text (or run), sae, token, to, chat, top and after."""
    return "/contexts" + _query(**state)


def contexts_json(**state: object) -> str:
    return "/contexts.json" + _query(**state)


def api_contexts() -> str:
    return "/api/inspect/contexts"


def intervene_effect(**state: object) -> str:
    """What edits change in a text itself: the part of /intervene that is fetched when a stream has ended."""
    return "/intervene/effect" + _query(**state)


def intervene(**state: object) -> str:
    """A text without and with latents edited; ``feature``, ``kind`` and ``strength`` are lists of one length."""
    return "/intervene" + _query(**state)


def intervene_json(**state: object) -> str:
    return "/intervene.json" + _query(**state)


def attribute(**state: object) -> str:
    """Which latents a prediction hangs on."""
    return "/attribute" + _query(**state)


def attribute_json(**state: object) -> str:
    return "/attribute.json" + _query(**state)


def api_generate() -> str:
    return "/api/generate"


def harvests(*, cursor: str | None = None) -> str:
    """Every run of a harvest, and, by POST, the start of one."""
    return "/harvests" + _query(cursor=cursor)


def harvests_json(*, cursor: str | None = None) -> str:
    return "/harvests.json" + _query(cursor=cursor)


def harvest_run(run: int) -> str:
    return f"/harvests/{run}"


def harvest_run_json(run: int) -> str:
    return f"/harvests/{run}.json"


def stop_harvest(run: int) -> str:
    return f"/harvests/{run}/stop"


def resume_harvest(run: int) -> str:
    return f"/harvests/{run}/resume"


def forget_harvest(run: int) -> str:
    return f"/harvests/{run}/forget"


def api_inspect() -> str:
    return "/api/inspect"


def api_docs() -> str:
    return "/api/docs"


def patterns() -> str:
    return "/patterns"


def static(path: str, version: str) -> str:
    return f"/static/{path}" + _query(v=version)
