"""Attribution graphs to page contexts."""

from collections.abc import Sequence

from app import urls
from app.interop.graphs import EMBEDDING, Graph, Node
from app.store.graphs import GraphRecord
from app.store.queries import LatentSummary, SAERecord
from app.web import graph_contexts as c
from app.web.build import layer_of

EDGES = 40  # of a node, each way, that are drawn and listed


def summary(record: GraphRecord) -> c.GraphSummary:
    return c.GraphSummary(
        name=record.id, title=record.title, scan=record.scan, prompt=record.prompt[:300], nodes=record.nodes,
        links=record.links, made=record.made, url=urls.graph(record.id),
    )  # fmt: skip


def by_layer(graph: Graph, named: Sequence[SAERecord], here: Sequence[SAERecord]) -> dict[int, tuple[SAERecord, bool]]:
    """The SAE of each layer of the graph, and whether the reader named it: ``named`` come first, then those ``here``
    whose subject or slug is the graph's scan, where there is one such of a layer."""
    wanted = {node.layer for node in graph.nodes if node.kind == "feature"}
    out: dict[int, tuple[SAERecord, bool]] = {}
    scan = graph.scan.casefold()
    fitting: dict[int, list[SAERecord]] = {}
    for sae in here:
        layer = layer_of(sae.reads[0])
        if layer in wanted and scan and scan in (sae.subject.casefold(), sae.slug.casefold()):
            fitting.setdefault(layer, []).append(sae)
    for layer, saes in fitting.items():
        if len(saes) == 1:
            out[layer] = (saes[0], False)
    for sae in named:
        layer = layer_of(sae.reads[0])
        if layer in wanted:
            out[layer] = (sae, True)
    return out


def meant(graph: Graph, saes: dict[int, tuple[SAERecord, bool]]) -> dict[str, tuple[SAERecord, int]]:
    """The feature here that each node is taken for."""
    out = {}
    for node in graph.nodes:
        if node.index is not None and node.layer in saes and node.index < saes[node.layer][0].n_latents:
            out[node.id] = (saes[node.layer][0], node.index)
    return out


def page(
    record: GraphRecord,
    graph: Graph,
    saes: dict[int, tuple[SAERecord, bool]],
    labels: dict[tuple[int, int], LatentSummary],
    chosen: int | None,
) -> c.GraphPage:
    found = meant(graph, saes)
    named = [sae.address for sae, by_reader in saes.values() if by_reader]

    def shown(node: Node) -> c.GraphNode:
        given = vars(node) | {"layer": layer_name(node.layer)}
        if node.id in found:
            sae, index = found[node.id]
            told = labels.get((sae.id, index))
            given |= {"feature_url": urls.feature(sae.address, index), "feature_label": told.label if told else None}
        return c.GraphNode.model_construct(**given)

    def edges(pairs: list[tuple[Node, float]]) -> list[c.GraphEdge]:
        return [
            c.GraphEdge(node=shown(node), weight=weight, url=urls.graph(record.id, node=node.id, sae=named))
            for node, weight in pairs[:EDGES]
        ]

    beside = None
    if chosen is not None:
        incoming, outgoing = graph.beside(chosen)
        beside = c.GraphChosen(
            node=shown(graph.nodes[chosen]), incoming=edges(incoming), outgoing=edges(outgoing),
            incoming_count=len(incoming), outgoing_count=len(outgoing),
        )  # fmt: skip
    return c.GraphPage(
        name=record.id, title=graph.title, scan=graph.scan, prompt=graph.prompt, tokens=graph.tokens, made=record.made,
        links=len(graph.links), layers=[layer_name(layer) for layer in sorted({node.layer for node in graph.nodes})],
        nodes=[shown(node) for node in graph.nodes], pinned=graph.pinned,
        saes=[c.GraphSAE(layer=layer, sae=sae.address, chosen=named) for layer, (sae, named) in sorted(saes.items())],
        chosen=beside,
    )  # fmt: skip


def layer_name(layer: int) -> str:
    return "E" if layer == EMBEDDING else str(layer)
