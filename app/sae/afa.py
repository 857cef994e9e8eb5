"""top-AFA SAEs (Lee et al. 2025, "Evaluating and Designing Sparse Autoencoders by Approximating
Quasi-Orthogonality"; repository SewoongLee/top-afa-sae): k is chosen at each position by matching norms."""

from dataclasses import dataclass

import torch
from torch import Tensor

from app.sae.acts import Acts, from_rows, joined
from app.sae.linear import Linear


@dataclass(frozen=True, eq=False)
class TopAFA(Linear):
    """a = relu((x - b_dec) W_enc). With s_i = a_i norm(W_dec,i) in falling order and C_k = sqrt(s_1^2 + .. + s_k^2),
    k = argmin |C_k - norm(x - b_dec)| + 1, and the k largest s_i are active. As in the repository C_n counts as
    infinite, so never all latents are kept."""

    @torch.inference_mode()
    def encode(self, x: Tensor) -> Acts:
        """x: [positions, d_in] -> Acts."""
        return joined([self._run(rows) for rows in self.runs(x)])

    def _run(self, x: Tensor) -> Acts:
        target = self.centred(x).norm(dim=1, keepdim=True)
        acts = torch.cat([a for _, a in self.blocks(x)], dim=1).float().relu()
        squares = (acts * self.decoder_norms).pow(2)
        # What is 0 adds nothing and is not active, so only as many as the fullest position has need be in order.
        some = int((squares > 0).sum(1).max()) + 1 if len(x) else 1
        squares, order = squares.topk(min(some, squares.shape[1]), dim=1)
        reached = squares.double().cumsum(1)  # in fp32 the last small terms would vanish and k hang on rounding
        if reached.shape[1] == acts.shape[1]:
            reached[:, -1] = torch.inf
        k = (reached.sqrt() - target).abs().argmin(dim=1, keepdim=True) + 1
        kept = torch.arange(reached.shape[1], device=acts.device) < k
        return from_rows(acts.gather(1, order) * kept, order)
