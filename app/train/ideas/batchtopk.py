"""BatchTopK: Bussmann et al. 2024, "BatchTopK Sparse Autoencoders"."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from app.sae.base import SAE, SAEConfig
from app.sae.jumprelu import JumpReLU
from app.train import sparse
from app.train.idea import Batch, Idea, Loss, Shape, Units
from app.train.ideas import topk


@dataclass(frozen=True)
class Options(topk.Options):
    memory: float = 0.99  # of the running mean that becomes the threshold


class BatchTopK(Idea):
    """f = relu((x - b_dec) W_enc + b_enc) where it is among the k * rows largest of the whole batch

    L = |x - x_hat|^2 / var(x) + aux_weight AuxK. At inference f = a 1[a > theta], theta the mean over batches of the
    smallest entry kept: here a running mean.
    """

    name, about, Options = "batchtopk", "Bussmann et al. 2024, BatchTopK Sparse Autoencoders", Options
    theta: Tensor
    edge: Tensor

    def __init__(self, shape: Shape, options: Any, generator: torch.Generator) -> None:
        super().__init__(shape, options, generator)
        self.register_buffer("theta", torch.tensor(-1.0))
        self.register_buffer("edge", torch.tensor(0.0))  # the smallest entry kept of the last batch

    def chosen(self, batch: Batch) -> sparse.Codes:
        """The batch's codes; ``edge`` is the smallest of them."""
        with torch.no_grad():
            pre_acts = self.pre_acts(batch.x).relu()
            self.edge = largest(pre_acts, self.options.k * batch.size, 0.8 * self.edge, batch)
            cell = (pre_acts >= self.edge).reshape(-1).nonzero()[:, 0]
        return sparse.picked(self, batch.x, pre_acts, cell)

    def loss(self, batch: Batch) -> Loss:
        f = self.chosen(batch)
        error = batch.y - f.decoded(self.W_dec) - self.b_dec
        fvu = batch.share(error.pow(2))
        aux = sparse.aux_k(self, batch, error, self.shape.d_in // 2)
        l0 = batch.mean(torch.ones_like(f.value))
        return Loss(fvu + self.options.aux_weight * aux, fvu, l0, f.fired(), {"aux": aux})

    @torch.no_grad()
    def after_step(self, batch: Batch, loss: Loss) -> None:
        keep = self.options.memory if self.theta >= 0 else 0.0
        self.theta = keep * self.theta + (1 - keep) * self.edge

    def finished(self, config: SAEConfig, units: Units) -> SAE:
        threshold = self.theta.cpu().clamp_min(0) / units.scale
        return JumpReLU(config, **self.folded(units), threshold=threshold)


def largest(acts: Tensor, count: int, guess: Tensor, batch: Batch) -> Tensor:
    """The ``count``-th largest entry of all of the batch's ``acts`` [rows, n], or the smallest positive one if fewer
    are. Only what is above ``guess`` is sorted, if that is enough."""
    for floor in (guess, 0 * guess):
        found = acts[acts > floor]
        if floor == 0 or int(batch.total(torch.ones_like(found))) >= count:
            break
    found = found.float()
    most = found.topk(min(count, len(found)), sorted=False).values
    if batch.world.size > 1:
        padded = torch.full((count,), -torch.inf, device=most.device)
        padded[: len(most)] = most
        everyone = batch.world.gathered(padded)
        everyone = everyone[everyone > 0]
        most = everyone.topk(min(count, len(everyone)), sorted=False).values
    return most.min() if len(most) else torch.full_like(guess, torch.inf)
