"""Ragged entries laid out as rectangles, so that sorting within latents is one call for all latents."""

import torch
from torch import Tensor


def occurrence(group: Tensor) -> Tensor:
    """group: [entries] int64, sorted -> how many entries of the same group come before each."""
    number = torch.arange(len(group), device=group.device)
    starts = torch.ones_like(group, dtype=torch.bool)
    starts[1:] = group[1:] != group[:-1]
    return number - number[starts][starts.long().cumsum(0) - 1]


def spread(old: Tensor, group: Tensor, slot: Tensor, new: Tensor, width: int, fill: float | int) -> Tensor:
    """``old`` [groups, k] widened to [groups, width] with ``new`` [entries] at (group, slot)."""
    table = torch.full((len(old), width), fill, dtype=old.dtype, device=old.device)
    table[:, : old.shape[1]] = old
    table[group, slot] = new.to(old.dtype)
    return table


def ranges(begins: Tensor, counts: Tensor) -> Tensor:
    """begins, counts: [m] -> the numbers begins[i] .. begins[i] + counts[i] - 1 of all i, one after another."""
    skipped = counts.cumsum(0) - counts
    return torch.arange(int(counts.sum()), device=counts.device) + torch.repeat_interleave(begins - skipped, counts)
