"""Addresses of SAEs and their features, of searching and comparing them."""

from app.urls.parts import query_of, slug_of


def sae(slug: str, **table: object) -> str:
    """``table`` is the feature table's state: its filters, sort, order and cursor."""
    return f"/saes/{slug_of(slug)}" + query_of(**table)


def sae_json(slug: str) -> str:
    return f"/saes/{slug_of(slug)}.json"


def evaluations(slug: str) -> str:
    """What was measured of an SAE, and what was imported."""
    return f"/saes/{slug_of(slug)}/evaluations"


def evaluations_json(slug: str) -> str:
    return evaluations(slug) + ".json"


def evaluation(slug: str, number: int) -> str:
    """One of them, on their page."""
    return f"{evaluations(slug)}#e{number}"


def saes_json() -> str:
    return "/saes.json"


def features(slug: str, **table: object) -> str:
    """The feature table alone: the fragment htmx swaps in; opened directly, it is a page of its own."""
    return f"/saes/{slug_of(slug)}/features" + query_of(**table)


def features_json(slug: str, **table: object) -> str:
    return f"/saes/{slug_of(slug)}/features.json" + query_of(**table)


def features_csv(slug: str, **table: object) -> str:
    """Every row of the table's state, not a page of it."""
    return f"/saes/{slug_of(slug)}/features.csv" + query_of(**table)


def features_parquet(slug: str, **table: object) -> str:
    return f"/saes/{slug_of(slug)}/features.parquet" + query_of(**table)


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
    page = f"/saes/{slug_of(slug)}/features/{index}"
    if text is view is norm is space is None:
        return page  # as most are
    return page + query_of(text=text, view=view, norm=norm, space=space)


def feature_json(slug: str, index: int) -> str:
    return f"/saes/{slug_of(slug)}/features/{index}.json"


def example(slug: str, index: int, interval: str, sign: int, rank: int) -> str:
    """A stored context on a page of its own."""
    return f"/saes/{slug_of(slug)}/features/{index}/examples/{example_kind(interval, sign)}/{rank}"


def example_json(slug: str, index: int, interval: str, sign: int, rank: int) -> str:
    return example(slug, index, interval, sign, rank) + ".json"


def example_kind(interval: str, sign: int) -> str:
    """``top``, ``interval-9``, ``negative-top``: an interval and sign, in URLs and as an id in pages."""
    name = f"interval-{interval}" if interval.isdigit() else interval
    return name if sign > 0 else f"negative-{name}"


def explanations(slug: str, index: int) -> str:
    """Where a new explanation is sent."""
    return f"/saes/{slug_of(slug)}/features/{index}/explanations"


def ask(slug: str, index: int) -> str:
    """Where a language model is asked for an explanation, and where that is waited for."""
    return f"/saes/{slug_of(slug)}/features/{index}/ask"


def ask_json(slug: str, index: int) -> str:
    return ask(slug, index) + ".json"


def explanation(slug: str, index: int, number: int) -> str:
    """Where another text of an explanation is sent."""
    return f"{explanations(slug, index)}/{number}"


def explanation_votes(slug: str, index: int, number: int) -> str:
    return f"{explanation(slug, index, number)}/votes"


def score(slug: str, index: int, score: int) -> str:
    """What an explanation said of the examples it was scored on."""
    return f"/saes/{slug_of(slug)}/features/{index}/scores/{score}"


def score_json(slug: str, index: int, number: int) -> str:
    return score(slug, index, number) + ".json"


def card(slug: str, index: int) -> str:
    """A few lines about a feature: the fragment shown where the pointer rests on a link to it."""
    return f"/saes/{slug_of(slug)}/features/{index}/card"


def card_of(feature: str) -> str:
    """The card of the feature whose page has the URL ``feature``."""
    return feature.partition("?")[0] + "/card"


def card_json(slug: str, index: int) -> str:
    return f"/saes/{slug_of(slug)}/features/{index}/card.json"


def embed(slug: str, index: int, **panels: object) -> str:
    return f"/saes/{slug_of(slug)}/features/{index}/embed" + query_of(**panels)


def og_image(slug: str, index: int | None = None) -> str:
    """The picture of a feature, or of the SAE, that link previews show."""
    return f"/saes/{slug_of(slug)}" + ("" if index is None else f"/features/{index}") + "/og.png"


def oembed(url: str) -> str:
    return "/oembed" + query_of(url=url, format="json")


def jump(slug: str) -> str:
    """Takes ``?index=``; the form on every SAE's pages that goes to a feature by number."""
    return f"/saes/{slug_of(slug)}/jump"


def random_feature(slug: str) -> str:
    return f"/saes/{slug_of(slug)}/random"


def search(**state: object) -> str:
    """Features of every SAE by what they mean; ``state`` is q, mode, sae, the filters and after."""
    return "/search" + query_of(**state)


def search_json(**state: object) -> str:
    return "/search.json" + query_of(**state)


def compare(a: str | None = None, b: str | None = None) -> str:
    """Two features (``slug/index`` or a feature's path) or two SAEs (``slug`` or ``slug@revision``)."""
    return "/compare" + query_of(a=a, b=b)


def compare_json(a: str | None = None, b: str | None = None) -> str:
    return "/compare.json" + query_of(a=a, b=b)


def compare_saes(saes: list[str] | None = None) -> str:
    """Two to eight SAEs (``slug`` or ``slug@revision``) side by side."""
    return "/compare" + query_of(sae=saes)


def compare_saes_json(saes: list[str]) -> str:
    return "/compare.json" + query_of(sae=saes)
