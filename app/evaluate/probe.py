"""Logistic regression by Newton's method: a convex problem of one answer, whatever the order of the rows."""

from typing import NamedTuple

import torch
from torch import Tensor

STEPS = 30
NEAR = 1e-8  # of the largest step, at which it has converged


class Probe(NamedTuple):
    """logit = x . w + b. w: [d] fp64; b: fp64 number."""

    w: Tensor
    b: float

    def logits(self, x: Tensor) -> Tensor:
        """x: [n, d] -> [n] fp64."""
        return x.double() @ self.w + self.b


def fit(x: Tensor, y: Tensor, l2: float = 1.0) -> Probe:
    """The minimum of sum over rows of v (log loss) + l2/2 |w|^2 on columns scaled to variance 1, where v makes both
    classes weigh n/2 together. x: [n, d]; y: [n] bool, with both kinds in it."""
    x = x.double()
    centre, scale = x.mean(0), x.std(0, correction=0)
    scale = torch.where(scale > 1e-12, scale, torch.inf)  # a column that does not vary says nothing
    z = torch.cat([(x - centre) / scale, torch.ones(len(x), 1, dtype=torch.float64)], dim=1)
    target = y.double()
    share = target.mean()
    weight = torch.where(y, 0.5 / share, 0.5 / (1 - share))
    penalty = torch.full((z.shape[1],), l2, dtype=torch.float64)
    penalty[-1] = 1e-9
    beta = torch.zeros(z.shape[1], dtype=torch.float64)

    def loss(b: Tensor) -> float:
        logit = z @ b
        each = torch.nn.functional.binary_cross_entropy_with_logits(logit, target, reduction="none")
        return float((weight * each).sum() + 0.5 * (penalty * b * b).sum())

    now = loss(beta)
    for _ in range(STEPS):
        p = (z @ beta).sigmoid()
        slope = z.T @ (weight * (p - target)) + penalty * beta
        curve = (z * (weight * p * (1 - p)).clamp_min(1e-12)[:, None]).T @ z + torch.diag(penalty)
        step = torch.linalg.solve(curve, slope)
        size = 1.0
        while (new := loss(beta - size * step)) > now and size > 1e-6:
            size /= 2
        beta, now = beta - size * step, new
        if float(step.abs().max()) < NEAR:
            break
    w = beta[:-1] / scale
    return Probe(w, float(beta[-1] - centre @ w))


def accuracy(probe: Probe, x: Tensor, y: Tensor) -> float:
    """x: [n, d]; y: [n] bool."""
    return float(((probe.logits(x) > 0) == y).double().mean())


def f1(said: Tensor, y: Tensor) -> float:
    """said, y: [n] bool; 0 where nothing is right."""
    both = int((said & y).sum())
    return 2 * both / max(int(said.sum()) + int(y.sum()), 1)


def separation(x: Tensor, y: Tensor) -> Tensor:
    """How far apart the classes are in each column: difference of means over the column's standard deviation, 0 where
    it does not vary. x: [n, d]; y: [n] bool -> [d] fp64."""
    x = x.double()
    apart, spread = x[y].mean(0) - x[~y].mean(0), x.std(0, correction=0)
    return torch.where(spread > 1e-12, apart / spread.clamp_min(1e-12), 0.0)
