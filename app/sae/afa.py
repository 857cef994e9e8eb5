"""top-AFA SAEs (Lee et al. 2025, "Evaluating and Designing Sparse Autoencoders by Approximating
Quasi-Orthogonality"; repository SewoongLee/top-afa-sae): k is chosen at each position by matching norms."""

from dataclasses import dataclass

import torch
from torch import Tensor

from app.sae.acts import Acts, from_rows
from app.sae.linear import Linear, norms


@dataclass(frozen=True, eq=False)
class TopAFA(Linear):
    """a = relu((x - b_dec) W_enc). With s_i = a_i norm(W_dec,i) in falling order and C_k = sqrt(s_1^2 + .. + s_k^2),
    k = argmin |C_k - norm(x - b_dec)| + 1, and the k largest s_i are active. As in the repository C_n counts as
    infinite, so never all latents are kept."""

    @torch.inference_mode()
    def encode(self, x: Tensor) -> Acts:
        """x: [positions, d_in] -> Acts."""
        target = self.centred(x).norm(dim=1, keepdim=True)
        acts = torch.cat([a for _, a in self.blocks(x)], dim=1).relu()
        squares, order = (acts * norms(self.W_dec)).pow(2).sort(dim=1, descending=True)
        reached = squares.double().cumsum(1)  # in fp32 the last small terms would vanish and k hang on rounding
        reached[:, -1] = torch.inf
        k = (reached.sqrt() - target).abs().argmin(dim=1, keepdim=True) + 1
        kept = torch.arange(acts.shape[1], device=acts.device) < k
        width = int(k.max()) if len(k) else 0
        return from_rows((acts.gather(1, order) * kept)[:, :width], order[:, :width])
