"""Contexts of other tools' files on their way into the database: in files of their own, since there may be gigabytes.

Contexts of the same tokens are one sequence. What is kept of each in memory is a few dozen bytes.
"""

import hashlib
from array import array
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from app.store.copying import Column, Fixed, Ragged, Raw
from app.store.tables import TOP

Array = npt.NDArray[Any]
ROWS = 20_000  # made into a chunk at once


class Gathered:
    """Use as a context manager; ``add`` every context, then read."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers: dict[bytes, int] = {}
        self._ends = array("q", [0])  # of the sequences, in their file
        self._latent, self._sequence, self._position = array("i"), array("i"), array("i")
        self._begin, self._held, self._top = array("q"), array("i"), array("b")
        self._peak, self._token = array("f"), array("i")
        self._same = array("q")  # of tokens and values
        self._written = 0
        self._digest, self._told = hashlib.sha256(), hashlib.sha256()
        self.width = 1

    def __enter__(self) -> Self:
        self._ids = (self._folder / "ids").open("w+b")
        self._offsets = (self._folder / "offsets").open("w+b")
        self._shares = (self._folder / "shares").open("w+b")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for file in (self._ids, self._offsets, self._shares):
            file.close()

    def __len__(self) -> int:
        return len(self._latent)

    @property
    def sequences(self) -> int:
        return len(self._ends) - 1

    def add(self, latent: int, ids: list[int], values: Array, top: bool) -> None:
        """A context in which the latent fires. values: [tokens] fp32."""
        token_ids = np.array(ids, dtype="<i4")
        key = hashlib.sha256(token_ids.tobytes()).digest()
        number = self._numbers.setdefault(key, self.sequences)
        if number == self.sequences:
            self._ids.write(token_ids.tobytes())
            self._ends.append(self._ends[-1] + len(token_ids))
            self._digest.update(key)
            self.width = max(self.width, len(token_ids))
        told = hashlib.sha256(key + values.tobytes()).digest()
        self._told.update(told + bytes([top]))
        self._same.append(int.from_bytes(told[:8], "little", signed=True))
        place = int(np.abs(values).argmax())
        offsets = values.nonzero()[0]
        self._offsets.write(offsets.astype("<i2").tobytes())
        self._shares.write((values[offsets] / values[place]).astype("<f2").tobytes())
        self._latent.append(latent)
        self._sequence.append(number)
        self._position.append(place)
        self._token.append(ids[place])
        self._peak.append(float(values[place]))
        self._begin.append(self._written)
        self._held.append(len(offsets))
        self._top.append(top)
        self._written += len(offsets)

    def sha256(self) -> str:
        """Of the sequences, in order."""
        return self._digest.hexdigest()

    @property
    def activations_sha256(self) -> str:
        """Of every context that was added, with its activations."""
        return self._told.hexdigest()

    def extremes(self, n_latents: int) -> tuple[Array, Array]:
        """Every latent's largest and smallest activation, at least and at most 0: two of [n_latents] fp32."""
        latent, peak = np.frombuffer(self._latent, np.int32), np.frombuffer(self._peak, np.float32)
        high, low = np.zeros(n_latents, np.float32), np.zeros(n_latents, np.float32)
        np.maximum.at(high, latent, peak)
        np.minimum.at(low, latent, peak)
        return high, low

    def peak_tokens(self, n_latents: int) -> list[list[int]]:
        """The tokens on which each latent's top contexts peak, the strongest first."""
        latent, peak = np.frombuffer(self._latent, np.int32), np.abs(np.frombuffer(self._peak, np.float32))
        token, top = np.frombuffer(self._token, np.int32), np.frombuffer(self._top, np.int8)
        out: list[list[int]] = [[] for _ in range(n_latents)]
        for row in np.lexsort((-peak, latent)):
            if top[row]:
                out[latent[row]].append(int(token[row]))
        return out

    def token_sequences(self) -> Iterator[Array]:
        self._ids.flush()
        ids = np.fromfile(self._folder / "ids", dtype="<i4") if self._ends[-1] < 1 << 24 else self._mapped("ids", "<i4")
        for begin, end in zip(self._ends, self._ends[1:], strict=False):
            yield np.array(ids[begin:end])

    def _mapped(self, name: str, dtype: str) -> Array:
        path = self._folder / name
        return np.memmap(path, dtype=dtype, mode="r") if path.stat().st_size else np.zeros(0, dtype)

    def rows(self, high: Array, low: Array) -> Iterator[dict[str, Column]]:
        """Chunks of the example table. An interval is the tenth of the latent's range, of its sign, that the context's
        strongest position lies in; of contexts that stand there twice, tokens and activations, one is kept.

        high, low: [n_latents], from ``extremes``.
        """
        for file in (self._offsets, self._shares):
            file.flush()
        latent, peak = np.frombuffer(self._latent, np.int32), np.frombuffer(self._peak, np.float32)
        sequence, position = np.frombuffer(self._sequence, np.int32), np.frombuffer(self._position, np.int32)
        begin, held = np.frombuffer(self._begin, np.int64), np.frombuffer(self._held, np.int32)
        top = np.frombuffer(self._top, np.int8)
        sign = np.where(peak > 0, 1, -1)
        most = np.where(sign > 0, high[latent], -low[latent])
        interval = np.where(top > 0, TOP, np.minimum(9, np.floor(10 * np.abs(peak) / most)).astype(np.int64))
        order = np.lexsort((sequence, -np.abs(peak), interval, -sign, latent))
        group = np.stack([latent, sign, interval, np.frombuffer(self._same, np.int64)])[:, order]
        _, first = np.unique(group, axis=1, return_index=True)
        order = order[np.sort(first)]
        chosen = np.stack([latent, sign, interval])[:, order]
        new = np.ones(len(order), dtype=bool)
        new[1:] = (chosen[:, 1:] != chosen[:, :-1]).any(0)
        begins = np.maximum.accumulate(np.where(new, np.arange(len(order)), 0))
        rank = np.arange(len(order)) - begins
        offsets, shares = self._mapped("offsets", "<i2"), self._mapped("shares", "<f2")
        for start in range(0, len(order), ROWS):
            these = order[start : start + ROWS]
            lengths = held[these].astype(np.int64)
            where = np.repeat(begin[these] - (lengths.cumsum() - lengths), lengths) + np.arange(lengths.sum())
            yield {
                "latent": Fixed(latent[these]),
                "sign": Fixed(sign[these]),
                "interval": Fixed(interval[these]),
                "rank": Fixed(rank[start : start + ROWS]),
                "sequence_id": Fixed(sequence[these]),
                "position": Fixed(position[these]),
                "start": Fixed(np.zeros(len(these), np.int64)),
                "activation": Fixed(peak[these]),
                "offsets": Ragged(np.asarray(offsets[where]), lengths),
                "shares": Raw(np.ascontiguousarray(shares[where]).view(np.uint8), 2 * lengths),
            }
