"""What every SAE offers, whatever its architecture and the format it came in."""

from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Protocol, runtime_checkable

from torch import Tensor

from app.sae.acts import Acts


class SAEFormatError(ValueError):
    """A file or folder that is no SAE we can read; says on one line which tensor or key, what it is and what was
    wanted. A name in it may hold anything."""

    def __init__(self, message: str) -> None:
        super().__init__("".join(ch if ch.isprintable() else " " for ch in message))


@dataclass(frozen=True)
class SAEConfig:
    """An SAE's facts in normal form.

    ``reads`` and ``writes`` are hook points (``model.layers.9:out``), or names of other libraries
    (``blocks.9.hook_resid_post``) until a subject resolves them. ``d_in`` is the width of all reads together.
    ``heads`` is the number of attention heads whose outputs lie side by side in the input, if it is of that kind.
    ``extra`` holds what else a reader found worth showing.
    """

    architecture: str
    d_in: int
    n_latents: int
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    subject: str
    prepend_bos: bool = True
    context: int | None = None
    signed: bool = False
    heads: int | None = None
    extra: dict[str, Any] = field(default_factory=dict)


def rehooked(config: SAEConfig, hook: str | None, subject: str | None) -> SAEConfig:
    """The config with what the caller knows better: one hook read instead of the stored one (and written, where both
    were the same), and the subject's name.

    Raises:
        SAEFormatError: the SAE reads several hooks, so one cannot stand for them.
    """
    if hook is not None and len(config.reads) > 1:
        raise SAEFormatError(
            f"The SAE reads {len(config.reads)} hook points, so one hook {hook!r} cannot replace them."
        )
    if hook is not None:
        config = replace(config, reads=(hook,), writes=(hook,) if config.writes == config.reads else config.writes)
    return config if subject is None else replace(config, subject=subject)


class Steps(NamedTuple):
    """How a pursuit went. latent: [positions, steps] int64 in order of selection, -1 after it stopped;
    residual: [positions, steps] fp32, the norm of what was left after each step."""

    latent: Tensor
    residual: Tensor


@runtime_checkable
class Pursuing(Protocol):
    """An SAE that chooses its latents one after another and can say in which order."""

    def pursue(self, x: Tensor) -> Steps: ...


class SAE(Protocol):
    """Encoders and decoders on torch; ``encode`` leaves no state behind for ``decode``."""

    @property
    def config(self) -> SAEConfig: ...

    @property
    def W_dec(self) -> Tensor:
        """[n_latents, d_out]: all writes side by side."""
        ...

    def encode(self, x: Tensor) -> Acts:
        """x: [positions, d_in] of any float dtype (several reads side by side) -> each position's active latents."""
        ...

    def decode(self, acts: Acts, x: Tensor) -> Tensor:
        """Reconstruction [positions, d_out] fp32. ``x`` is what was encoded: normalisation is undone from it, and
        skip connections read it."""
        ...

    def to(self, device: Any) -> "SAE":
        """The same SAE with its tensors on ``device``."""
        ...
