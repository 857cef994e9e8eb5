"""vSAE: "Analysis of Variational Sparse Autoencoders" (2025), with TopK."""

from dataclasses import dataclass

import torch

from app.sae.base import SAE, SAEConfig
from app.sae.topk import TopK as Encoder
from app.train import sparse
from app.train.idea import Batch, Idea, Loss, Units
from app.train.ideas import topk


@dataclass(frozen=True)
class Options(topk.Options):
    kl: float = 0.1
    sigma: float = 0.37


class VSAE(Idea):
    """mu = relu((x - b_dec) W_enc + b_enc), z = relu(mu + sigma e) with e standard normal, f = the k largest of z

    L = (|x - x_hat|^2 + kl KL) / var(x) + aux_weight AuxK with KL(N(mu, sigma^2) | N(0, 1)) = sum over all latents of
    (mu^2 + sigma^2 - log sigma^2 - 1) / 2, unit decoder rows. At inference f is the k largest of mu.

    sigma is fixed, as in the variant with an isotropic posterior; there is also one with a learned variance, not
    here. Published revisions of its code differ in where relu stands, in which latents the KL covers and in its
    weight, and ours may differ from what the paper's tables were made with. Both numbers hang on the scale of the
    inputs: ours are of mean squared norm d, where sigma 1 with kl 1 lets every latent die. 0.37 is exp(-1), where one
    revision's learned variance starts; kl 0.1 is ours.
    """

    name, about, Options = "vsae", "Analysis of Variational Sparse Autoencoders, 2025", Options

    def loss(self, batch: Batch) -> Loss:
        mu = self.pre_acts(batch.x).relu()
        sigma = torch.tensor(self.options.sigma, device=mu.device)
        with torch.no_grad():
            z = (mu + sigma * batch.noise(self.shape.n_latents)).relu()
            cell = sparse.strongest(z, self.options.k)
            drawn = (z - mu).reshape(-1)[cell]
        value = mu.reshape(-1)[cell].float() + drawn.float()
        f = sparse.Codes(cell, value, *mu.shape)
        error = batch.y - f.decoded(self.W_dec) - self.b_dec
        fvu = batch.share(error.pow(2))
        constant = (sigma.pow(2) - sigma.pow(2).log() - 1) * self.shape.n_latents * batch.size
        kl = 0.5 * (batch.total(mu.float().pow(2)) + constant) / batch.variance
        aux = sparse.aux_k(self, batch, error, self.shape.d_in // 2)
        total = fvu + self.options.kl * kl + self.options.aux_weight * aux
        l0 = batch.mean(value.detach() != 0)
        return Loss(total, fvu, l0, f.fired(), {"kl": kl, "aux": aux})

    def finished(self, config: SAEConfig, units: Units) -> SAE:
        return Encoder(config, **self.folded(units), k=self.options.k)
