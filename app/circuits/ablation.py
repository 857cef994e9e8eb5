"""What the subject loses without a head: its output replaced by what it is on negative prompts of the same template."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from app.circuits.heads import Answered, Heads, answers
from app.circuits.prompts import Prompt
from app.subject.hook_names import stack_of
from app.subject.hooks import tap
from app.subject.load import Subject
from app.subject.precise import fp32_logits


class Ablated(NamedTuple):
    """clean: on the prompts as they are. effect: [layers, heads], the mean difference less that without the head."""

    clean: Answered
    effect: Tensor


class _Batch(NamedTuple):
    """Prompts of several lengths, filled up on the right: nothing flows back from there."""

    ids: Tensor  # [prompts, longest]
    last: Tensor  # [prompts]
    prompts: Sequence[Prompt]


@torch.inference_mode()
def ablate(
    subject: Subject,
    heads: Heads,
    prompts: Sequence[Prompt],
    by_template: dict[int, Tensor],
    step: Callable[[int, int], None] = lambda done, total: None,
    layers: Sequence[int] | None = None,
) -> Ablated:
    """Every head by itself, at every position after BOS: its output there is replaced by the mean over negatives of the
    same template (Wang et al. 2022). by_template: [layers, length, heads * d_head] of each. layers: those to ablate, if
    not all; the effect in the others is 0."""
    batch, model = _batch(subject, prompts), subject.model
    blocks: list[nn.Module] = list(model.get_submodule(stack_of(model) or "").children())
    effect = torch.zeros(heads.layers, heads.count)
    skip, width = int(subject.bos_id is not None), heads.d_head
    with fp32_logits(model):
        with _watched(blocks) as outputs:
            clean = _answered(subject, batch)
        wanted = range(heads.layers) if layers is None else layers
        for number, layer in enumerate(wanted):
            reference = _reference(batch, layer, by_template)
            with _replayed(blocks[:layer], outputs):
                for head in range(heads.count):
                    part = slice(head * width, (head + 1) * width)
                    handle = tap(model, heads.points[layer], partial(_without, part, skip, reference))
                    try:
                        effect[layer, head] = (clean.difference - _answered(subject, batch).difference).mean()
                    finally:
                        handle.remove()
                    step(number * heads.count + head + 1, len(wanted) * heads.count)
    return Ablated(clean, effect)


def _without(part: slice, skip: int, reference: Tensor, z: Tensor) -> Tensor:
    z = z.clone()
    z[:, skip:, part] = reference[:, skip:, part].to(z.dtype)
    return z


@contextmanager
def _watched(blocks: Sequence[nn.Module]) -> Iterator[list[Any]]:
    """Inside the block every block's output is put into the list, whatever it is."""
    outputs: list[Any] = []
    handles = [block.register_forward_hook(lambda _m, _a, out: outputs.append(out)) for block in blocks]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _replayed(blocks: Sequence[nn.Module], outputs: Sequence[Any]) -> Iterator[None]:
    """Inside the block ``blocks`` compute nothing and give what they gave before: nothing ahead of a head depends on
    it."""
    for block, out in zip(blocks, outputs, strict=False):
        block.forward = partial(_given, out)
    try:
        yield
    finally:
        for block in blocks:
            del block.forward


def _given(out: Any, *_args: Any, **_kwargs: Any) -> Any:
    return out


def _reference(batch: _Batch, layer: int, by_template: dict[int, Tensor]) -> Tensor:
    """[prompts, longest, heads * d_head], zero after a prompt's end."""
    first = next(iter(by_template.values()))
    out = torch.zeros(*batch.ids.shape, first.shape[2], device=batch.ids.device)
    for row, prompt in enumerate(batch.prompts):
        out[row, : len(prompt.ids)] = by_template[prompt.template][layer]
    return out


def _batch(subject: Subject, prompts: Sequence[Prompt]) -> _Batch:
    longest = max(len(prompt.ids) for prompt in prompts)
    ids = torch.zeros(len(prompts), longest, dtype=torch.int64)
    for row, prompt in enumerate(prompts):
        ids[row, : len(prompt.ids)] = torch.tensor(prompt.ids)
    last = torch.tensor([len(prompt.ids) - 1 for prompt in prompts])
    return _Batch(ids.to(subject.device), last.to(subject.device), prompts)


def _answered(subject: Subject, batch: _Batch) -> Answered:
    places, which = batch.last.unique(return_inverse=True)
    logits = subject.model(input_ids=batch.ids, use_cache=False, logits_to_keep=places).logits
    return answers(logits[torch.arange(len(batch.prompts), device=logits.device), which], batch.prompts)
