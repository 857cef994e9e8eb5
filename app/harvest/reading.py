"""What an SAE reads and writes of a subject, batch by batch."""

from typing import NamedTuple

import torch
from torch import Tensor

from app.errors import BadRequest
from app.harvest.batches import Padded
from app.sae.base import SAE
from app.subject.hook_names import hook_point
from app.subject.hooks import HookPoint, read_activations
from app.subject.load import Subject


class Hooks(NamedTuple):
    """The hook points of an SAE in a subject."""

    reads: list[HookPoint]
    writes: list[HookPoint]

    @classmethod
    def of(cls, sae: SAE, subject: Subject) -> "Hooks":
        """
        Raises:
            SubjectUnavailable: the subject has no such place; names what comes near.
        """
        reads, writes = (
            [hook_point(name, subject.model) for name in names] for names in (sae.config.reads, sae.config.writes)
        )
        return cls(reads, writes)

    def read(self, subject: Subject, padded: Padded) -> dict[HookPoint, Tensor]:
        """Activations [sequences, length, d] at every hook point; nothing after the last of them runs."""
        return read_all(subject, padded, [self])

    def inputs(self, sae: SAE, found: dict[HookPoint, Tensor], mask: Tensor) -> Tensor:
        """x: [positions, d_in], the reads side by side where ``mask`` is true.

        Raises:
            BadRequest: they are not as wide as what the SAE reads.
        """
        x = beside(found, self.reads, mask)
        if x.shape[1] != sae.config.d_in:
            raise BadRequest(
                f"The SAE reads {sae.config.d_in} dimensions but {', '.join(map(str, self.reads))} has {x.shape[1]}.",
                d_in=sae.config.d_in,
                found=x.shape[1],
            )
        return x

    def targets(self, found: dict[HookPoint, Tensor], mask: Tensor) -> Tensor:
        """[positions, d_out]: what the SAE reconstructs."""
        return beside(found, self.writes, mask)


def read_all(subject: Subject, padded: Padded, hooks: list[Hooks]) -> dict[HookPoint, Tensor]:
    """Activations [sequences, length, d] at every hook point of ``hooks`` in one forward."""
    points = list(dict.fromkeys(point for some in hooks for point in some.reads + some.writes))
    return read_activations(subject.model, padded.token_ids, points, padded.attention)


def beside(found: dict[HookPoint, Tensor], points: list[HookPoint], mask: Tensor) -> Tensor:
    """The activations at ``points`` side by side, where ``mask`` is true: [positions, d of all together]."""
    parts = [found[point][mask] for point in points]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
