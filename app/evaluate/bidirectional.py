"""Signed latents: whether their two signs mean different things."""

import torch
from torch import Tensor

from app.evaluate.outcome import NotApplicable, Outcome, Values, mean
from app.harvest.batches import Batch
from app.sae.base import SAE

LEAST = 30  # firings with each sign
MOST = 1 << 25  # activations that are kept


class Bidirectional:
    def __init__(self, sae: SAE, vocabulary: int) -> None:
        if not sae.config.signed:
            raise NotApplicable("its latents have one sign")
        self.n, self.vocabulary, self.tokens, self.left = sae.config.n_latents, vocabulary, 0, MOST
        self.parts: list[tuple[Tensor, Tensor]] = []

    def update(self, batch: Batch, x: Tensor, y: Tensor) -> None:
        self.tokens += batch.acts.n_positions
        if self.left <= 0:
            return
        acts = batch.acts
        self.left -= len(acts.latent)
        cell = acts.latent * self.vocabulary + batch.tokens[acts.position]
        half = (batch.sequence + batch.first_sequence)[acts.position] % 2
        self.parts.append((cell.cpu(), (2 * (acts.value < 0) + half).cpu()))

    def result(self) -> Outcome:
        cell, kind = (torch.cat(column) for column in zip(*self.parts, strict=True))
        return Outcome(compared(cell, kind, self.n, self.vocabulary), self.tokens)


def compared(cell: Tensor, kind: Tensor, n_latents: int, vocabulary: int) -> Values:
    """cell: [m] latent * vocabulary + token of each firing; kind: [m] 2 * negative + half of the text.

    A sign's profile counts on which tokens it fires. Two signs mean different things where the cosine of their
    profiles is below half of what the profiles of one sign in the two halves of the text have (the geometric mean of
    both signs').
    """
    places, of = cell.unique(return_inverse=True)
    counts = torch.zeros(4, len(places), dtype=torch.float64)
    for number in range(4):
        counts[number] = torch.bincount(of[kind == number], minlength=len(places))
    latent = places // vocabulary

    def dot(a: Tensor, b: Tensor) -> Tensor:
        return torch.zeros(n_latents, dtype=torch.float64).index_add_(0, latent, a * b)

    def cosine(a: Tensor, b: Tensor) -> Tensor:
        return dot(a, b) / (dot(a, a) * dot(b, b)).sqrt().clamp_min(1e-12)

    plus, minus = counts[0] + counts[1], counts[2] + counts[3]
    ones = torch.ones_like(plus)
    fired = torch.stack([dot(plus, ones), dot(minus, ones)])
    both = (fired >= LEAST).all(0)
    across = cosine(plus, minus)[both]
    within = (cosine(counts[0], counts[1]) * cosine(counts[2], counts[3])).sqrt()[both]
    alive = int((fired.sum(0) > 0).sum())
    different = across < within / 2
    return {
        "two_signs": int(both.sum()) / alive if alive else None,
        "different_signs": mean(different.double()),
        "sign_cosine": mean(across),
        "half_cosine": mean(within),
        "signed_latents": int(both.sum()),
    }
