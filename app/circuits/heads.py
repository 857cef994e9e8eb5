"""The outputs of a subject's attention heads."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from app.circuits.prompts import Prompt
from app.errors import SubjectUnavailable, SubjectUnfit
from app.subject.hook_names import hook_point, stack_of
from app.subject.hooks import resolve, tap
from app.subject.last import last
from app.subject.load import Subject
from app.subject.precise import fp32_logits

BATCH = 32  # prompts


class Answered(NamedTuple):
    """[prompts] each, fp32. difference: logsumexp of the right answers' logits less that of the wrong ones', which is
    the log of how much likelier a right answer is; best: whether the likeliest of all of them is right."""

    difference: Tensor
    best: Tensor


class Survey(NamedTuple):
    """What every head does on prompts. means: [prompts, layers, heads * d_head] fp32, outputs averaged over the
    positions after BOS; by_template: [layers, length, heads * d_head] fp32, averaged over a template's prompts."""

    means: Tensor
    by_template: dict[int, Tensor]
    answered: Answered


def answers(logits: Tensor, prompts: Sequence[Prompt]) -> Answered:
    """logits: [prompts, vocabulary]"""
    difference, best = [], []
    for row, prompt in zip(logits.float(), prompts, strict=True):
        right, wrong = row[list(prompt.right)], row[list(prompt.wrong)]
        difference.append(right.logsumexp(0) - wrong.logsumexp(0))
        best.append(right.max() > wrong.max())
    return Answered(torch.stack(difference).cpu(), torch.stack(best).cpu())


class Heads:
    """Where the heads' outputs stand: ``points[layer]`` is the input of that layer's output projection, the heads side
    by side, ``d_head`` wide each."""

    def __init__(self, subject: Subject) -> None:
        """
        Raises:
            SubjectUnfit: its heads are not where they are known to be.
        """
        model, config = subject.model, subject.model.config
        stack = stack_of(model)
        self.layers = len(list(model.get_submodule(stack).children())) if stack else 0
        self.count = int(getattr(config, "num_attention_heads", 0) or 0)
        try:
            self.points = [hook_point(f"blocks.{layer}.attn.hook_z", model) for layer in range(self.layers)]
        except SubjectUnavailable:
            self.points = []
        if not self.points or not self.count:
            raise SubjectUnfit(f"The attention heads of {subject.name} are not where they are known to be.")
        widths = {self.weight(model, layer).shape[0] for layer in range(self.layers)}
        if len(widths) != 1 or next(iter(widths)) % self.count:
            raise SubjectUnfit(f"The layers of {subject.name} do not all have {self.count} attention heads.")
        self.d_head = widths.pop() // self.count
        self.d_model = self.weight(model, 0).shape[1]

    def weight(self, model: nn.Module, layer: int) -> Tensor:
        """[heads * d_head, d_model] fp32: what the layer's heads write into the stream is their outputs times this."""
        module: Any = resolve(model, self.points[layer])
        weight: Tensor = module.weight.detach().float()
        return weight.T if isinstance(module, nn.Linear) else weight  # GPT-2's Conv1D keeps [in, out]

    def survey(self, subject: Subject, prompts: Sequence[Prompt]) -> "Survey":
        """One forward of every prompt."""
        with fp32_logits(subject.model):
            return self._survey(subject, prompts)

    def _survey(self, subject: Subject, prompts: Sequence[Prompt]) -> "Survey":
        means = torch.empty(len(prompts), self.layers, self.count * self.d_head)
        difference, best = torch.empty(len(prompts)), torch.empty(len(prompts), dtype=torch.bool)
        skip = int(subject.bos_id is not None)
        sums: dict[int, Tensor] = {}
        seen: dict[int, int] = {}
        for places in _alike(prompts):
            batch = [prompts[place] for place in places]
            found, logits = self._forward(subject, batch)
            means[places] = found[:, :, skip:].mean(2).permute(1, 0, 2).cpu()
            difference[places], best[places] = answers(logits, batch)
            for template in {prompt.template for prompt in batch}:
                which = [row for row, prompt in enumerate(batch) if prompt.template == template]
                part = found[:, which].sum(1)
                sums[template] = part + sums[template] if template in sums else part
                seen[template] = seen.get(template, 0) + len(which)
        by_template = {template: total / seen[template] for template, total in sums.items()}
        return Survey(means, by_template, Answered(difference, best))

    @torch.inference_mode()
    def _forward(self, subject: Subject, batch: Sequence[Prompt]) -> tuple[Tensor, Tensor]:
        """Prompts of one length: [layers, prompts, length, heads * d_head] fp32, and the last token's logits."""
        found: list[Tensor] = []

        def keep(z: Tensor) -> None:
            found.append(z.float())

        handles = [tap(subject.model, point, keep) for point in self.points]
        try:
            ids = torch.tensor([prompt.ids for prompt in batch], device=subject.device)
            logits = subject.model(input_ids=ids, use_cache=False, logits_to_keep=last(ids)).logits[:, -1]
        finally:
            for handle in handles:
                handle.remove()
        return torch.stack(found), logits

    def written(self, model: nn.Module, means: Tensor) -> Tensor:
        """[prompts, layers, heads * d_head] -> [prompts, layers * heads, d_model]: what each head writes into the
        stream, layer by layer."""
        parts = []
        for layer in range(self.layers):
            z = means[:, layer].unflatten(1, (self.count, self.d_head))
            weight = self.weight(model, layer).cpu().unflatten(0, (self.count, self.d_head))
            parts.append(torch.einsum("phd,hdm->phm", z, weight))
        return torch.cat(parts, dim=1)


def _alike(prompts: Sequence[Prompt]) -> Iterator[list[int]]:
    """Places of prompts of one length, at most ``BATCH`` at a time."""
    lengths: dict[int, list[int]] = {}
    for place, prompt in enumerate(prompts):
        lengths.setdefault(len(prompt.ids), []).append(place)
    for places in lengths.values():
        for start in range(0, len(places), BATCH):
            yield places[start : start + BATCH]
