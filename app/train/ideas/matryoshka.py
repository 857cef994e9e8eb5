"""Matryoshka: Bussmann et al. 2025, "Learning Multi-Level Features with Matryoshka Sparse Autoencoders"."""

from dataclasses import dataclass
from itertools import pairwise

import torch

from app.train import sparse
from app.train.idea import Batch, Loss
from app.train.ideas import batchtopk
from app.train.ideas.batchtopk import BatchTopK

PARTS = (1 / 32, 3 / 32, 7 / 32, 15 / 32, 1.0)  # of the latents: the paper's 2048, 6144, ... of 65,536


@dataclass(frozen=True)
class Options(batchtopk.Options):
    """Nothing beyond BatchTopK's."""


class Matryoshka(BatchTopK):
    """f as in BatchTopK; x_hat_m = f[:m] W_dec[:m] + b_dec for every prefix m of the latents

    L = mean over m of |x - x_hat_m|^2 / var(x) + aux_weight AuxK. The paper sums over m; the mean, as in
    dictionary_learning, keeps L a share of the variance. fvu is that of all latents.
    """

    name, about, Options = "matryoshka", "Bussmann et al. 2025, Matryoshka Sparse Autoencoders", Options

    def loss(self, batch: Batch) -> Loss:
        f = self.chosen(batch)
        ends = [0, *(round(part * self.shape.n_latents) for part in PARTS)]
        error, levels = batch.y - self.b_dec, []
        for first, last in pairwise(ends):
            mine = (f.latent >= first) & (f.latent < last)
            error = error - f._replace(cell=f.cell[mine], value=f.value[mine]).decoded(self.W_dec)
            levels.append(batch.share(error.pow(2)))
        aux = sparse.aux_k(self, batch, error, self.shape.d_in // 2)
        total = torch.stack(levels).mean() + self.options.aux_weight * aux
        return Loss(total, levels[-1], batch.mean(torch.ones_like(f.value)), f.fired(), {"aux": aux})
