"""Text that goes on without and with edits, token by token, side by side."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from app.errors import BadRequest, EmptyText, TextTooLong
from app.live.edit import Edit
from app.live.editing import Editing, check_finite
from app.live.jobs import Step
from app.sae.base import SAE
from app.subject.last import last

COLDEST = 1e-6  # below it the likeliest token is taken: logits over less leave what noise can be added to
_SPANS = {
    "max_new": "at least 1", "temperature": "0 or more", "top_p": "above 0 and at most 1", "seed": "0 to 2^63 - 1",
}  # fmt: skip
BASELINE, EDITED, UNEDITED = 0, 1, 2  # rows of the batch; UNEDITED is the unedited subject on the edited text


def generate(
    model: nn.Module,
    saes: Sequence[SAE],
    edits: Sequence[Edit],
    prompt: Sequence[int],
    *,
    special_ids: Sequence[int] = (),
    eos_ids: Sequence[int] = (),
    max_new: int = 100,
    temperature: float = 1.0,
    top_p: float = 1.0,
    seed: int = 0,
) -> Iterator[Step]:
    """One ``Step`` a token, from one forward of three rows: the baseline, the edited subject, and the unedited subject
    on the edited text. Between steps the subject is as it was, so it may serve others, and stopping early leaves
    nothing behind.

    ``prompt``: token ids, BOS included. A side ends with a token of ``eos_ids``, which is its last. Both sides are
    drawn with the same noise (Gumbel-max), so that they differ only where their distributions do; temperature 0 takes
    the most probable token. ``top_p`` keeps the most probable tokens that together hold so much of the probability
    (Holtzman et al. 2020). The first new token is predicted at the prompt's last position, so edits of scope
    ``generated`` show from the second on. An SAE that reads several places takes a second, shorter forward a step.

    Raises (before the first step is asked for):
        EmptyText, TextTooLong, BadRequest: no prompt; more than the subject reads; a setting out of its range.
        InvalidEdit, LatentOutOfRange, EditUnsupported, SubjectUnavailable: see ``Editing``; at a later step
            InvalidEdit, where the amounts turn out too large.
    """
    if not prompt:
        raise EmptyText("There is no prompt to go on from; give at least one token.")
    for name, value, fits in (
        ("max_new", max_new, max_new >= 1),
        ("temperature", temperature, 0 <= temperature < float("inf")),
        ("top_p", top_p, 0 < top_p <= 1),
        ("seed", seed, 0 <= seed < 1 << 63),
    ):
        if not fits:
            raise BadRequest(f"{name} is {value}; it must be {_SPANS[name]}.", setting=name)
    limit = int(getattr(model.config, "max_position_embeddings", 0) or 1 << 30)
    if len(prompt) + max_new > limit:
        raise TextTooLong(
            f"The prompt has {len(prompt)} tokens and {max_new} more are asked for; the subject reads {limit}.",
            tokens=len(prompt) + max_new,
            limit=limit,
        )
    editing = Editing(model, saes, edits, special_ids=special_ids, generated_from=len(prompt), rows=[EDITED])
    draw = _Draw(temperature, top_p, seed)
    return _steps(model, editing, prompt, frozenset(eos_ids), max_new, draw)


def _steps(
    model: nn.Module, editing: Editing, prompt: Sequence[int], eos_ids: frozenset[int], max_new: int, draw: "_Draw"
) -> Iterator[Step]:
    output: Any = model.get_output_embeddings()  # type: ignore[operator]
    ids = torch.tensor(prompt, device=output.weight.device).expand(3, -1)
    cache, length, ended = None, 0, [False, False]
    for number in range(max_new):
        length += ids.shape[1]
        # Not around the yield: the caller's own work must not run in inference mode, nor with the hooks installed.
        with torch.inference_mode():
            with editing:
                out = model(
                    input_ids=ids, attention_mask=torch.ones(3, length, dtype=torch.int64, device=ids.device),
                    position_ids=torch.arange(length - ids.shape[1], length, device=ids.device).expand(3, -1),
                    past_key_values=cache, use_cache=True, logits_to_keep=last(ids),
                )  # fmt: skip
            cache, logits = out.past_key_values, out.logits[:, -1].float()
            tokens = draw(logits[:UNEDITED]).tolist()
            log_p = logits.log_softmax(-1)
            check_finite(log_p)
            chosen = [float(log_p[side, token]) for side, token in enumerate(tokens)]
            kl = float((log_p[EDITED].exp() * (log_p[EDITED] - log_p[UNEDITED])).sum().clamp_min(0))
            ids = torch.tensor([tokens[BASELINE], tokens[EDITED], tokens[EDITED]], device=ids.device)[:, None]
        yield Step(
            number=number,
            baseline=None if ended[BASELINE] else tokens[BASELINE],
            edited=None if ended[EDITED] else tokens[EDITED],
            baseline_logprob=None if ended[BASELINE] else chosen[BASELINE],
            edited_logprob=None if ended[EDITED] else chosen[EDITED],
            kl=None if ended[EDITED] else kl,
        )
        ended = [over or token in eos_ids for over, token in zip(ended, tokens, strict=True)]
        if all(ended):
            return


@torch.inference_mode()
def likeliest(model: nn.Module, token_ids: Sequence[int]) -> int:
    """The token the model expects most after ``token_ids``."""
    output: Any = model.get_output_embeddings()  # type: ignore[operator]
    ids = torch.tensor([token_ids], device=output.weight.device)
    return int(model(input_ids=ids, use_cache=False, logits_to_keep=last(ids)).logits[0, -1].argmax())


class _Draw:
    """The next token of each row, all with one step's noise."""

    def __init__(self, temperature: float, top_p: float, seed: int) -> None:
        self._temperature, self._top_p = temperature, top_p
        self._generator = torch.Generator().manual_seed(seed)  # on the CPU, so that a seed means the same anywhere

    def __call__(self, logits: Tensor) -> Tensor:
        """logits: [rows, vocabulary] fp32 -> [rows] int64."""
        if self._temperature < COLDEST:
            return logits.argmax(-1)
        noise = -torch.empty(logits.shape[1], dtype=torch.float64).exponential_(generator=self._generator).log()
        scaled = nucleus(logits.double() / self._temperature, self._top_p)
        return (scaled + noise.to(logits.device)).argmax(-1)


def nucleus(logits: Tensor, top_p: float) -> Tensor:
    """``logits`` [rows, vocabulary] with -inf beyond the fewest most probable tokens that hold ``top_p`` together."""
    if top_p >= 1:
        return logits
    falling, order = logits.softmax(-1).sort(dim=-1, descending=True, stable=True)
    beyond = falling.cumsum(-1) - falling >= top_p  # what stands before a token holds enough already
    return logits.masked_fill(torch.zeros_like(beyond).scatter(-1, order, beyond), -torch.inf)
