"""How much latents overlap: the cosines of their decoder rows, and how often they fire together."""

from typing import NamedTuple

import torch
from torch import Tensor

from app.evaluate.outcome import Outcome, Values, bars, mean, quantiles
from app.harvest.batches import Batch
from app.harvest.coactivation import ExactPairs, phi
from app.sae.base import SAE

ROWS = 32_768  # decoder rows compared with all others, at most; drawn by the seed where there are more
RANDOM_ROWS = 1024  # of random directions
BLOCK = 1 << 24  # cosines held at once
LATENTS = 8192  # whose co-activation is counted, at most
PAIRS = 1 << 29  # joint firings looked at
LEAST = 10  # firings below which phi says nothing
PHI_BINS = 20_000


class Cosines(NamedTuple):
    """nearest: [rows], each row's greatest cosine with another; total, squares: sums over all pairs, of |cosine| and
    its square; pairs: how many."""

    nearest: Tensor
    total: float
    squares: float
    pairs: int


def drawn(n: int, most: int, seed: int) -> Tensor:
    """At most ``most`` of 0 to n - 1, ascending."""
    if n <= most:
        return torch.arange(n)
    return torch.randperm(n, generator=torch.Generator().manual_seed(seed))[:most].sort().values


def cosines(W: Tensor, rows: Tensor, *, signed: bool) -> Cosines:
    """W: [n, d]; rows: [m], those compared with all. Of a signed SAE |cosine|, since a latent may point either way.
    Rows of length 0 have no direction and are left out."""
    norms = W.float().norm(dim=1)
    unit = W.float() / norms.clamp_min(1e-12)[:, None]
    known = norms > 0
    rows = rows.to(W.device)
    rows = rows[known[rows]]
    n, nearest, total, squares = int(known.sum()), [], 0.0, 0.0
    for some in rows.split(max(1, BLOCK // len(W))):
        found = unit[some] @ unit.T
        found[:, ~known] = 0
        found[torch.arange(len(some), device=W.device), some] = 0
        total += float(found.abs().double().sum())
        squares += float(found.double().pow(2).sum())
        found = found.abs() if signed else found
        found[:, ~known] = -2
        found[torch.arange(len(some), device=W.device), some] = -2
        nearest.append(found.max(dim=1).values)
    whole = torch.cat(nearest) if nearest else torch.zeros(0)
    return Cosines(whole if n > 1 else whole[:0], total, squares, len(rows) * max(n - 1, 0))


class Independence:
    def __init__(self, sae: SAE, seed: int) -> None:
        n = sae.config.n_latents
        self.sae, self.seed = sae, seed
        self.chosen = drawn(n, LATENTS, seed).to(sae.W_dec.device)
        self.number = torch.full((n,), -1, device=sae.W_dec.device)
        self.number[self.chosen] = torch.arange(len(self.chosen), device=sae.W_dec.device)
        self.together = ExactPairs(len(self.chosen), sae.W_dec.device)
        self.left, self.tokens = PAIRS, 0

    def update(self, batch: Batch, x: Tensor, y: Tensor) -> None:
        self.tokens += batch.acts.n_positions
        if self.left <= 0:
            return
        acts = batch.acts.keep(self.number[batch.acts.latent] >= 0)
        acts = acts._replace(latent=self.number[acts.latent])
        counts = torch.bincount(acts.position, minlength=1)
        self.left -= int((counts * (counts - 1) // 2).sum())
        self.together.add(acts)

    def result(self) -> Outcome:
        values, near = self._decoder()
        more, shares = together(self.together)
        near_chart = bars(
            "Greatest cosine of each decoder row with another", "cosine", torch.linspace(-1, 1, 41).double(),
            torch.histc(near.float().cpu(), 40, -1, 1).long(),
        )  # fmt: skip
        phi_chart = bars(
            "Strongest co-activation of each latent", "phi", torch.linspace(0, 1, 21).double(),
            torch.histc(shares.float().cpu(), 20, 0, 1).long(),
        )  # fmt: skip
        return Outcome(values | more, self.tokens, {"bars": [near_chart, phi_chart]})

    def _decoder(self) -> tuple[Values, Tensor]:
        W, signed = self.sae.W_dec, self.sae.config.signed
        rows = drawn(len(W), ROWS, self.seed)
        found = cosines(W, rows, signed=signed)
        generator = torch.Generator().manual_seed(self.seed)
        noise = torch.randn(W.shape, generator=generator).to(W.device)
        random = cosines(noise, drawn(len(W), RANDOM_ROWS, self.seed), signed=signed)
        near = found.nearest
        values = {"max_cosine": mean(near)} | quantiles(
            near, {"max_cosine_median": 0.5, "max_cosine_q90": 0.9, "max_cosine_q99": 0.99, "max_cosine_greatest": 1.0}
        )
        pairs = max(found.pairs, 1)
        values |= {
            "near_duplicates": mean((near > 0.9).double()),
            "mean_abs_cosine": found.total / pairs,
            "rms_cosine": (found.squares / pairs) ** 0.5,
            "random_max_cosine": mean(random.nearest),
            "cosine_rows": len(near),
        }
        return values, near


def together(pairs: ExactPairs) -> tuple[Values, Tensor]:
    """Quantiles of |phi| over all pairs of latents that fire often enough, and each one's greatest phi."""
    often = (pairs.fired >= LEAST).nonzero()[:, 0]
    counts = torch.zeros(PHI_BINS, dtype=torch.int64)
    greatest, total = [], 0.0
    for mine in often.split(max(1, BLOCK // max(pairs.n, 1))):
        found = phi(pairs.joint(mine)[:, often], pairs.fired[mine, None], pairs.fired[None, often], pairs.positions)
        itself = mine[:, None] == often[None]
        greatest.append(found.masked_fill(itself, -2).max(dim=1).values)
        size = found.abs()[mine[:, None] < often[None]]
        total += float(size.sum())
        counts += torch.bincount((size * PHI_BINS).long().clamp_max(PHI_BINS - 1).cpu(), minlength=PHI_BINS)
    n = int(counts.sum())
    near = torch.cat(greatest) if n else torch.zeros(0)
    reached = counts.cumsum(0)

    def quantile(q: float) -> float | None:
        return (int((reached < q * n).sum()) + 0.5) / PHI_BINS if n else None

    values: Values = {
        "phi_mean_abs": total / n if n else None,
        "phi_abs_median": quantile(0.5),
        "phi_abs_q99": quantile(0.99),
        "phi_abs_q999": quantile(0.999),
        "max_phi": mean(near),
        "phi_latents": len(often),
        "phi_tokens": pairs.positions,
    }
    return values, near
