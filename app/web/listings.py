"""What subjects have listed for queries, and which tokens latents fire on: asked and read once, within bounds."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine

from app.live.jobs import ListAnswer
from app.store.queries import SAERecord
from app.store.token_shares import TokenShares, read_token_shares

Model = tuple[Path, str | None]  # as app.live.prompt.Target has it
Read = asyncio.Task[TokenShares | None]


@dataclass
class Listings:
    """Answers by model and query, those used longest ago given up."""

    most: int = 500
    _known: OrderedDict[tuple[Model, str], ListAnswer] = field(default_factory=OrderedDict)

    def get(self, model: Model, query: str) -> ListAnswer | None:
        if (known := self._known.get((model, query))) is not None:
            self._known.move_to_end((model, query))
        return known

    def add(self, model: Model, query: str, answer: ListAnswer) -> None:
        self._known[model, query] = answer
        while len(self._known) > self.most:
            self._known.popitem(last=False)


@dataclass
class Shares:
    """Token shares by SAE, which never change; at most ``most`` bytes are kept. later: as app.web.state has it."""

    database: AsyncEngine
    later: Callable[[Coroutine[Any, Any, TokenShares | None]], Read]
    most: int = 256 << 20
    _known: OrderedDict[int, TokenShares | None] = field(default_factory=OrderedDict)
    _coming: dict[int, Read] = field(default_factory=dict)
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)  # one is read at a time

    async def get(self, saes: Sequence[SAERecord]) -> dict[int, TokenShares]:
        """By SAE's id; without those whose harvest did not count them. Whoever stops waiting stops no reading."""
        reading = {sae.id: self._begin(sae) for sae in saes if sae.id not in self._known}
        found = {sae.id: self._known[sae.id] for sae in saes if sae.id not in reading}
        for number, task in reading.items():
            found[number] = await asyncio.shield(task)
        for sae in saes:
            self._keep(sae.id, found[sae.id])
        return {number: shares for number, shares in found.items() if shares is not None}

    def _begin(self, sae: SAERecord) -> Read:
        if sae.id not in self._coming:
            task = self._coming[sae.id] = self.later(self._read(sae))
            task.add_done_callback(lambda done: self._done(sae.id, done))
        return self._coming[sae.id]

    def _done(self, number: int, task: Read) -> None:
        del self._coming[number]
        if not task.cancelled() and task.exception() is None:  # which is heard of here, whoever has gone
            self._keep(number, task.result())

    def _keep(self, number: int, shares: TokenShares | None) -> None:
        self._known[number] = shares
        self._known.move_to_end(number)
        while sum(one.nbytes for one in self._known.values() if one is not None) > self.most:
            self._known.popitem(last=False)

    async def _read(self, sae: SAERecord) -> TokenShares | None:
        async with self._turn, self.database.connect() as connection:
            return await read_token_shares(connection, sae.id, sae.n_latents)
