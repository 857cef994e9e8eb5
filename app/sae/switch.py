"""Switch SAEs (Mudide et al. 2024, "Efficient Dictionary Learning with Switch Sparse Autoencoders"; repository
amudide/switch_sae): a router sends each position to one expert, a contiguous block of latents."""

from dataclasses import dataclass

import torch
from torch import Tensor

from app.sae.acts import Acts, from_rows
from app.sae.linear import Linear


@dataclass(frozen=True, eq=False, kw_only=True)
class Switch(Linear):
    """p = softmax((x - b_router) router^T), e = argmax p, f = topk(relu((x - b_dec) W_enc) p_e) over the latents of
    expert e; without ``heaviside`` p_e scales f, with it the choice alone counts.

    router: [experts, d_in], b_router: [d_in] fp32.
    """

    router: Tensor
    b_router: Tensor
    k: int
    heaviside: bool = False

    @torch.inference_mode()
    def encode(self, x: Tensor) -> Acts:
        """x: [positions, d_in] -> Acts, at most k a position, all of one expert."""
        inner = self.normalise.into(x.float())
        probability, expert = ((inner - self.b_router) @ self.router.T).softmax(dim=1).max(dim=1)
        width = self.W_enc.shape[1] // len(self.router)
        k = min(self.k, width)
        values = torch.zeros(len(x), k, device=x.device)
        latents = torch.arange(k, device=x.device).repeat(len(x), 1)
        for e in expert.unique().tolist():
            rows, part = (expert == e).nonzero()[:, 0], slice(e * width, (e + 1) * width)
            pre_acts = self.centred(x[rows]) @ self.W_enc[:, part].float() + self.b_enc[part]
            acts = pre_acts.relu()
            if not self.heaviside:
                acts = acts * probability[rows, None]
            values[rows], chosen = acts.topk(k, dim=1, sorted=False)
            latents[rows] = chosen + e * width
        return from_rows(values, latents)
