"""What the engine is asked and what it answers."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Target:
    """The SAE revision a prompt is read with, and where its parts lie on disk."""

    revision: str
    subject: str
    subject_path: Path
    sae_path: Path
    subject_sha256: str | None = None  # None in rows older than it, which are taken as what lies at the path
    sae_sha256: str | None = None  # of the SAE's files; None is whatever lies there

    @property
    def model(self) -> tuple[Path, str | None]:
        return self.subject_path, self.subject_sha256


@dataclass(frozen=True, eq=False)
class Reading:
    """A prompt's sparse activations under one SAE, sorted by position, then latent.

    position, latent: [nnz] int32; value: [nnz] fp32. error: [positions] fp32, the norm of what the SAE leaves out of
    what it reconstructs over the norm of that, |y - y_hat| / |y|; NaN where nothing is encoded, None where the SAE
    reconstructs nothing of the subject. steps, of pursuits: at each position (latent, residual norm after it) in
    order of selection.
    """

    position: Ints
    latent: Ints
    value: Floats
    error: Floats | None
    steps: dict[int, list[tuple[int, float]]] | None = None

    @property
    def nbytes(self) -> int:
        parts = (self.position, self.latent, self.value, self.error)
        return sum(part.nbytes for part in parts if part is not None)


@dataclass(frozen=True, eq=False)
class Predictions:
    """What the subject expects after each position.

    logprob: [positions] fp32, the log-probability (nats) it gave to the token at a position, NaN at the first;
    entropy: [positions] fp32, of the distribution after the position, in nats; top_ids: [positions, k] int32 and
    top_logprobs: [positions, k] fp32, the likeliest next tokens, the likeliest first.
    """

    logprob: Floats
    entropy: Floats
    top_ids: Ints
    top_logprobs: Floats

    @property
    def nbytes(self) -> int:
        return self.logprob.nbytes + self.entropy.nbytes + self.top_ids.nbytes + self.top_logprobs.nbytes


@dataclass(frozen=True, eq=False)
class PromptRun:
    """A prompt as a subject read it, and each SAE's reading of that, by revision.

    token_ids, pieces and counted have one entry a position, BOS included; counted is False at special tokens, where
    nothing is encoded. seconds is the time on the device, batch how many prompts shared it.
    """

    token_ids: list[int]
    pieces: list[str]
    counted: list[bool]
    readings: dict[str, Reading] = field(default_factory=dict)
    predictions: Predictions | None = None
    seconds: float = 0.0
    batch: int = 1

    @property
    def nbytes(self) -> int:
        """Roughly what it holds: a Python token takes about 100 bytes."""
        whole = sum(reading.nbytes for reading in self.readings.values()) + 100 * len(self.token_ids)
        return whole + (self.predictions.nbytes if self.predictions else 0)
