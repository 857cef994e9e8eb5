"""What of a latent's windows a prompt shows."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from app.explain.fence import shown
from app.explain.prompts import Shown
from app.explain.samples import KINDS, Bools, Drawn, Sampler, Window

MARKED = 0.3  # of the example's maximum
TOP, SAMPLED = 20, 20
POSITIVES, NEGATIVES = 15, 5  # of the contrastive explainer

Pieces = Callable[[Sequence[int]], list[str]]


def marks(window: Window) -> Bools:
    """[w]: the tokens whose activation passes MARKED of the window's maximum."""
    largest = window.activations.max(initial=0.0)
    return (window.activations > MARKED * largest) if largest > 0 else np.zeros(len(window.activations), bool)


def highlighted(window: Window, pieces: Pieces, marked: Bools | None = None) -> str:
    """``marked``: in the place of the window's own marks."""
    where = marks(window) if marked is None else marked
    return shown(pieces(window.token_ids.tolist()), where.tolist())


def bare(window: Window, pieces: Pieces) -> str:
    return shown(pieces(window.token_ids.tolist()))


class Material(NamedTuple):
    """What an explainer is shown: ``active`` strongest first; ``quiet``: hard windows in which it is not active."""

    active: list[Window]
    quiet: list[Window]

    def fewer(self) -> "Material | None":
        """Half of it; None below four active windows."""
        if len(self.active) < 4:
            return None
        # Every second one, so that weak activations stay among them.
        return Material(self.active[::2], self.quiet[::2])


def strongest(sampler: Sampler, latent: int, sign: int, n: int) -> list[Window]:
    """The ``n`` train windows with the highest peaks, strongest first."""
    peaks = sampler.peaks(latent, sign, "train")
    first = np.argsort(-peaks.value, kind="stable")[:n]
    largest = max(float(sampler.maxima[latent, int(sign < 0)]), 1e-30)
    tenth = np.minimum((peaks.value[first] / largest * 10).astype(np.int64), 9)
    kind = np.full(len(first), KINDS.index("active"), np.int8)
    drawn = Drawn(peaks.window[first], kind, tenth.astype(np.int8), peaks.place[first], peaks.value[first])
    return sampler.of(latent, sign, "train", drawn)


def material(sampler: Sampler, latent: int, sign: int = 1) -> Material:
    """20 strongest windows of train and 20 over the tenths of its range."""
    top = strongest(sampler, latent, sign, TOP)
    seen = {(one.sequence, one.start) for one in top}
    drawn = [one for one in sampler.windows(latent, sign, "train", TOP + SAMPLED) if one.active]
    return Material(_sorted([*top, *[one for one in drawn if (one.sequence, one.start) not in seen][:SAMPLED]]), [])


def contrasting(sampler: Sampler, latent: int, sign: int = 1) -> Material:
    """15 windows of train in which it is active, the strongest and others, and 5 in which it is not, hard ones if there
    are any."""
    whole = material(sampler, latent, sign).active
    step = max(1, len(whole) // POSITIVES)
    quiet = [one for one in sampler.windows(latent, sign, "train", 50) if not one.active]
    quiet.sort(key=lambda one: one.kind == "random")
    return Material(whole[::step][:POSITIVES], quiet[:NEGATIVES])


def _sorted(windows: list[Window]) -> list[Window]:
    return sorted(windows, key=lambda one: -float(one.activations.max(initial=0.0)))


def told(windows: Sequence[Window], pieces: Pieces, largest: float) -> list[Shown]:
    """The windows with highlights, and their strength as tenths of ``largest``."""
    return [
        Shown(highlighted(one, pieces), int(np.clip(np.ceil(10 * one.activations.max() / largest), 1, 10)))
        for one in windows
    ]


def shuffled_marks(negatives: Sequence[Window], positives: Sequence[Window], seed: Sequence[int]) -> list[Bools | None]:
    """Marks for windows in which the latent is not active: each takes the very places that some positive has marked,
    each positive's about as often, so that number and position of marks tell nothing. None where none fits.
    """
    rng = np.random.default_rng(list(seed))
    rounds = -(-len(negatives) // max(len(positives), 1))
    donors = [np.flatnonzero(marks(positives[i])) for _ in range(rounds) for i in rng.permutation(len(positives))]
    out: list[Bools | None] = [None] * len(negatives)
    # Short windows choose first: what they can take is less.
    for i in sorted(range(len(negatives)), key=lambda i: len(negatives[i].activations)):
        length = len(negatives[i].activations)
        fit = next((j for j, places in enumerate(donors) if len(places) and places.max() < length), None)
        if fit is None:
            continue
        mine = np.zeros(length, bool)
        mine[donors.pop(fit)] = True
        out[i] = mine
    return out
