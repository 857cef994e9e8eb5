"""An edit of an SAE's latent."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

if TYPE_CHECKING:
    from torch import Tensor

Place = Annotated[int, Field(ge=0, lt=1 << 31)]  # checked where an edit comes over the wire
Kind = Literal["ablate", "clamp", "scale", "add", "steer", "project"]
MAX_EDITS = 32
MAX_AMOUNT = 1e9  # beyond it decoder rows leave fp32


@dataclass(frozen=True)
class Edit:
    """One latent held, scaled, pushed or taken out.

    ``sae``: a place in the list of SAEs that goes with the edits. Four kinds go through the SAE, where a is the
    latent's activation, 0 where it is not active: ``ablate`` a' = 0, ``clamp`` a' = amount, ``scale`` a' = amount * a,
    ``add`` a' = a + amount. What the SAE does not explain of x stays as it is:
    x' = x + decode(acts') - decode(acts), at what the SAE writes (Templeton et al. 2024, "Scaling Monosemanticity").
    Two take the decoder row d alone and encode nothing: ``steer`` x' = x + amount * d, with d in the subject's units
    at that position (Turner et al. 2023, "Activation Addition"), so that it adds what decoding ``amount`` more would;
    ``project`` x' = x - (x . d) d with d of length 1, place by place where the SAE writes several (Arditi et al. 2024,
    "Refusal in Language Models Is Mediated by a Single Direction").

    ``amount`` is in units of the latent's activation (``scale``: a factor); ``ablate`` and ``project`` have none.
    ``positions``: ``all``; ``generated``, from the first token after the prompt on; or places in the text, 0 the first
    token (BOS where there is one). BOS, EOS and PAD are edited by none but ``steer`` and ``project``, and only where
    ``positions`` names their place: nothing is encoded there, and what stands there is large and holds attention.
    """

    sae: int
    latent: int
    kind: Kind
    amount: float = 0.0
    positions: Literal["all", "generated"] | frozenset[Place] = "all"

    @property
    def encodes(self) -> bool:
        """Whether it goes through the SAE."""
        return self.kind not in ("steer", "project")

    def of(self, values: "Tensor") -> "Tensor":
        """a' of activations a, any shape, for the kinds that go through the SAE."""
        match self.kind:
            case "ablate":
                return values.new_zeros(values.shape)
            case "clamp":
                return values.new_full(values.shape, self.amount)
            case "scale":
                return values * self.amount
            case "add":
                return values + self.amount
            case _:
                raise ValueError(f"{self.kind} changes no activation")
