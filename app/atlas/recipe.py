"""What a map is made by, and who is told."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

from app.atlas import knn, layout
from app.atlas.vectors import On

SAMPLE = 131_072


@dataclass(frozen=True)
class Recipe:
    """Of more than ``sample`` latents, UMAP and t-SNE lay out so many, drawn at random; each of the others goes to its
    nearest among them."""

    method: layout.Method = "umap"
    on: On = "decoder"
    clusters: Literal["density", "hdbscan"] = "density"
    seed: int = 0
    k: int = knn.K
    sample: int = SAMPLE

    def parameters(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Watch:
    """Who is told: ``doing`` at each stage, ``step`` with how much of it is done."""

    doing: Callable[[str], None] = lambda stage: None
    step: Callable[[int, int], None] = lambda done, total: None
