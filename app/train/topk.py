"""The TopK SAE as it is trained: Gao et al. 2024, "Scaling and evaluating sparse autoencoders"."""

import math
from typing import NamedTuple

import torch
from torch import Tensor


class Losses(NamedTuple):
    """Scalars of one batch, each a share of the batch's variance (so fvu is 1 for predicting the mean)."""

    fvu: Tensor
    aux: Tensor
    fired: Tensor  # [n_latents] bool


class TopKTrainer:
    """Parameters, the loss and the constraints. Inputs are normalised: centred, of mean squared norm d_in.

    ``W_enc [d_in, n]``, ``b_enc [n]``, ``W_dec [n, d_in]`` with unit rows, ``b_dec [d_in]``.
    """

    def __init__(self, d_in: int, n_latents: int, k: int, generator: torch.Generator) -> None:
        directions = torch.randn(n_latents, d_in, generator=generator)
        self.W_dec = (directions / directions.norm(dim=1, keepdim=True)).requires_grad_()
        self.W_enc = self.W_dec.detach().T.clone().contiguous().requires_grad_()
        self.b_enc = torch.zeros(n_latents, requires_grad=True)
        self.b_dec = torch.zeros(d_in, requires_grad=True)
        self.k = k
        self.k_aux = min(d_in // 2, n_latents)

    def parameters(self) -> dict[str, Tensor]:
        return {"W_enc": self.W_enc, "b_enc": self.b_enc, "W_dec": self.W_dec, "b_dec": self.b_dec}

    def losses(self, x: Tensor, dead: Tensor) -> Losses:
        """x: [batch, d_in] normalised; dead: [n_latents] bool, the latents AuxK revives.

        The auxiliary loss reconstructs what the k latents left over from the k_aux strongest dead ones
        (Gao et al. 2024, section A.2).
        """
        pre_acts = (x - self.b_dec) @ self.W_enc + self.b_enc
        values, latents = pre_acts.relu().topk(self.k, dim=1)
        x_hat = _decode(values, latents, self.W_dec) + self.b_dec
        error = x - x_hat
        variance = (x - x.mean(0)).pow(2).sum()
        fvu = error.pow(2).sum() / variance
        fired = torch.zeros(len(dead), dtype=torch.bool)
        fired[latents[values > 0]] = True
        aux = torch.zeros(())
        if n_dead := int(dead.sum()):
            asleep = pre_acts.masked_fill(~dead, -math.inf)
            aux_values, aux_latents = asleep.topk(min(self.k_aux, n_dead), dim=1)
            guess = _decode(aux_values.relu(), aux_latents, self.W_dec)
            left = error.detach()
            aux = ((left - guess).pow(2).sum() / left.pow(2).sum()).nan_to_num(0.0)
        return Losses(fvu, aux, fired)

    @torch.no_grad()
    def project_gradient(self) -> None:
        """Take out of W_dec's gradient what only changes the rows' norms."""
        if self.W_dec.grad is not None:
            along = (self.W_dec.grad * self.W_dec).sum(1, keepdim=True)
            self.W_dec.grad -= along * self.W_dec

    @torch.no_grad()
    def normalise_decoder(self) -> None:
        self.W_dec /= self.W_dec.norm(dim=1, keepdim=True).clamp_min(1e-8)


def _decode(values: Tensor, latents: Tensor, W_dec: Tensor) -> Tensor:
    """values, latents: [batch, k] -> [batch, d]; a weighted sum of k decoder rows."""
    return torch.nn.functional.embedding_bag(latents, W_dec, per_sample_weights=values, mode="sum")


def fold(parameters: dict[str, Tensor], mean: Tensor, scale: float) -> dict[str, Tensor]:
    """Weights for raw inputs from weights trained on ``(x - mean) * scale``; decoder rows stay unit-norm.

    With f' = f / scale: ``W_enc' = W_enc``, ``b_enc' = b_enc / scale``, ``b_dec' = mean + b_dec / scale``.
    """
    return {
        "W_enc": parameters["W_enc"].detach().clone(),
        "b_enc": parameters["b_enc"].detach() / scale,
        "W_dec": parameters["W_dec"].detach().clone(),
        "b_dec": mean + parameters["b_dec"].detach() / scale,
    }
