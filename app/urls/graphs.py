"""Addresses of attribution graphs, and of features as circuit-tracer asks for them."""

from urllib.parse import quote

from app.urls.parts import query_of


def graphs(*, cursor: str | None = None) -> str:
    """Every graph, and, by POST, a new one from a file."""
    return "/graphs" + query_of(cursor=cursor)


def graphs_json(*, cursor: str | None = None) -> str:
    return "/graphs.json" + query_of(cursor=cursor)


def graph(name: str, **state: object) -> str:
    """``state`` is the chosen node and the SAEs whose features its nodes lead to."""
    return f"/graphs/{quote(name, safe='')}" + query_of(**state)


def graph_json(name: str, **state: object) -> str:
    return f"/graphs/{quote(name, safe='')}.json" + query_of(**state)


def delete_graph(name: str) -> str:
    return f"/graphs/{quote(name, safe='')}/delete"


def circuit_tracer_feature(scan: str, number: int) -> str:
    """``number`` is circuit-tracer's, of layer and latent."""
    return f"/features/{quote(scan, safe='@')}/{number}.json"
