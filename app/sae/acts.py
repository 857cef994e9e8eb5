"""Sparse activations: what every encoder returns and every decoder takes."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Acts(NamedTuple):
    """Entries that are active (value != 0), sorted by position, then by latent.

    position: [nnz] int64 in [0, n_positions); latent: [nnz] int64; value: [nnz] fp32.
    """

    position: Tensor
    latent: Tensor
    value: Tensor
    n_positions: int

    def offsets(self) -> Tensor:
        """Where each position's entries begin: [n_positions] int64."""
        counts = torch.bincount(self.position, minlength=self.n_positions)
        return counts.cumsum(0) - counts

    def keep(self, mask: Tensor) -> "Acts":
        """The entries where ``mask`` [nnz] bool is true; positions keep their numbers."""
        return Acts(self.position[mask], self.latent[mask], self.value[mask], self.n_positions)

    def column(self, latent: int) -> Tensor:
        """One latent's values: [n_positions] fp32, 0 where it is not active."""
        mine = self.latent == latent
        values = torch.zeros(self.n_positions, device=self.value.device)
        values[self.position[mine]] = self.value[mine]
        return values

    def with_column(self, latent: int, values: Tensor) -> "Acts":
        """The same with ``values`` [n_positions] fp32 as one latent's; where they are 0 it is not active."""
        others = self.keep(self.latent != latent)
        active = values.nonzero()[:, 0]
        position = torch.cat([others.position, active])
        latents = torch.cat([others.latent, torch.full_like(active, latent)])
        value = torch.cat([others.value, values[active]])
        # Entries stand by latent within a position: sort by latent first, then keep that order within positions.
        order = latents.argsort(stable=True)
        order = order[position[order].argsort(stable=True)]
        return Acts(position[order], latents[order], value[order], self.n_positions)

    def dense(self, n_latents: int) -> Tensor:
        """[n_positions, n_latents] fp32; for tests and small prompts."""
        out = torch.zeros(self.n_positions, n_latents, device=self.value.device)
        out[self.position, self.latent] = self.value
        return out


def no_acts(n_positions: int, device: torch.device) -> Acts:
    """Nothing active at any of ``n_positions``."""
    none = torch.zeros(0, dtype=torch.int64, device=device)
    return Acts(none, none, torch.zeros(0, device=device), n_positions)


def joined(parts: Sequence[Acts]) -> Acts:
    """Acts of consecutive runs of positions as one."""
    if len(parts) == 1:
        return parts[0]
    starts = [0]
    for part in parts:
        starts.append(starts[-1] + part.n_positions)
    return Acts(
        torch.cat([part.position + start for part, start in zip(parts, starts, strict=False)]),
        torch.cat([part.latent for part in parts]),
        torch.cat([part.value for part in parts]),
        starts[-1],
    )


def from_rows(values: Tensor, latents: Tensor) -> Acts:
    """Acts from a fixed number of candidates a position; those of value 0 are not active and are left out.

    values: [positions, k] fp32; latents: [positions, k] int64, no latent twice in a row.
    """
    latents, order = latents.sort(dim=1)
    values = values.gather(1, order)
    position = torch.arange(len(values), device=values.device)[:, None].expand_as(values)
    active = values != 0
    return Acts(position[active], latents[active], values[active], len(values))
