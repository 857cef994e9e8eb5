"""Summaries of latents that prompts showed lately, kept for as long as the SAE's edition says that they hold."""

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection, Mapping

from app.store.queries import LatentSummary

MOST = 16_384  # about 20 MB

Key = tuple[int, int]  # the SAE's id, the latent's index
Fetch = Callable[[Collection[Key]], Awaitable[Mapping[Key, LatentSummary]]]


class KnownLatents:
    """An edition grows with every change of a latent's row, in the same transaction. What is fetched after an edition
    was read is at least as new as it, so that what is kept under an edition that still holds is never old."""

    def __init__(self, fetch: Fetch, most: int = MOST) -> None:
        self._fetch, self._most = fetch, most
        self._kept: OrderedDict[Key, tuple[int, LatentSummary]] = OrderedDict()

    async def get(self, latents: Collection[Key], editions: Mapping[int, int]) -> dict[Key, LatentSummary]:
        """Those of ``latents`` that there are; editions: those of their SAEs, by id."""
        found, missing = {}, []
        for key in latents:
            edition, summary = self._kept.get(key, (None, None))
            if summary is not None and edition == editions[key[0]]:
                self._kept.move_to_end(key)
                found[key] = summary
            else:
                missing.append(key)
        for key, summary in (await self._fetch(missing) if missing else {}).items():
            self._kept[key] = editions[key[0]], summary
            self._kept.move_to_end(key)
            found[key] = summary
        while len(self._kept) > self._most:
            self._kept.popitem(last=False)
        return found
