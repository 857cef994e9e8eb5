"""How much of the subject's next-token loss survives when the SAE stands in for what it reconstructs."""

import torch
from torch import Tensor

from app.corpus.sequences import Corpus
from app.harvest.batches import counted, pad
from app.harvest.reading import Hooks
from app.sae.base import SAE
from app.sae.metrics import finite
from app.subject.edits import logits_with
from app.subject.hooks import HookPoint
from app.subject.load import Subject

BATCH = 4  # sequences at once: their logits are held over the whole vocabulary


def recovered(subject: Subject, sae: SAE, corpus: Corpus, most: int) -> dict[str, float | int | None]:
    """Cross-entropy and KL over ``most`` sequences spread evenly over the corpus.

    ce_recovered = (ce_zero - ce_sae) / (ce_zero - ce_original) and kl_recovered = 1 - kl_sae / kl_zero, where
    ``sae`` puts the reconstruction in the place of what the SAE writes, ``zero`` puts zeros there (zero ablation),
    and KL is from the original's distribution. BOS, EOS and PAD are neither replaced nor predicted. Empty where the
    SAE writes no module's input or output, or nothing is predicted; None where a number is not defined.
    """
    hooks = Hooks.of(sae, subject)
    if any(point.side == "unit" for point in hooks.writes) or not len(corpus) or most < 1:
        return {}
    step = max(1, len(corpus) // most)
    sample = [corpus[number] for number in range(0, len(corpus), step)[:most]]
    special = torch.tensor(subject.special_ids, device=subject.device)
    sums, predicted = torch.zeros(5, dtype=torch.float64), 0
    for first in range(0, len(sample), BATCH):
        padded = pad(sample[first : first + BATCH], subject.device)
        mask = counted(padded, special)
        found = hooks.read(subject, padded)
        x = hooks.inputs(sae, found, mask)
        hats = _apart(sae.decode(sae.encode(x), x), hooks.writes, found, mask)
        original = _next(subject, padded.token_ids, padded.attention, {}, mask)
        target = padded.token_ids[:, 1:][mask[:, 1:]]
        sums[0] += _ce(original, target)
        for place, values in ((1, hats), (2, {p: torch.zeros_like(v) for p, v in hats.items()})):
            other = _next(subject, padded.token_ids, padded.attention, values, mask)
            sums[place] += _ce(other, target)
            sums[place + 2] += (original.exp() * (original - other)).sum(1).double().sum().cpu()
        predicted += len(target)
    if not predicted:
        return {}
    ce_original, ce_sae, ce_zero, kl_sae, kl_zero = (sums / predicted).tolist()
    return {
        "ce_original": finite(ce_original),
        "ce_sae": finite(ce_sae),
        "ce_zero": finite(ce_zero),
        "ce_recovered": _ratio(ce_zero - ce_sae, ce_zero - ce_original),
        "kl_recovered": _ratio(kl_zero - kl_sae, kl_zero),
        "recovery_tokens": predicted,
    }


def _apart(
    x_hat: Tensor, writes: list[HookPoint], found: dict[HookPoint, Tensor], mask: Tensor
) -> dict[HookPoint, Tensor]:
    """The reconstruction, one rectangle [sequences, length, d] for each place it is written to."""
    out, first = {}, 0
    for point in writes:
        width = found[point].shape[-1]
        whole = torch.zeros(*mask.shape, width, device=mask.device)
        whole[mask] = x_hat[:, first : first + width]
        out[point] = whole
        first += width
    return out


def _next(
    subject: Subject, token_ids: Tensor, attention: Tensor, values: dict[HookPoint, Tensor], mask: Tensor
) -> Tensor:
    """Log-probabilities [predicted, vocabulary] of the tokens that follow, where the next one counts."""
    logits = logits_with(subject.model, token_ids, attention, values, mask)
    return logits[:, :-1][mask[:, 1:]].log_softmax(-1)


def _ce(log_probabilities: Tensor, target: Tensor) -> Tensor:
    return -log_probabilities.gather(1, target[:, None]).double().sum().cpu()


def _ratio(part: float, whole: float) -> float | None:
    return finite(part / whole) if abs(whole) > 1e-12 else None
