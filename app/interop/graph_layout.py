"""Where a graph's nodes stand: a column a token, a row a layer, embeddings at the bottom."""

from collections import defaultdict
from typing import NamedTuple

from app.interop.graphs import Graph

STEP, ACROSS = 12, 16  # between nodes of one token and layer, and how many of them stand side by side
LEFT, TOP, GAP = 60, 14, 14


class Layout(NamedTuple):
    """places: (x, y) of every node; rows: (layer, y) from the bottom up; columns: (position, x) of every token."""

    width: float
    height: float
    places: list[tuple[float, float]]
    rows: list[tuple[int, float]]
    columns: list[tuple[int, float]]


def laid_out(graph: Graph) -> Layout:
    cells: dict[tuple[int, int], list[int]] = defaultdict(list)
    for number, node in enumerate(graph.nodes):
        cells[node.layer, node.position].append(number)
    wide: dict[int, int] = defaultdict(lambda: 1)
    high: dict[int, int] = defaultdict(lambda: 1)
    for (layer, position), held in cells.items():
        wide[position] = max(wide[position], min(len(held), ACROSS))
        high[layer] = max(high[layer], -(-len(held) // ACROSS))
    x, left = {}, float(LEFT)
    for position in range(len(graph.tokens)):
        x[position] = left
        left += max(wide[position] * STEP, 26) + GAP
    y, top = {}, float(TOP)
    for layer in sorted({layer for layer, _ in cells}, reverse=True):
        y[layer] = top
        top += high[layer] * STEP + GAP
    places = [(0.0, 0.0)] * len(graph.nodes)
    for (layer, position), held in cells.items():
        for place, number in enumerate(held):
            places[number] = (
                x[position] + STEP * (place % ACROSS) + STEP / 2,
                y[layer] + STEP * (place // ACROSS) + STEP / 2,
            )
    rows = [(layer, y[layer] + STEP / 2) for layer in sorted(y)]
    return Layout(left, top + 60, places, rows, list(x.items()))
