"""What is attributed: a number read off a next-token distribution."""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from app.errors import BadRequest


@dataclass(frozen=True)
class Metric:
    """A number read off the next-token distribution at ``position``: the logit of ``token``, less that of ``against``
    if there is one; or log-probabilities in their place, in nats."""

    position: int
    token: int
    against: int | None = None
    kind: Literal["logit", "logprob"] = "logit"

    def of(self, logits: Tensor) -> Tensor:
        """logits: [rows, vocabulary] -> [rows] fp32."""
        values = logits.float()
        if self.kind == "logprob":
            values = values.log_softmax(-1)
        return values[:, self.token] - (0 if self.against is None else values[:, self.against])


def check(metric: Metric, length: int, vocabulary: int) -> None:
    """
    Raises:
        BadRequest: a position that is not in a text of ``length`` tokens, or a token or a kind that is not there.
    """
    if not 0 <= metric.position < length:
        raise BadRequest(
            f"Position {metric.position} is not in the text; it has {length} tokens, from 0.", position=metric.position
        )
    for token in (metric.token, metric.against):
        if token is not None and not 0 <= token < vocabulary:
            raise BadRequest(f"There is no token {token}; the subject has 0 to {vocabulary - 1}.", token=token)
    if metric.kind not in ("logit", "logprob"):
        raise BadRequest(f"There is no metric {metric.kind!r}; metrics are logit and logprob.", metric=metric.kind)


def in_fp32(model: nn.Module, metric: Metric) -> list[RemovableHandle]:
    """The metric's own logits from the last product on in fp32: in bf16 a logit of 20 moves in steps of 1/8, more than
    most latents move it."""
    output: Any = model.get_output_embeddings()  # type: ignore[operator]
    if output.weight.dtype == torch.float32:
        return []
    tokens = [metric.token] if metric.against is None else [metric.token, metric.against]
    index = torch.tensor(tokens, device=output.weight.device)

    def sharpen(module: Any, args: tuple[Tensor], out: Tensor) -> Tensor:
        bias = None if module.bias is None else module.bias[index].float()
        own = torch.nn.functional.linear(args[0].float(), module.weight[index].float(), bias)
        return out.float().index_copy(-1, index, own)

    return [output.register_forward_hook(sharpen)]
