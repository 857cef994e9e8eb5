"""The ZF plot, and what it says of the decoder's rows being nearly orthogonal (Lee et al. 2025, "Evaluating and
Designing Sparse Autoencoders by Approximating Quasi-Orthogonality").

With unit rows w_i and weights f_i = a_i norm(W_dec,i), and norm(b_dec) for the direction of b_dec as one more, the
reconstruction is sum f_i w_i, so that |sum f_i w_i|^2 = |f|_2^2 + sum over i != j of f_i f_j cos_ij.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from app.evaluate.outcome import NotApplicable, Outcome, Values, mean, points, quantiles
from app.harvest.batches import Batch
from app.sae.acts import Acts
from app.sae.base import SAE
from app.sae.linear import weighted_rows
from app.sae.normalise import Normalisation

SHOWN = 600  # tokens of the plot
BANDS = (0.25, 0.5, 1.0)
CENTRED = {  # without the bias: of z - b_dec, as top-AFA matches the lengths
    "centred_ratio": "zf_ratio", "centred_ratio_median": "zf_ratio_median", "centred_over_activated": "over_activated",
    "centred_epsilon_lbo": "epsilon_lbo", "centred_epsilon_decoded": "epsilon_decoded",
}  # fmt: skip


class Norms(NamedTuple):
    """[tokens] fp32 each: |z|, |z_hat|, |f|_2 and |f|_1."""

    z: Tensor
    z_hat: Tensor
    f: Tensor
    f1: Tensor


def norms(z: Tensor, acts: Acts, W_dec: Tensor, b_dec: Tensor, lengths: Tensor) -> Norms:
    """z: [tokens, d], what is reconstructed, where it is f W_dec + b_dec; lengths: [n], the rows' norms."""
    f = acts.value.float() * lengths[acts.latent]
    bias = b_dec.float().norm()
    zeros = torch.zeros(acts.n_positions, device=z.device)
    squares = zeros.index_add(0, acts.position, f.pow(2)) + bias.pow(2)
    sums = zeros.index_add(0, acts.position, f.abs()) + bias
    z_hat = weighted_rows(acts, W_dec) + b_dec
    return Norms(z.norm(dim=1), z_hat.norm(dim=1), squares.sqrt(), sums)


def bound(target: Tensor, f: Tensor, f1: Tensor) -> Tensor:
    """| |target|^2 - |f|_2^2 | / (|f|_1^2 - |f|_2^2): the least epsilon such that rows all of whose cosines are at most
    epsilon could add up to something as long as the target. nan where fewer than two weights are not 0."""
    target, f, f1 = target.double(), f.double(), f1.double()
    room = f1.pow(2) - f.pow(2)
    out = (target.pow(2) - f.pow(2)).abs() / room
    return torch.where(room > 1e-6 * f1.pow(2), out, torch.nan)


class ZF:
    def __init__(self, sae: SAE, seed: int) -> None:
        b_dec, kind = getattr(sae, "b_dec", None), getattr(sae, "normalise", Normalisation())
        if not isinstance(b_dec, Tensor) or b_dec.shape != sae.W_dec.shape[1:]:
            raise NotApplicable("its reconstruction is not a weighted sum of decoder rows")
        if kind.kind != "none" and sae.config.reads != sae.config.writes:
            raise NotApplicable("it normalises what it reads, and writes somewhere else")
        self.sae, self.b_dec, self.normalise, self.seed = sae, b_dec, kind, seed
        self.lengths = sae.W_dec.float().norm(dim=1)
        self.parts: list[Norms] = []
        self.centred: list[Norms] = []

    def update(self, batch: Batch, x: Tensor, y: Tensor) -> None:
        acts = batch.acts
        if not self.parts:
            plain = self.normalise.back(weighted_rows(acts, self.sae.W_dec) + self.b_dec, x.float())
            decoded = self.sae.decode(acts, x)
            if not torch.allclose(plain, decoded, rtol=1e-3, atol=1e-3 * float(decoded.abs().max())):
                raise NotApplicable("its reconstruction is not a weighted sum of decoder rows")
        z = self.normalise.into(y.float())
        for parts, b_dec in ((self.parts, self.b_dec), (self.centred, torch.zeros_like(self.b_dec))):
            found = norms(z - self.b_dec + b_dec, acts, self.sae.W_dec, b_dec, self.lengths)
            parts.append(Norms(*(value.cpu() for value in found)))

    def result(self) -> Outcome:
        all_, centred = (
            Norms(*(torch.cat(column) for column in zip(*parts, strict=True))) for parts in (self.parts, self.centred)
        )
        inner = summary(centred)
        more = {name: inner[of] for name, of in CENTRED.items()}
        chosen = torch.randperm(len(all_.z), generator=torch.Generator().manual_seed(self.seed))[:SHOWN]
        slopes = [1.0, *((1 / (1 + c)) ** 0.5 for c in BANDS), *((1 / (1 - c)) ** 0.5 for c in BANDS if c < 1)]
        plot = points(
            "ZF plot: a token is a dot; |f| above the line is over-activated, below it under-activated",
            "|z|, length of the activation", "|f|, length of the feature vector", all_.z[chosen], all_.f[chosen],
            slopes,
        )  # fmt: skip
        return Outcome(summary(all_) | more, len(all_.z), {"points": [plot]})


def summary(all_: Norms) -> Values:
    ratio = all_.f.double() / all_.z.double().clamp_min(1e-12)
    needed, shown = bound(all_.z, all_.f, all_.f1), bound(all_.z_hat, all_.f, all_.f1)
    needed, shown = needed[needed.isfinite()], shown[shown.isfinite()]
    off = (ratio.pow(-2) - 1).abs()
    return {
        "zf_ratio": mean(ratio),
        **quantiles(ratio, {"zf_ratio_q05": 0.05, "zf_ratio_median": 0.5, "zf_ratio_q95": 0.95}),
        "over_activated": mean((ratio > 1).double()),
        "within_quarter": mean((off <= BANDS[0]).double()),
        "epsilon_lbo": mean(needed),
        **quantiles(needed, {"epsilon_lbo_median": 0.5, "epsilon_lbo_q99": 0.99}),
        "epsilon_decoded": mean(shown),
        "epsilon_tokens": len(needed),
    }
