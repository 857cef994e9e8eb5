"""What is attributed: a number read off a next-token distribution."""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

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
