"""Latents by how much of their firings is on what a subject lists: exact, over all of them."""

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from app.live.jobs import Listed
from app.store.token_shares import TokenShares

Doubles = npt.NDArray[np.float64]


class Scored(NamedTuple):
    """Latents with a score above 0, the greatest first, equal ones by SAE and index: [found] each."""

    sae: npt.NDArray[np.int64]
    latent: npt.NDArray[np.int64]
    score: Doubles

    def within(self, kept: Mapping[int, Collection[int]]) -> "Scored":
        """Those of ``kept``, latents by SAE."""
        there = np.zeros(len(self.sae), bool)
        for sae, latents in kept.items():
            mine = self.sae == sae
            there[mine] = np.isin(self.latent[mine], np.fromiter(latents, np.int64, len(latents)))
        return Scored(self.sae[there], self.latent[there], self.score[there])

    def keys(self, most: int) -> list[tuple[int, int]]:
        """(SAE, latent) of the first ``most``."""
        return list(zip(self.sae[:most].tolist(), self.latent[:most].tolist(), strict=True))


def scores(shares: TokenShares, listed: Sequence[Listed]) -> Doubles:
    """[n_latents] fp64: of each latent the sum over its tokens of the token's weight × the share of its firings."""
    size = max([int(shares.ids.max(initial=0)), *(token for item in listed for token in item.tokens)]) + 1
    weight = np.zeros(size + 1)  # its last one is of no token, which has the id -1
    for item in listed:
        weight[item.tokens] = item.weight
    found: Doubles = np.einsum("nk,nk->n", weight[shares.ids], shares.shares, dtype=np.float64)
    return found


def scored(parts: Sequence[tuple[int, TokenShares, Sequence[Listed]]]) -> Scored:
    """All latents of SAEs: (id, its shares, what its subject lists) of each."""
    found = [(sae, scores(shares, listed)) for sae, shares, listed in parts]
    there = [(np.full(np.count_nonzero(one > 0), sae), np.flatnonzero(one > 0), one[one > 0]) for sae, one in found]
    if not there:
        return Scored(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))
    sae, latent, score = (np.concatenate(columns) for columns in zip(*there, strict=True))
    order = np.lexsort((latent, sae, -score))
    return Scored(sae[order], latent[order], score[order])


def on_list(shares: TokenShares, latent: int, listed: Sequence[Listed]) -> list[tuple[str, float]]:
    """The words of the list that ``latent`` fires on, with the share of its firings; the greatest first."""
    text = {token: item.text for item in listed for token in item.tokens}
    found: dict[str, float] = {}
    for token, share in zip(shares.ids[latent].tolist(), shares.shares[latent].tolist(), strict=True):
        if token in text:
            found[text[token]] = found.get(text[token], 0.0) + share
    return sorted(found.items(), key=lambda one: -one[1])
