"""Scores by a sentence model: how well the cosine of an explanation and a text tells whether the latent is active in it
(Paulo et al. 2024, "Automatically Interpreting Millions of Features in Large Language Models", embedding scoring)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from app.explain.samples import Window

Floats = npt.NDArray[np.float32]


class Encodes(Protocol):
    """A sentence model: texts to vectors of norm 1."""

    name: str

    def encode(self, texts: Sequence[str]) -> Floats: ...


@dataclass(eq=False)
class EmbeddingScorer:
    """``pieces``: the text of token ids. Windows' vectors are kept: latents share them."""

    model: Encodes
    pieces: Callable[[Sequence[int]], Sequence[str]]
    _known: dict[tuple[int, int], Floats] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.model.name

    def cosines(self, text: str, windows: Sequence[Window]) -> list[float]:
        """Of the explanation with each window's text."""
        fresh = {(one.sequence, one.start): one for one in windows if (one.sequence, one.start) not in self._known}
        if fresh:
            read = ["".join(self.pieces(one.token_ids.tolist())) for one in fresh.values()]
            self._known |= dict(zip(fresh, self.model.encode(read), strict=True))
        (said,) = self.model.encode([text])
        return [float(self._known[one.sequence, one.start] @ said) for one in windows]
