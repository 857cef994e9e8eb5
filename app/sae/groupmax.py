"""GroupMax SAEs (EleutherAI sparsify): the latents lie in k contiguous groups, the strongest of each is active."""

from dataclasses import dataclass

import torch
from torch import Tensor

from app.sae.acts import Acts, from_rows, joined
from app.sae.linear import Linear


@dataclass(frozen=True, eq=False, kw_only=True)
class GroupMax(Linear):
    """f keeps of each of ``k`` groups of n / k latents the largest relu(pre_acts)."""

    k: int

    @torch.inference_mode()
    def encode(self, x: Tensor) -> Acts:
        """x: [positions, d_in] -> Acts, at most k a position."""
        return joined([self._run(rows) for rows in self.runs(x)])

    def _run(self, x: Tensor) -> Acts:
        pre_acts = torch.cat([a for _, a in self.blocks(x)], dim=1).relu()
        values, within = pre_acts.unflatten(1, (self.k, -1)).max(dim=2)
        width = pre_acts.shape[1] // self.k
        return from_rows(values.float(), within + torch.arange(self.k, device=x.device) * width)
