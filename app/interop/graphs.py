"""Attribution graphs of circuit-tracer and Neuronpedia, read from JSON and checked.

The schema is circuit_tracer/frontend/graph_models.py of https://github.com/safety-research/circuit-tracer (version 1,
read in 2026) and Neuronpedia's, which adds fields: metadata, nodes, links and qParams. Fields that are not known are
left out. A node is an embedding (layer E), a feature, an error or a logit, at a layer and a token's position.
"""

import json
import math
import re
import zlib
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from math import isqrt
from typing import Any, Literal, NoReturn

from app.errors import BadRequest, TooLarge
from app.store.plain import storable

MOST_BYTES, MOST_NODES, MOST_LINKS, MOST_TOKENS = 32 << 20, 5000, 500_000, 2048
MOST_LAYERS = 512
DEEPEST = 40
LONGEST = 300  # characters of a label, an id or a token
Kind = Literal["embedding", "feature", "error", "logit"]
_KINDS: dict[str, Kind] = {"embedding": "embedding", "logit": "logit", "mlp reconstruction error": "error"}
EMBEDDING = -1  # the layer of embeddings


@dataclass(frozen=True)
class Node:
    """layer: EMBEDDING for tokens; index: a feature's latent, where its id and number agree on one."""

    id: str
    kind: Kind
    layer: int
    position: int
    index: int | None
    label: str
    influence: float | None
    activation: float | None
    probability: float | None


@dataclass(frozen=True)
class Link:
    """source, target: places in the nodes; weight: the source's direct effect on the target."""

    source: int
    target: int
    weight: float


@dataclass(frozen=True)
class Graph:
    """pinned: ids that whoever made it marked."""

    title: str
    scan: str
    prompt: str
    tokens: list[str]
    nodes: list[Node]
    links: list[Link]
    pinned: list[str]

    def beside(self, number: int) -> tuple[list[tuple[Node, float]], list[tuple[Node, float]]]:
        """What leads to a node and from it, the strongest by absolute weight first."""
        found: dict[bool, list[tuple[Node, float]]] = defaultdict(list)
        for link in self.links:
            if link.target == number:
                found[True].append((self.nodes[link.source], link.weight))
            if link.source == number:
                found[False].append((self.nodes[link.target], link.weight))
        strongest = [sorted(found[way], key=lambda pair: -abs(pair[1])) for way in (True, False)]
        return strongest[0], strongest[1]


def cantor(layer: int, index: int) -> int:
    """The number by which circuit-tracer names a latent of a layer."""
    return (layer + index) * (layer + index + 1) // 2 + index


def uncantor(number: int) -> tuple[int, int]:
    """Layer and latent of a number that ``cantor`` made."""
    total = (isqrt(8 * number + 1) - 1) // 2
    index = number - total * (total + 1) // 2
    return total - index, index


def read(data: bytes | str) -> Graph:
    """
    Raises:
        TooLarge: more than this server takes. BadRequest: it is no such graph; names node and field.
    """
    if len(data) > MOST_BYTES:
        raise TooLarge(f"A graph is at most {MOST_BYTES >> 20} MiB; prune it to fewer nodes.", most=MOST_BYTES)
    if _deep(data):
        _refuse("The graph is nested too deeply to be one.")
    try:
        given = json.loads(data)
    except (ValueError, RecursionError) as error:
        told = error.msg.lower() if isinstance(error, json.JSONDecodeError) else "it is not UTF-8, or too deep"
        raise BadRequest(f"The graph is no JSON: {told}.") from None
    return of(given)


def _deep(data: bytes | str) -> bool:
    text = data if isinstance(data, bytes) else data.encode(errors="replace")
    depth = 0
    for mark in re.finditer(rb'"(?:[^"\\]|\\.)*"|[\[\]{}]', text, re.DOTALL):
        depth += (mark[0] in b"[{") - (mark[0] in b"]}") if len(mark[0]) == 1 else 0
        if depth > DEEPEST:
            return True
    return False


def of(given: Any) -> Graph:
    """The graph that a JSON value is; raises as ``read`` does."""
    if not isinstance(given, dict):
        _refuse("The graph is no object with metadata, nodes and links.")
    about = given.get("metadata")
    if not isinstance(about, dict):
        _refuse("The graph's metadata is missing, or no object.")
    tokens = [_text(token, f"metadata's prompt_tokens {i}") for i, token in enumerate(_list(about, "prompt_tokens"))]
    if not 0 < len(tokens) <= MOST_TOKENS:
        _refuse(f"The graph has {len(tokens):,} prompt_tokens; there are 1 to {MOST_TOKENS:,}.")
    nodes = _nodes(_list(given, "nodes"), len(tokens))
    params = given.get("qParams")
    pinned = params.get("pinnedIds") if isinstance(params, dict) else None
    known = {node.id for node in nodes}
    return Graph(
        _text(about.get("slug", ""), "metadata's slug") or "Graph",
        _text(about.get("scan", ""), "metadata's scan"),
        _text(about.get("prompt", "".join(tokens)), "metadata's prompt", 20_000),
        tokens,
        nodes,
        _links(_list(given, "links"), nodes),
        [one for one in pinned if isinstance(one, str) and one in known] if isinstance(pinned, list) else [],
    )


def _list(given: dict[str, Any], name: str) -> list[Any]:
    value = given.get(name)
    if not isinstance(value, list):
        _refuse(f"The graph's {name} is missing, or no list.")
    return value


def _nodes(given: list[Any], tokens: int) -> list[Node]:
    if not 0 < len(given) <= MOST_NODES:
        raise TooLarge(f"The graph has {len(given):,} nodes; this server shows 1 to {MOST_NODES:,}.", most=MOST_NODES)
    nodes = [_node(one, f"Node {number}", tokens) for number, one in enumerate(given)]
    seen: set[str] = set()
    for number, node in enumerate(nodes):
        if node.id in seen:
            _refuse(f"Node {number}: the node_id {node.id!r} stands there twice.")
        seen.add(node.id)
    return nodes


def _node(given: Any, where: str, tokens: int) -> Node:
    if not isinstance(given, dict):
        _refuse(f"{where} is no object.")
    name = _text(given.get("node_id"), f"{where}: node_id")
    kind = _KINDS.get(_text(given.get("feature_type"), f"{where}: feature_type"), "feature")
    layer = given.get("layer")
    number = EMBEDDING if layer == "E" else _whole(layer, f"{where}: layer", MOST_LAYERS)
    position = _whole(given.get("ctx_idx"), f"{where}: ctx_idx", tokens)
    probability = _number(given.get("token_prob"), f"{where}: token_prob")
    return Node(
        name,
        kind,
        number,
        position,
        _latent(name, number, given.get("feature")) if kind == "feature" else None,
        _text(given.get("clerp") or "", f"{where}: clerp"),
        _number(given.get("influence"), f"{where}: influence"),
        _number(given.get("activation"), f"{where}: activation"),
        probability if kind == "logit" else None,
    )


def _latent(name: str, layer: int, feature: Any) -> int | None:
    """The latent that a node is of: the one in its id, LAYER_LATENT_POSITION, if its number says the same, as circuit-
    tracer's does by ``cantor``, or plainly; else the one its number says by ``cantor``, if of that layer."""
    number = feature if isinstance(feature, int) and not isinstance(feature, bool) and 0 <= feature < 1 << 62 else None
    found = re.fullmatch(r"([0-9]{1,4})_([0-9]{1,9})_[0-9]{1,9}", name)
    if found is not None and int(found[1]) == layer:
        index = int(found[2])
        return index if number in (None, index, cantor(layer, index)) else None
    if number is not None:
        of_layer, index = uncantor(number)
        return index if of_layer == layer and index < 1 << 31 else None
    return None


def _links(given: list[Any], nodes: list[Node]) -> list[Link]:
    if len(given) > MOST_LINKS:
        raise TooLarge(f"The graph has {len(given):,} links; this server takes {MOST_LINKS:,}.", most=MOST_LINKS)
    places = {node.id: number for number, node in enumerate(nodes)}
    out = []
    for number, one in enumerate(given):
        if not isinstance(one, dict):
            _refuse(f"Link {number} is no object.")
        ends = []
        for name in ("source", "target"):
            end = one.get(name)
            if not isinstance(end, str) or end not in places:
                _refuse(f"Link {number}: its {name}, {str(end)[:60]!r}, is the node_id of no node.")
            ends.append(places[end])
        weight = _number(one.get("weight"), f"Link {number}: weight")
        if weight is None:
            _refuse(f"Link {number}: its weight is missing.")
        out.append(Link(ends[0], ends[1], weight))
    return out


def _whole(value: Any, where: str, below: int) -> int:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 6:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < below:
        _refuse(f"{where} is {str(value)[:40]!r}; a whole number from 0 to {below - 1:,} was expected.")
    return value


def _number(value: Any, where: str) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > 1e300 or not math.isfinite(value):
        _refuse(f"{where} is {str(value)[:40]!r}; a finite number was expected.")
    return float(value)


def _text(value: Any, where: str, most: int = LONGEST) -> str:
    if not isinstance(value, str):
        _refuse(f"{where} is {str(value)[:40]!r}; a text was expected.")
    return storable(value[:most])


def _refuse(sentence: str) -> NoReturn:
    raise BadRequest(sentence)


def packed(graph: Graph) -> bytes:
    """To be kept; ``unpacked`` reads it."""
    links = [[link.source, link.target, link.weight] for link in graph.links]
    return zlib.compress(json.dumps({**asdict(graph), "links": links}, separators=(",", ":")).encode())


def unpacked(data: bytes) -> Graph:
    given = json.loads(zlib.decompress(data))
    return Graph(**{**given, "nodes": [Node(**one) for one in given["nodes"]], "links": [Link(*one) for one in
                                                                                         given["links"]]})  # fmt: skip


def layers(nodes: Iterable[Node]) -> list[int]:
    """From the bottom up."""
    return sorted({node.layer for node in nodes})
