"""The exact top-K contexts of every latent."""

from typing import Any

import torch
from torch import Tensor

from app.harvest.batches import Batch
from app.harvest.grouping import occurrence, spread
from app.harvest.peaks import Peaks, capture, text_keys
from app.harvest.pool import WindowPool

_COLUMNS = ("magnitude", "sequence", "place", "key", "token", "window")
_EMPTY = (0.0, -1, 0, 0, -1, -1)


class TopContexts:
    """[n, k] tables, strongest first; of equal activations the lower sequence number comes first.

    A context is a sequence's strongest position with its window of text; each text counts once, at its
    strongest. magnitude fp32 (0: empty slot), sequence int32 (-1), place int32, key int64 (of
    the text), token int32 (the id it peaks on), window int32 (-1).
    """

    def __init__(self, n_latents: int, k: int, pool: WindowPool, device: torch.device | str = "cpu") -> None:
        self.k = k
        self.pool = pool
        self.n_latents = n_latents
        self.magnitude = torch.zeros(n_latents, k, device=device)
        self.sequence = torch.full((n_latents, k), -1, dtype=torch.int32, device=device)
        self.place = torch.zeros(n_latents, k, dtype=torch.int32, device=device)
        self.key = torch.zeros(n_latents, k, dtype=torch.int64, device=device)
        self.token = torch.full((n_latents, k), -1, dtype=torch.int32, device=device)
        self.window = torch.full((n_latents, k), -1, dtype=torch.int32, device=device)

    def update(self, batch: Batch, peaks: Peaks) -> None:
        """Peaks must come from later sequences than any seen before, as they do in a pass over a corpus."""
        peaks = peaks.take(peaks.magnitude > self.magnitude[peaks.latent, -1])
        if not len(peaks.latent):
            return
        key = text_keys(batch, peaks, self.pool.width)
        # A window is captured only for what gets in; until then a candidate is known by -2 - its number.
        unseen = -2 - torch.arange(len(key), device=key.device)
        token = batch.token_ids[peaks.row, peaks.place]
        affected = self._insert(
            peaks.latent, [peaks.magnitude, peaks.sequence, peaks.place, key, token, unseen], later=True
        )
        windows = self.window[affected]
        entered = windows < -1
        taken = capture(batch, peaks.take(-2 - windows[entered].long()), self.pool.width)
        windows[entered] = self.pool.add(taken).int()
        self.window[affected] = windows

    def merge(self, other: "TopContexts") -> None:
        latent, slot = (other.magnitude > 0).nonzero(as_tuple=True)
        able = other.magnitude[latent, slot] >= self.magnitude[latent, -1]
        latent, slot = latent[able], slot[able]
        columns = [getattr(other, name)[latent, slot] for name in _COLUMNS]
        columns[-1] = self.pool.add(other.pool.rows(columns[-1]))
        self._insert(latent, columns, later=False)

    def _insert(self, latent: Tensor, columns: list[Tensor], later: bool) -> Tensor:
        """latent: [entries] sorted; columns as in _COLUMNS; later: in order of sequence, and none comes before what is
        held. Returns the latents that got something: [m]."""
        if not len(latent):
            return latent
        affected: Tensor
        affected, inverse = torch.unique_consecutive(latent, return_inverse=True)
        slot = self.k + occurrence(inverse)
        width = int(slot.max()) + 1
        table = [
            spread(getattr(self, name)[affected], inverse, slot, column, width, fill)
            for name, column, fill in zip(_COLUMNS, columns, _EMPTY, strict=True)
        ]
        twice = _twice(affected, inverse, columns[3], self.key)
        for some, repeats in ((~twice, False), (twice, True)):
            best = self._best([column[some] for column in table], later, repeats)
            for name, column in zip(_COLUMNS, best, strict=True):
                getattr(self, name)[affected[some]] = column
        return affected

    def _best(self, table: list[Tensor], later: bool, repeats: bool) -> list[Tensor]:
        """table: columns [rows, m] -> [rows, k], the strongest; ``repeats``: a text may be in a row more than once."""
        magnitude, sequence, key = table[0], table[1], table[3]
        if later:  # then columns are in order of sequence already
            order = magnitude.argsort(dim=1, descending=True, stable=True)
        else:
            by_sequence = sequence.argsort(dim=1, stable=True)
            order = by_sequence.gather(1, magnitude.gather(1, by_sequence).argsort(dim=1, descending=True, stable=True))
        if not repeats:
            return [column.gather(1, order[:, : self.k]) for column in table]
        repeated = _repeats(key.gather(1, order))
        order = order.gather(1, repeated.byte().argsort(dim=1, stable=True))[:, : self.k]
        spare = repeated.byte().sort(dim=1, stable=True).values[:, : self.k].bool()
        best = [column.gather(1, order) for column in table]
        for column, fill in zip(best, _EMPTY, strict=True):
            column[spare | (magnitude.gather(1, order) == 0)] = fill
        return best

    def state_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in _COLUMNS}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name in _COLUMNS:
            setattr(self, name, state[name])


def _twice(affected: Tensor, row: Tensor, key: Tensor, held: Tensor) -> Tensor:
    """[len(affected)] bool: whether a text comes more than once among a latent's new entries and what is ``held``.

    row: [entries], the place in ``affected`` of each entry's latent; key: [entries]; held: [n, k].
    """
    twice = torch.zeros(len(affected), dtype=torch.bool, device=key.device)
    twice[row[(held[affected[row]] == key[:, None]).any(1)]] = True
    by_key = key.argsort(stable=True)
    by_key = by_key[row[by_key].argsort(stable=True)]
    again = (key[by_key][1:] == key[by_key][:-1]) & (row[by_key][1:] == row[by_key][:-1])
    twice[row[by_key[1:][again]]] = True
    return twice


def _repeats(key: Tensor) -> Tensor:
    """[rows, m] -> bool: an earlier column of the same row holds the same key."""
    ordered, order = key.sort(dim=1, stable=True)
    again = torch.zeros_like(key, dtype=torch.bool)
    again[:, 1:] = ordered[:, 1:] == ordered[:, :-1]
    return torch.zeros_like(again).scatter(1, order, again)
