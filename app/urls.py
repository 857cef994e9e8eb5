"""The only place where a URL is built. Paths are stable: colleagues bookmark them."""

from urllib.parse import quote, urlencode


def _query(**parameters: object) -> str:
    given = {name: value for name, value in parameters.items() if value not in (None, "")}
    return f"?{urlencode(given)}" if given else ""


def _slug(slug: str) -> str:
    return quote(slug, safe="@")


def home() -> str:
    return "/"


def sae(
    slug: str, *, sort: str | None = None, order: str | None = None, cursor: str | None = None, q: str | None = None
) -> str:
    return f"/saes/{_slug(slug)}" + _query(q=q, sort=sort, order=order, cursor=cursor)


def sae_json(slug: str) -> str:
    return f"/saes/{_slug(slug)}.json"


def saes_json() -> str:
    return "/saes.json"


def features(
    slug: str, *, sort: str | None = None, order: str | None = None, cursor: str | None = None, q: str | None = None
) -> str:
    """The feature table alone: the fragment htmx swaps in; opened directly, it is a page of its own."""
    return f"/saes/{_slug(slug)}/features" + _query(q=q, sort=sort, order=order, cursor=cursor)


def features_json(
    slug: str, *, sort: str | None = None, order: str | None = None, cursor: str | None = None, q: str | None = None
) -> str:
    return f"/saes/{_slug(slug)}/features.json" + _query(q=q, sort=sort, order=order, cursor=cursor)


def feature(slug: str, index: int) -> str:
    return f"/saes/{_slug(slug)}/features/{index}"


def feature_json(slug: str, index: int) -> str:
    return f"/saes/{_slug(slug)}/features/{index}.json"


def jump(slug: str) -> str:
    """Takes ``?index=``; the form on every SAE's pages that goes to a feature by number."""
    return f"/saes/{_slug(slug)}/jump"


def random_feature(slug: str) -> str:
    return f"/saes/{_slug(slug)}/random"


def inspect(
    *, sae: str | None = None, text: str | None = None, token: int | None = None, sort: str | None = None
) -> str:
    return "/inspect" + _query(sae=sae, text=text, token=token, sort=sort)


def inspect_json(
    *, sae: str | None = None, text: str | None = None, token: int | None = None, sort: str | None = None
) -> str:
    return "/inspect.json" + _query(sae=sae, text=text, token=token, sort=sort)


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


def api_inspect() -> str:
    return "/api/inspect"


def api_docs() -> str:
    return "/api/docs"


def static(path: str, version: str) -> str:
    return f"/static/{path}" + _query(v=version)
