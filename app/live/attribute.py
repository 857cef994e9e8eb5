"""Which latents a prediction hangs on: activation x gradient of all of them, ablation of the foremost."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from app.errors import AttributionUnsupported, BadRequest
from app.live.direct import DirectPath
from app.live.edits import check_writes
from app.live.metric import Metric, check
from app.sae.acts import Acts, no_acts
from app.sae.base import SAE
from app.sae.unit_rows import pulled_back
from app.subject.exact import in_fp32
from app.subject.hook_names import hook_point
from app.subject.hooks import HookPoint, tap
from app.subject.last import last
from app.subject.stream import rewrite


@dataclass(frozen=True)
class SAEAttribution:
    """One SAE's part in the metric m. position, latent [nnz] int64, value [nnz] fp32: its activations on the clean
    text, at the positions that are not special. act_grad [nnz] fp32: value * dm/dvalue, to first order what m would
    lose without it. direct [nnz] fp32: what it adds to m by the residual stream alone, the final norm's scale held, 0
    before the metric's position; None where the SAE writes no part of the stream.

    latents, latent_act_grad [u]: act_grad summed over positions. With y what stands where the SAE writes and g = dm/dy
    there, y = (decode(acts) - decode(nothing)) + (y - decode(acts)) + decode(nothing), so that over those positions
    sum(act_grad) + error_act_grad + bias_act_grad = sum(g . y), where bias is the decoder's own output: b_dec on the
    subject's scale and, in skip transcoders, the skip.

    exact_latents: what m loses without all active latents; exact_all: without latents and error, so that the bias
    alone is left. All other loaded SAEs are as on the clean text.
    """

    position: Tensor
    latent: Tensor
    value: Tensor
    act_grad: Tensor
    direct: Tensor | None
    latents: Tensor
    latent_act_grad: Tensor
    error_act_grad: float
    bias_act_grad: float
    exact_latents: float
    exact_all: float


@dataclass(frozen=True)
class Ablated:
    """A latent's act_grad over all positions, and what the metric loses when it is ablated at all of them."""

    sae: int
    latent: int
    act_grad: float
    exact: float


@dataclass(frozen=True)
class Attribution:
    """The metric on the clean text, each SAE's part in it, and the latents of largest |act_grad|, largest first."""

    metric: float
    saes: list[SAEAttribution]
    top: list[Ablated]


class _Part(NamedTuple):
    """One SAE on the clean text: x [positions, d_in] and y [positions, d_out], what it reads and what stands where it
    writes, at the positions that are not special; gradient [positions, d_out] fp32 = dm/dy."""

    sae: SAE
    writes: list[HookPoint]
    x: Tensor
    y: Tensor
    gradient: Tensor
    acts: Acts

    def without(self, latent: int) -> Tensor:
        """What ablating a latent adds where the SAE writes: [positions, d_out] fp32."""
        rest = self.acts.keep(self.acts.latent != latent)
        return self.sae.decode(rest, self.x) - self.sae.decode(self.acts, self.x)

    def bias(self) -> Tensor:
        """[positions, d_out] fp32"""
        return self.sae.decode(no_acts(len(self.x), self.x.device), self.x)


def attribute(
    model: nn.Module,
    saes: Sequence[SAE],
    token_ids: Sequence[int],
    metric: Metric,
    *,
    special_ids: Sequence[int] = (),
    top: int = 20,
    batch_tokens: int = 4096,
) -> Attribution:
    """Attribution patching (Nanda 2023) of SAE latents and errors (Marks et al. 2024, "Sparse Feature Circuits"): one
    forward and one backward for all latents of all SAEs, then ablations of the ``top`` latents and of whole SAEs in
    rows of at most ``batch_tokens`` tokens.

    Each SAE is taken at its own hook points on the clean text, errors passed on as they are, so gradients are of all
    paths downstream. Where an SAE writes several places, each gradient counts what its write moves at the later ones.
    Tokens after the metric's position are left out, for nothing flows back from them. All of it is computed in fp32,
    whatever the subject's dtype; weights get no gradient.

    Raises:
        BadRequest: a position, a token or a kind of metric that is not there.
        EditUnsupported, SubjectUnavailable, AttributionUnsupported: an SAE's hook points; see ``check_writes``.
    """
    output: Any = model.get_output_embeddings()  # type: ignore[operator]
    check(metric, len(token_ids), len(output.weight))
    for sae in saes:
        check_writes(sae, model)
    with torch.inference_mode(False):
        ids = torch.tensor(token_ids[: metric.position + 1], device=output.weight.device)
        value, parts, path = _clean(model, saes, ids, metric, special_ids)
    with torch.inference_mode():
        special = torch.tensor(sorted(special_ids), dtype=torch.int64, device=ids.device)
        kept = (~torch.isin(ids, special)).nonzero()[:, 0]
        ablate = partial(_ablate, model, ids, kept, metric, batch_tokens)
        whole = ablate([job for part in parts for job in _whole(part)])
        told = [_told(part, path, kept, *whole[2 * i : 2 * i + 2]) for i, part in enumerate(parts)]
        foremost = sorted(
            (-abs(effect), number, latent, effect)
            for number, one in enumerate(told)
            for latent, effect in zip(one.latents.tolist(), one.latent_act_grad.tolist(), strict=True)
        )[:top]
        exact = ablate([(parts[s].writes, partial(parts[s].without, latent)) for _, s, latent, _ in foremost])
    ablated = [Ablated(s, latent, effect, e) for (_, s, latent, effect), e in zip(foremost, exact, strict=True)]
    return Attribution(value, told, ablated)


def _clean(
    model: nn.Module, saes: Sequence[SAE], ids: Tensor, metric: Metric, special_ids: Sequence[int]
) -> tuple[float, list[_Part], DirectPath | None]:
    """One forward and one backward. ids: [length]."""
    hooks = [[[hook_point(name, model) for name in names] for names in (s.config.reads, s.config.writes)] for s in saes]
    found: dict[HookPoint, Tensor] = {}
    leaves: dict[HookPoint, Tensor] = {}

    def leaf(point: HookPoint, x: Tensor) -> Tensor:
        """x plus a zero to differentiate by: the graph starts at the first of them, and no weight needs a gradient."""
        keep(point, x)
        leaves[point] = torch.zeros_like(x, dtype=torch.float32, requires_grad=True)
        return x + leaves[point].to(x.dtype)

    def keep(point: HookPoint, x: Tensor) -> None:
        if x.shape[:2] != (1, len(ids)):
            raise AttributionUnsupported(
                f"The activation at {point} has the shape {list(x.shape)}, not one of {len(ids)} tokens; load an SAE "
                "of another hook point."
            )
        found[point] = x.detach()[0]

    norm = DirectPath.points(model)
    written = {point for _, writes in hooks for point in writes} | ({norm.after} if norm else set())
    seen = {point for reads, _ in hooks for point in reads} | ({norm.before} if norm else set())
    handles = []
    try:
        for point in sorted(written):
            handles += rewrite(model, point, partial(leaf, point))
        for point in sorted(seen - written):
            handles.append(tap(model, point, partial(keep, point)))
        with torch.enable_grad(), in_fp32(model):
            logits = model(input_ids=ids[None], use_cache=False, logits_to_keep=last(ids)).logits[:, -1]
            m = metric.of(logits).sum()
            order = list(leaves)
            gradients = torch.autograd.grad(m, [leaves[point] for point in order], allow_unused=True)
    finally:
        for handle in handles:
            handle.remove()
    slope = {
        p: torch.zeros_like(found[p]).float() if g is None else g[0] for p, g in zip(order, gradients, strict=True)
    }
    kept = ~torch.isin(ids, torch.tensor(sorted(special_ids), dtype=torch.int64, device=ids.device))

    def beside(values: dict[HookPoint, Tensor], points: list[HookPoint]) -> Tensor:
        return torch.cat([values[point][kept] for point in points], dim=1)

    parts = []
    for sae, (reads, writes) in zip(saes, hooks, strict=True):
        x = beside(found, reads)
        if x.shape[1] != sae.config.d_in:
            raise BadRequest(
                f"The SAE reads {sae.config.d_in} dimensions but {', '.join(map(str, reads))} has {x.shape[1]}.",
                d_in=sae.config.d_in,
                found=x.shape[1],
            )
        parts.append(_Part(sae, writes, x, beside(found, writes).float(), beside(slope, writes), sae.encode(x)))
    path = None if norm is None else DirectPath.of(model, len(ids) - 1, found[norm.before][-1], slope[norm.after][-1])
    return float(m.detach()), parts, path


def _told(part: _Part, path: DirectPath | None, kept: Tensor, exact_latents: float, exact_all: float) -> SAEAttribution:
    sae, acts = part.sae, part.acts
    act_grad = acts.value * pulled_back(sae, acts, part.x, part.gradient)
    latents, which = acts.latent.unique(return_inverse=True)
    sums = torch.zeros(len(latents), device=act_grad.device).index_add_(0, which, act_grad)
    error, bias = part.y - sae.decode(acts, part.x), part.bias()
    position = kept[acts.position]
    direct = None
    if path is not None and (gradient := path.at(part.writes)) is not None:
        last = position == path.position
        direct = torch.zeros_like(act_grad)
        at = acts.keep(last)
        direct[last] = at.value * pulled_back(sae, at, part.x, gradient.expand(len(part.x), -1))
    return SAEAttribution(
        position, acts.latent, acts.value, act_grad, direct, latents, sums,
        float((part.gradient * error).sum()), float((part.gradient * bias).sum()), exact_latents, exact_all,
    )  # fmt: skip


Job = tuple[list[HookPoint], Callable[[], Tensor]]  # where, and what is added there: [positions, d_out] fp32


def _whole(part: _Part) -> list[Job]:
    """All latents taken away, and all latents with the error."""
    return [
        (part.writes, lambda: part.bias() - part.sae.decode(part.acts, part.x)),
        (part.writes, lambda: part.bias() - part.y),
    ]


def _ablate(
    model: nn.Module, ids: Tensor, kept: Tensor, metric: Metric, batch_tokens: int, jobs: list[Job]
) -> list[float]:
    """What the metric loses by each job. A clean row goes with every batch, so that rounding is the same for both."""
    rows, lost = max(1, batch_tokens // len(ids) - 1), []
    for first in range(0, len(jobs), rows):
        batch = jobs[first : first + rows]
        added: dict[HookPoint, Tensor] = {}
        for row, (writes, delta) in enumerate(batch, 1):
            for point, part in zip(writes, delta().tensor_split(len(writes), dim=1), strict=True):
                if point not in added:
                    added[point] = torch.zeros(len(batch) + 1, len(ids), part.shape[1], device=ids.device)
                added[point][row, kept] = part
        handles: list[RemovableHandle] = []
        try:
            for point, value in added.items():
                handles += rewrite(model, point, partial(_plus, value))
            given = ids.expand(len(batch) + 1, -1)
            with in_fp32(model):
                logits = model(input_ids=given, use_cache=False, logits_to_keep=last(ids)).logits[:, -1]
        finally:
            for handle in handles:
                handle.remove()
        values = metric.of(logits)
        lost += (values[0] - values[1:]).tolist()
    return lost


def _plus(delta: Tensor, x: Tensor) -> Tensor:
    return (x.float() + delta).to(x.dtype)
