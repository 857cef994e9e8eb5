"""Lookups by key that requests make at the same time, fetched together."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Gathered(Generic[K, V]):
    """What is asked for in one turn of the event loop is fetched in one go.

    Nothing is kept: whatever is told was fetched after it was asked for. A failed fetch fails for all who wait for it.
    """

    def __init__(self, fetch: Callable[[list[K]], Awaitable[Mapping[K, V]]]) -> None:
        self._fetch = fetch
        self._wanted: dict[K, None] = {}
        self._next: asyncio.Task[Mapping[K, V]] | None = None

    async def get(self, keys: Collection[K]) -> dict[K, V]:
        """Those of ``keys`` that there are."""
        if not keys:
            return {}
        if self._next is None:
            self._next = asyncio.create_task(self._soon())
            self._next.add_done_callback(lambda task: task.cancelled() or task.exception())  # whoever waits is told
        self._wanted.update(dict.fromkeys(keys))
        # Who goes away takes nothing from the others.
        found = await asyncio.shield(self._next)
        return {key: found[key] for key in keys if key in found}

    async def _soon(self) -> Mapping[K, V]:
        await asyncio.sleep(0)
        wanted, self._wanted, self._next = list(self._wanted), {}, None
        return await self._fetch(wanted)
