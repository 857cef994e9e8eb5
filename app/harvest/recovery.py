"""How much of the subject's next-token loss survives when the SAE stands in for what it reconstructs."""

import torch
from torch import Tensor

from app.corpus.sequences import Corpus
from app.harvest.batches import Padded, counted, pad
from app.harvest.reading import Hooks
from app.sae.base import SAE
from app.sae.metrics import finite
from app.subject.edits import logits_with
from app.subject.hooks import HookPoint
from app.subject.load import Subject

BATCH = 2  # sequences at once: their logits are held over the whole vocabulary, once for each that is compared
ROWS = 64  # positions compared at once: more take memory that comes from the kernel anew each time


def recovered(
    subject: Subject, sae: SAE, corpus: Corpus, most: int, mean: Tensor | None = None
) -> dict[str, float | int | None]:
    """Cross-entropy and KL over ``most`` sequences spread evenly over the corpus.

    ce_recovered = (ce_zero - ce_sae) / (ce_zero - ce_original) and kl_recovered = 1 - kl_sae / kl_zero, where
    ``sae`` puts the reconstruction in the place of what the SAE writes, ``zero`` puts zeros there (zero ablation),
    and KL is from the original's distribution. BOS, EOS and PAD are neither replaced nor predicted. Given the ``mean``
    [d_out] of what the SAE reconstructs, the same against that in its place (mean ablation). Empty where the SAE writes
    no module's input or output, or nothing is predicted; None where a number is not defined.
    """
    hooks = Hooks.of(sae, subject)
    if any(point.side == "unit" for point in hooks.writes) or not len(corpus) or most < 1:
        return {}
    step = max(1, len(corpus) // most)
    sample = [corpus[number] for number in range(0, len(corpus), step)[:most]]
    special = torch.tensor(subject.special_ids, device=subject.device)
    names = ("sae", "zero") if mean is None else ("sae", "zero", "mean")
    ce = dict.fromkeys(("original", *names), 0.0)
    kl = dict.fromkeys(names, 0.0)
    predicted = 0
    for first in range(0, len(sample), BATCH):
        padded = pad(sample[first : first + BATCH], subject.device)
        mask = counted(padded, special)
        found = hooks.read(subject, padded)
        x = hooks.inputs(sae, found, mask)
        x_hat = sae.decode(sae.encode(x), x)
        values = {"sae": x_hat, "zero": torch.zeros_like(x_hat)} | ({} if mean is None else {"mean": mean})
        logits = {"original": _logits(subject, padded, {}, mask)}
        for name, value in values.items():
            hats = _apart(value.expand_as(x_hat), hooks.writes, found, mask)
            logits[name] = _logits(subject, padded, hats, mask)
        rows, positions = mask[:, 1:].nonzero(as_tuple=True)
        target = padded.token_ids[rows, positions + 1]
        for block in torch.arange(len(target), device=target.device).split(ROWS):
            at = rows[block], positions[block]
            original = logits["original"][at].log_softmax(-1)
            chances = original.exp()
            ce["original"] += _ce(original, target[block])
            for name in names:
                other = logits[name][at].log_softmax(-1)
                ce[name] += _ce(other, target[block])
                kl[name] += float(torch.sub(original, other, out=other).mul_(chances).sum(1).double().sum())
        predicted += len(target)
    if not predicted:
        return {}
    told: dict[str, float | int | None] = {f"ce_{name}": finite(sum_ / predicted) for name, sum_ in ce.items()}
    for baseline in names[1:]:
        suffix = "" if baseline == "zero" else f"_{baseline}"
        told[f"ce_recovered{suffix}"] = _ratio(ce[baseline] - ce["sae"], ce[baseline] - ce["original"], predicted)
        told[f"kl_recovered{suffix}"] = _ratio(kl[baseline] - kl["sae"], kl[baseline], predicted)
    return told | {"recovery_tokens": predicted}


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


def _logits(subject: Subject, padded: Padded, values: dict[HookPoint, Tensor], mask: Tensor) -> Tensor:
    return logits_with(subject.model, padded.token_ids, padded.attention, values, mask)


def _ce(log_probabilities: Tensor, target: Tensor) -> float:
    return -float(log_probabilities.gather(1, target[:, None]).double().sum())


def _ratio(part: float, whole: float, predicted: int) -> float | None:
    """``part`` of ``whole``, both sums over ``predicted`` tokens; None where the whole is nothing."""
    return finite(part / whole) if abs(whole) > 1e-12 * predicted else None
