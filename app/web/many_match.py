"""Several SAEs' latents matched with each other, pair by pair."""

from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from app.errors import SaescopeError
from app.store.matching import Nearest
from app.store.queries import SAERecord
from app.web.state import State

Indices = npt.NDArray[np.int64]
MOST = 5 * 10**11  # multiplications that a page may ask for, beyond the pairs of the first SAE


class Pairing(NamedTuple):
    """Two SAEs by place. found is None where note says why; pairs: [mutual, 2]."""

    a: int
    b: int
    found: Nearest | None
    pairs: Indices
    note: str | None


class Outcast(NamedTuple):
    """A latent, and the nearest in another SAE."""

    latent: int
    sae: int
    nearest: int
    cosine: float


async def matched(state: State, saes: Sequence[SAERecord]) -> list[Pairing]:
    """Every pair, those of the first SAE first: they are always computed, of the others as many as ``MOST`` allows, so
    that what is computed depends on the SAEs alone."""
    found, spent = [], 0
    for a, b in combinations(range(len(saes)), 2):
        one, other = saes[a], saes[b]
        if one.subject != other.subject:
            found.append(_without(a, b, "they read different subjects, so no cosine is defined"))
            continue
        spent += one.n_latents * other.n_latents * one.d_in if a else 0
        if spent > MOST:
            found.append(_without(a, b, "too many latents to match in all; compare the two alone"))
            continue
        try:
            nearest = await state.matches.get(one, other, state.settings.home)
        except SaescopeError as error:
            if error.status >= 500:
                raise
            found.append(_without(a, b, error.message.rstrip(".")))
            continue
        note = None if one.writes == other.writes else "they write at different places of the subject"
        found.append(Pairing(a, b, nearest, nearest.mutual(), note))
    return found


def _without(a: int, b: int, note: str) -> Pairing:
    return Pairing(a, b, None, np.empty((0, 2), np.int64), note)


def shared(pairings: Sequence[Pairing], count: int) -> tuple[Indices, npt.NDArray[np.float32]] | None:
    """Latents of the first SAE that have a mutual nearest in every other, the closest first: [found, count] indices, an
    SAE a column, and [found] the least cosine to the first. None where it is not matched with every other."""
    others = {p.b: p for p in pairings if p.a == 0 and p.found is not None}
    if len(others) < count - 1:
        return None
    kept = sorted(set.intersection(*(set(p.pairs[:, 0].tolist()) for p in others.values())))
    rows = np.array([kept], dtype=np.int64).T
    least = np.full(len(kept), np.inf, np.float32)
    for place in range(1, count):
        found = others[place].found
        if found is None:  # pragma: no cover - those were left out above
            return None
        rows = np.concatenate([rows, found.to_b[kept][:, None]], axis=1)
        least = np.minimum(least, found.cosine_b[kept])
    order = np.argsort(-least, kind="stable")
    return rows[order], least[order]


def outcasts(pairings: Sequence[Pairing], place: int, alive: npt.NDArray[np.bool_]) -> list[Outcast]:
    """Latents of the SAE at ``place`` that fire and are in no mutual pair with any it is matched with, the farthest
    from all of those first."""
    lone, best = alive.copy(), np.full(len(alive), -np.inf, np.float32)
    sae, nearest = np.zeros(len(alive), np.int64), np.zeros(len(alive), np.int64)
    for p in pairings:
        if p.found is None or place not in (p.a, p.b):
            continue
        mine = int(place == p.b)
        to, cosine = (p.found.to_a, p.found.cosine_a) if mine else (p.found.to_b, p.found.cosine_b)
        lone[p.pairs[:, mine]] = False
        nearer = cosine > best
        best = np.where(nearer, cosine, best)
        sae[nearer], nearest[nearer] = p.a if mine else p.b, to[nearer]
    index = np.flatnonzero(lone)
    order = index[np.argsort(best[index], kind="stable")]
    return [Outcast(int(i), int(sae[i]), int(nearest[i]), float(best[i])) for i in order]
