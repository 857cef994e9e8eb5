"""What edits do to the subject's predictions on a text."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from app.errors import BadRequest, EmptyText
from app.live.edit import Edit
from app.live.editing import Editing, check_finite
from app.live.jobs import Shift
from app.sae.base import SAE
from app.subject.precise import fp32_logits

ELEMENTS = 1 << 24  # of one row's log-probabilities at once: 64 MiB in fp32


@dataclass(frozen=True)
class Effect:
    """kl: [positions] fp32, KL(edited || clean) of the next-token distributions in nats. clean_loss, edited_loss:
    [positions - 1] fp32, -log p of each next token in nats; mean_loss_change is the mean of edited - clean over the
    next tokens that are not special, None where there are none. raised, lowered: the next tokens at ``position`` whose
    log-probability (or probability) rises or falls most, strongest first; without an effect, rounding alone."""

    position: int
    kl: Tensor
    clean_loss: Tensor
    edited_loss: Tensor
    mean_loss_change: float | None
    raised: list[Shift]
    lowered: list[Shift]


@torch.inference_mode()
def effect(
    model: nn.Module,
    saes: Sequence[SAE],
    edits: Sequence[Edit],
    token_ids: Sequence[int],
    *,
    special_ids: Sequence[int] = (),
    generated_from: int | None = None,
    position: int | None = None,
    top: int = 10,
    by: Literal["logprob", "probability"] = "logprob",
) -> Effect:
    """The clean and the edited text side by side, in runs of positions whose logits fit ``ELEMENTS``.

    ``token_ids``: the whole text, BOS included. ``position``: whose next tokens are told, the last one if None.

    Raises:
        EmptyText, BadRequest: no tokens; a position that is not there.
        InvalidEdit, LatentOutOfRange, EditUnsupported, SubjectUnavailable: see ``Editing`` and
            ``check_finite``.
    """
    n = len(token_ids)
    if n == 0:
        raise EmptyText("There are no tokens to run; give at least one.")
    position = n - 1 if position is None else position
    if not 0 <= position < n:
        raise BadRequest(f"Position {position} is not in the text; it has 0 to {n - 1}.", position=position)
    editing = Editing(model, saes, edits, special_ids=special_ids, generated_from=generated_from, rows=[1])
    output: Any = model.get_output_embeddings()  # type: ignore[operator]
    ids = torch.tensor(token_ids, device=output.weight.device)
    places, width = torch.arange(n, device=ids.device), max(1, ELEMENTS // len(output.weight))
    cache, kl, losses = None, [], []
    shifts: tuple[list[Shift], list[Shift]] = ([], [])
    for first in range(0, n, width):
        here = places[first : first + width]
        mask = torch.ones(2, first + len(here), dtype=torch.int64, device=ids.device)
        with editing, fp32_logits(model):
            out = model(
                input_ids=ids[here].expand(2, -1), attention_mask=mask, position_ids=here.expand(2, -1),
                past_key_values=cache, use_cache=True,
            )  # fmt: skip
        cache = out.past_key_values
        clean, edited = (row.float().log_softmax(-1) for row in out.logits)
        check_finite(edited)
        following = ids[first + 1 : first + len(here) + 1, None]
        losses.append(torch.stack([-row[: len(following)].gather(1, following)[:, 0] for row in (clean, edited)]))
        if first <= position < first + len(here):
            at = position - first
            shifts = _shifts(out.logits[:, at].float(), torch.stack([clean[at], edited[at]]), top, by)
        kl.append((edited.exp() * (edited - clean)).sum(-1).clamp_min(0))
    clean_loss, edited_loss = torch.cat(losses, dim=1)
    counted = ~torch.isin(ids[1:], torch.tensor(sorted(special_ids), dtype=torch.int64, device=ids.device))
    change = (edited_loss - clean_loss)[counted]
    mean = float(change.mean()) if len(change) else None
    return Effect(position, torch.cat(kl), clean_loss, edited_loss, mean, *shifts)


def _shifts(logits: Tensor, log_probabilities: Tensor, top: int, by: str) -> tuple[list[Shift], list[Shift]]:
    """logits, log_probabilities: [2, vocabulary], clean and edited."""
    measured = log_probabilities.exp() if by == "probability" else log_probabilities
    change, probabilities = measured[1] - measured[0], log_probabilities.exp()

    def told(tokens: Tensor) -> list[Shift]:
        rows = torch.cat([logits[:, tokens], probabilities[:, tokens]]).T.tolist()
        return [Shift(token, *row) for token, row in zip(tokens.tolist(), rows, strict=True)]

    most, least = (change.topk(min(top, len(change)), largest=largest) for largest in (True, False))
    return told(most.indices[most.values > 0]), told(least.indices[least.values < 0])
