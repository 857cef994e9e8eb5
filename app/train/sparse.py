"""Codes of which few entries are not 0, with gradients for those alone."""

import warnings
from typing import Any, NamedTuple

import torch
from torch import Tensor

from app.train.idea import Batch, Idea


class Codes(NamedTuple):
    """cell: [nnz] int64, row * n + latent, row by row; value: [nnz] fp32; shape: rows, n."""

    cell: Tensor
    value: Tensor
    rows: int
    n: int

    @property
    def row(self) -> Tensor:
        return self.cell // self.n

    @property
    def latent(self) -> Tensor:
        return self.cell % self.n

    def fired(self) -> Tensor:
        """[n] bool: latents with an entry that is not 0."""
        fired = torch.zeros(self.n, dtype=torch.bool, device=self.cell.device)
        fired[self.latent[self.value != 0]] = True
        return fired

    def decoded(self, W_dec: Tensor) -> Tensor:
        """Each row's sum of value * W_dec[latent]: [rows, d_out] fp32."""
        decoded: Tensor = _Decoded.apply(self.value, W_dec, self.cell, self.rows, self.n)  # type: ignore[no-untyped-call]
        return decoded


def _summed(group: Tensor, groups: int, entry: Tensor, value: Tensor, table: Tensor) -> Tensor:
    """By group, the sum of value * table[entry]: [groups, d] fp32. ``group`` is sorted."""
    counts = torch.bincount(group, minlength=groups)
    summed: Tensor = torch.nn.functional.embedding_bag(
        entry, table, counts.cumsum(0) - counts, mode="sum", per_sample_weights=value
    )
    return summed


def _by_latent(cell: Tensor, value: Tensor, n: int, table: Tensor) -> Tensor:
    """By latent, the sum of value * table[row]: [n, d], what a product with the dense codes' transpose would give. On a
    CPU ten times as fast as that (docs/benchmarks.md)."""
    latent = cell % n
    order = latent.argsort()
    return _summed(latent[order], n, (cell // n)[order], value[order], table)


def _products(cell: Tensor, n: int, of_rows: Tensor, W: Tensor) -> Tensor:
    """of_rows[row] . W[latent], cell by cell: [nnz] fp32."""
    counts = torch.bincount(cell // n, minlength=len(of_rows))
    ends = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # "in beta state"
        where = torch.sparse_csr_tensor(ends, cell % n, torch.zeros_like(cell, dtype=W.dtype), (len(of_rows), n))
        products: Tensor = torch.sparse.sampled_addmm(where, of_rows, W.T).values()
    return products


class _Decoded(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, W_dec: Tensor, cell: Tensor, rows: int, n: int) -> Tensor:
        ctx.save_for_backward(value, W_dec, cell)
        ctx.n = n
        return _summed(cell // n, rows, cell % n, value, W_dec)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        value, W_dec, cell = ctx.saved_tensors
        of_rows = gradients[0].contiguous()
        of_value = _products(cell, ctx.n, of_rows, W_dec)
        return of_value, _by_latent(cell, value, ctx.n, of_rows), None, None, None


class _Picked(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, W_enc: Tensor, offset: Tensor, pre_acts: Tensor, cell: Tensor) -> Tensor:
        ctx.save_for_backward(x, cell)
        ctx.n = pre_acts.shape[1]
        return pre_acts.reshape(-1)[cell].float()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        x, cell = ctx.saved_tensors
        W_enc = _by_latent(cell, gradients[0], ctx.n, x).T
        offset = torch.zeros(ctx.n, device=x.device).index_add_(0, cell % ctx.n, gradients[0])
        return None, W_enc, offset, None, None


def picked(idea: Idea, x: Tensor, pre_acts: Tensor, cell: Tensor) -> Codes:
    """The pre-activations at ``cell``, whose gradients go to the encoder as if they had been computed one by one.

    pre_acts: ``idea.pre_acts(x)``, taken without gradients.
    """
    value: Tensor = _Picked.apply(x, idea.W_enc, idea.offset(), pre_acts, cell)  # type: ignore[no-untyped-call]
    return Codes(cell, value, *pre_acts.shape)


def cells_of(latents: Tensor, n: int) -> Tensor:
    """latents: [rows, k] -> their cells, [rows * k]."""
    return (torch.arange(len(latents), device=latents.device)[:, None] * n + latents).reshape(-1)


def strongest(score: Tensor, k: int) -> Tensor:
    """The cells of each row's k largest scores."""
    return cells_of(score.topk(k, dim=1, sorted=False).indices, score.shape[1])


def aux_k(idea: Idea, batch: Batch, error: Tensor, k: int, *, signed: bool = False) -> Tensor:
    """What the k strongest dead latents make of the error that the living left, as a share of it: AuxK (Gao et al.
    2024, section A.2)."""
    asleep = batch.dead.nonzero()[:, 0]
    if not len(asleep):
        return torch.zeros((), device=error.device)
    product = batch.x @ idea.W_enc[:, asleep]
    f = product + idea.offset()[asleep].to(product.dtype)
    score = f.detach().abs() if signed else f.detach()
    if len(asleep) > k:
        f = f * (score >= score.topk(k, dim=1).values[:, -1:])
    guess = (f if signed else f.relu()) @ idea.W_dec[asleep]
    left = error.detach()
    return (batch.total((left - guess.float()).pow(2)) / batch.total(left.pow(2))).nan_to_num(0.0)
