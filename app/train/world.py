"""One process or several that share a batch (torch.distributed): sums over the whole batch, gradients added up."""

import datetime
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True)
class World:
    """``rank`` of ``size`` processes. Every process takes its share of each batch's rows."""

    rank: int = 0
    size: int = 1

    def share(self, rows: int) -> slice:
        """The rows of a batch of ``rows`` that are this process's."""
        return slice(rows * self.rank // self.size, rows * (self.rank + 1) // self.size)

    def total(self, part: Tensor) -> Tensor:
        """The sum of all processes' ``part``. Its gradient is that of this process's part, so that adding up the
        processes' gradients gives the gradient of the whole."""
        if self.size == 1:
            return part
        whole = part.detach().clone()
        dist.all_reduce(whole)
        return part + (whole - part.detach())

    def most(self, values: Tensor) -> Tensor:
        """The largest over all processes, entry by entry."""
        if self.size > 1:
            values = values.clone()
            dist.all_reduce(values, dist.ReduceOp.MAX)
        return values

    def gathered(self, values: Tensor) -> Tensor:
        """All processes' ``values``, of one shape each, one after another."""
        if self.size == 1:
            return values
        parts = [torch.empty_like(values) for _ in range(self.size)]
        dist.all_gather(parts, values.contiguous())
        return torch.cat(parts)

    def add_gradients(self, parameters: Sequence[Tensor]) -> None:
        """Every parameter's gradient summed over the processes."""
        if self.size > 1:
            for parameter in parameters:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
                dist.all_reduce(parameter.grad)

    def wait(self) -> None:
        if self.size > 1:
            dist.barrier()


ALONE = World()


@contextmanager
def joined() -> Iterator[World]:
    """The world that torchrun has made (RANK, WORLD_SIZE and the rest in the environment), or this process alone."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield World()
        return
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    dist.init_process_group("nccl" if cuda else "gloo", timeout=datetime.timedelta(hours=12))
    try:
        yield World(dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()
