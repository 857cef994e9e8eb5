"""TopK: Gao et al. 2024, "Scaling and evaluating sparse autoencoders"."""

from dataclasses import dataclass

import torch

from app.sae.base import SAE, SAEConfig
from app.sae.topk import TopK as Encoder
from app.train import idea, sparse
from app.train.idea import Batch, Loss, Units


@dataclass(frozen=True)
class Options(idea.Options):
    k: int = 32
    aux_weight: float = 1 / 32


class TopK(idea.Idea):
    """f = relu(the k largest of (x - b_dec) W_enc + b_enc), x_hat = f W_dec + b_dec

    L = |x - x_hat|^2 / var(x) + aux_weight AuxK, unit decoder rows. AuxK is over d_in / 2 dead latents.
    """

    name, about, Options = "topk", "Gao et al. 2024, Scaling and evaluating sparse autoencoders", Options

    def loss(self, batch: Batch) -> Loss:
        with torch.no_grad():
            pre_acts = self.pre_acts(batch.x)
            cell = sparse.strongest(self.score(pre_acts, batch), self.options.k)
        f = sparse.picked(self, batch.x, pre_acts, cell)
        f = f._replace(value=f.value if self.signed else f.value.relu())
        error = batch.y - f.decoded(self.W_dec) - self.b_dec
        fvu = batch.share(error.pow(2))
        aux = sparse.aux_k(self, batch, error, self.shape.d_in // 2, signed=self.signed)
        l0 = batch.mean(f.value.detach() != 0)
        return Loss(fvu + self.options.aux_weight * aux, fvu, l0, f.fired(), {"aux": aux})

    def score(self, pre_acts: torch.Tensor, batch: Batch) -> torch.Tensor:
        """What the k largest are chosen by."""
        return pre_acts

    def finished(self, config: SAEConfig, units: Units) -> SAE:
        return Encoder(config, **self.folded(units), k=self.options.k)
