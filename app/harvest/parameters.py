"""What decides a harvest's result besides subject, SAE and corpus."""

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Parameters:
    """Part of an SAE's revision.

    width is the window of tokens stored with an example. FVU and L0 are measured on every ``reconstruct_every``-th
    sequence, the loss recovered on ``recovery_sequences`` sequences. ``quiet`` contexts a latent does not fire in,
    random and near, are drawn from ``quiet_windows`` windows. ``tokens``, ``partners`` and ``documents`` are how many
    top tokens, co-active latents and documents a latent keeps; a token must occur ``token_least`` times to be one.
    At most ``contexts`` contexts of ``context_width`` tokens are kept, with the ``context_latents`` strongest latents.
    """

    top: int = 20
    per_interval: int = 3
    width: int = 64
    neighbours: int = 10
    promoted: int = 10
    reconstruct_every: int = 8
    batch_tokens: int = 8192
    recovery_sequences: int = 12
    quiet: int = 3
    quiet_windows: int = 1024
    tokens: int = 10
    token_least: int = 5
    partners: int = 10
    documents: int = 5
    contexts: int = 200_000
    context_width: int = 64
    context_latents: int = 256
    seed: int = 0
    version: int = 6


def parameters_json(parameters: Parameters) -> dict[str, Any]:
    return asdict(parameters)
