"""How an SAE's label scores are spread: counted once for each edition of its latents."""

from dataclasses import dataclass, field

from sqlalchemy.ext.asyncio import AsyncConnection

from app.store.browse import score_counts
from app.store.queries import SAERecord

Spread = tuple[list[float], list[int]]


@dataclass
class Scores:
    _known: dict[int, tuple[int, Spread]] = field(default_factory=dict)

    async def get(self, connection: AsyncConnection, sae: SAERecord) -> Spread:
        """Edges and counts; empty where no label has a score."""
        edition, spread = self._known.get(sae.id, (-1, ([], [])))
        if edition != sae.edition:
            spread = await score_counts(connection, sae.id)
            self._known[sae.id] = (sae.edition, spread)
        return spread
