"""What every SAE offers, whatever its architecture and the format it came in."""

from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor

from app.sae.acts import Acts


class SAEFormatError(ValueError):
    """A file or folder that is no SAE we can read; says which tensor or key, what it is and what was wanted."""


@dataclass(frozen=True)
class SAEConfig:
    """An SAE's facts in normal form. ``reads`` and ``writes`` are hook points (``model.layers.9:out``)."""

    architecture: str
    d_in: int
    n_latents: int
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    subject: str
    prepend_bos: bool = True
    context: int | None = None
    signed: bool = False
    extra: dict[str, Any] = field(default_factory=dict)


class SAE(Protocol):
    """Encoders and decoders on torch; ``encode`` leaves no state behind for ``decode``."""

    @property
    def config(self) -> SAEConfig: ...

    @property
    def W_dec(self) -> Tensor:
        """[n_latents, d_out] fp32."""
        ...

    def encode(self, x: Tensor) -> Acts:
        """x: [positions, d_in] of any float dtype -> the active latents of each position."""
        ...

    def decode(self, acts: Acts) -> Tensor:
        """Reconstruction [positions, d_out] fp32."""
        ...

    def to(self, device: Any) -> "SAE":
        """The same SAE with its tensors on ``device``."""
        ...
