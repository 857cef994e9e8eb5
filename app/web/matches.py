"""Matches of two SAEs' latents, each computed once, off the event loop."""

import asyncio
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path

from app.store.decoders import Decoder
from app.store.matching import Nearest, nearest
from app.store.queries import SAERecord

KEPT = 64


@dataclass
class Matches:
    """One at a time is computed: each takes all cores."""

    _known: OrderedDict[tuple[int, int], Nearest] = field(default_factory=OrderedDict)
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def get(self, a: SAERecord, b: SAERecord, home: Path) -> Nearest:
        """
        Raises:
            DecoderUnavailable, TooLarge: they cannot be matched; says why.
        """
        key = a.id, b.id
        if (known := self._known.get((b.id, a.id))) is not None and key not in self._known:
            return Nearest(known.to_a, known.cosine_a, known.to_b, known.cosine_b)
        if key not in self._known:
            async with self._turn:
                if key not in self._known:
                    self._known[key] = await asyncio.to_thread(_match, a, b, home)
        self._known.move_to_end(key)
        while len(self._known) > KEPT:
            self._known.popitem(last=False)
        return self._known[key]


def _match(a: SAERecord, b: SAERecord, home: Path) -> Nearest:
    left, right = Decoder(home / a.path, a.n_latents), Decoder(home / b.path, b.n_latents)
    return nearest(left, a.n_latents, right, b.n_latents)
