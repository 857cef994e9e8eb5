"""top-AFA: Lee et al. 2025, "Evaluating and Designing Sparse Autoencoders by Approximating Quasi-Orthogonality"."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from app.sae.afa import TopAFA as Encoder
from app.sae.base import SAE, SAEConfig
from app.train import idea, sparse
from app.train.idea import Batch, Loss, Shape, Units


@dataclass(frozen=True)
class Options(idea.Options):
    afa_weight: float = 1 / 32
    aux_weight: float = 1 / 32


class TopAFA(idea.Idea):
    """a = relu((x - b_dec) W_enc); s_i = a_i |W_dec_i| in falling order, C_k = sqrt(s_1^2 + .. + s_k^2);
    f = a where s is among the argmin_k |C_k - |x - b_dec|| largest; x_hat = f W_dec + b_dec

    L = |x - x_hat|^2 / var(x) + afa_weight mean (|f| - |x - b_dec|)^2 + aux_weight AuxK, unit decoder rows. The
    authors' code takes the norm of x in the second term, after a LayerNorm; ours has no LayerNorm and takes the norm
    that k is chosen by. No k is set. The weight's default there is 0: 1/32 is ours.
    """

    name, about, Options = "top-afa", "Lee et al. 2025, Approximating Quasi-Orthogonality", Options

    def __init__(self, shape: Shape, options: Any, generator: torch.Generator) -> None:
        super().__init__(shape, options, generator)
        del self.b_enc
        self.register_buffer("b_enc", torch.zeros(shape.n_latents))

    def loss(self, batch: Batch) -> Loss:
        target = (batch.x - self.b_dec).norm(dim=1)
        with torch.no_grad():
            pre_acts = self.pre_acts(batch.x).relu()
            cell = matched(pre_acts.float() * self.W_dec.norm(dim=1), target)
        f = sparse.picked(self, batch.x, pre_acts, cell)
        error = batch.y - f.decoded(self.W_dec) - self.b_dec
        fvu = batch.share(error.pow(2))
        squares = torch.zeros_like(target).index_add(0, f.row, f.value.pow(2))
        afa = batch.mean((squares.clamp_min(1e-12).sqrt() - target).pow(2))
        aux = sparse.aux_k(self, batch, error, self.shape.d_in // 2)
        total = fvu + self.options.afa_weight * afa + self.options.aux_weight * aux
        return Loss(total, fvu, batch.mean(torch.ones_like(f.value)), f.fired(), {"afa": afa, "aux": aux})

    def finished(self, config: SAEConfig, units: Units) -> SAE:
        return Encoder(config, **self.folded(units))


def matched(s: Tensor, target: Tensor) -> Tensor:
    """The cells of each row's largest ``s`` [rows, n] >= 0 whose norm comes nearest to ``target`` [rows]. As many are
    sorted as are needed to pass it."""
    n = s.shape[1]
    some = min(256, n)
    while True:
        values, latents = s.topk(some, dim=1)
        reached = values.double().pow(2).cumsum(1).sqrt()
        if some == n or bool(((reached[:, -1] > target) | (values[:, -1] == 0)).all()):
            break
        some = min(2 * some, n)
    if some == n:
        reached[:, -1] = torch.inf
    k = (reached - target[:, None]).abs().argmin(1, keepdim=True) + 1
    kept = (torch.arange(some, device=s.device) < k) & (values > 0)
    rows = torch.arange(len(s), device=s.device)[:, None] * n
    return (rows + latents)[kept]
