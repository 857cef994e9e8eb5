"""One forward for every SAE: the subject read at all their hook points, each SAE's positions encoded."""

from typing import NamedTuple

import torch
from torch import Tensor

from app.corpus.sequences import Numbered, Sequence
from app.errors import CorpusUnavailable, InvalidSAE, OutOfMemory, SubjectUnavailable
from app.harvest.batches import Batch, assemble, counted, groups, pad
from app.harvest.harvester import Harvester
from app.harvest.parameters import Parameters
from app.harvest.reading import Hooks, read_all
from app.harvest.stages import Stages
from app.sae.base import SAE
from app.shortage import out_of_memory
from app.subject.load import Subject

PILOT = 256  # positions on which it is seen how many latents are active at once


class Read(NamedTuple):
    """What one SAE has of a batch: its activations sparse, what it read (x), what it reconstructs (y; None: x)."""

    batch: Batch
    x: Tensor
    y: Tensor | None


class Reader:
    """Batches to every SAE's Read. When memory runs out the batch is read in halves, and so are all that follow;
    when it runs out again, that is the end. ``names`` are what refusals call the SAEs."""

    def __init__(
        self, subject: Subject, saes: list[SAE], stages: Stages | None = None, names: list[str] | None = None
    ) -> None:
        self.subject, self.saes = subject, saes
        self.names = names or [f"SAE {number}" for number in range(1, len(saes) + 1)]
        self.hooks = [Hooks.of(sae, subject) for sae in saes]
        self.halved = False
        self._special = torch.tensor(subject.special_ids, device=subject.device)
        self._stage = stages or Stages()

    def read(self, first: int, rows: list[Sequence]) -> list[list[Read]]:
        """For each part of the batch (one, or two halves) what each SAE has of it. ``first`` is the corpus number of
        the first of ``rows``.

        Raises:
            BadRequest: an SAE does not fit the subject's activations.
            InvalidSAE, SubjectUnavailable: an SAE's or the subject's activations are not finite.
            OutOfMemory: half a batch does not fit either.
        """
        if not self.halved:
            try:
                return [self._read(first, rows)]
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise
            self.halved = True
            if self.subject.device.type == "cuda":
                torch.cuda.empty_cache()
        middle = (len(rows) + 1) // 2
        try:
            halves = ((first, rows[:middle]), (first + middle, rows[middle:]))
            return [self._read(number, half) for number, half in halves if half]
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            raise OutOfMemory(
                f"Memory ran out on half a batch of {sum(len(s.token_ids) for s in rows):,} tokens; set "
                "SAESCOPE_BATCH_TOKENS lower and start again, it carries on from the last checkpoint."
            ) from error

    def _read(self, first: int, rows: list[Sequence]) -> list[Read]:
        with self._stage("batching"):
            padded = pad(rows, self.subject.device)
            mask = counted(padded, self._special)
        with self._stage("forward"):
            found = read_all(self.subject, padded, self.hooks)
        out = []
        for name, sae, hooks in zip(self.names, self.saes, self.hooks, strict=True):
            with self._stage("encode"):
                x = hooks.inputs(sae, found, mask)
                y = None if hooks.reads == hooks.writes else hooks.targets(found, mask)
                acts = sae.encode(x)
            with self._stage("batching"):
                batch = assemble(acts, first, padded, mask)
                self._check(name, hooks, x, batch, rows)
                out.append(Read(batch, x, y))
        return out

    def _check(self, name: str, hooks: Hooks, x: Tensor, batch: Batch, rows: list[Sequence]) -> None:
        """Refuse what overflowed, before anything is summed up."""

        def place(position: Tensor) -> str:
            row = int(batch.sequence[position])
            return f"token {int(batch.place[position])} of sequence {batch.first_sequence + row} ({rows[row].document})"

        read = x.isfinite().all(1)
        if not read.all():
            raise SubjectUnavailable(
                f"{self.subject.name} computes values that are not finite at {', '.join(map(str, hooks.reads))}, on "
                f"{place((~read).nonzero()[0, 0])}; load it in another dtype, such as SAESCOPE_DTYPE=float32.",
                subject=self.subject.name,
            )
        known = batch.acts.value.isfinite()
        if not known.all():
            entry = (~known).nonzero()[0, 0]
            latent, value = int(batch.acts.latent[entry]), float(batch.acts.value[entry])
            raise InvalidSAE(
                f"{name} overflows: latent {latent} is {value} on {place(batch.acts.position[entry])}; its weights are "
                "too large for these activations, so rescale them or get them again.",
                sae=name,
                latent=latent,
            )

    def l0(self, corpus: Numbered) -> list[float]:
        """Active latents a position for each SAE, on the first sequences.

        Raises:
            CorpusUnavailable: there is no sequence.
        """
        _, rows = next(groups(corpus, PILOT), (0, []))
        if not rows:
            raise CorpusUnavailable("The corpus holds no text of at least 16 tokens.")
        parts = self.read(0, rows)
        entries = [sum(len(part[i].batch.acts.value) for part in parts) for i in range(len(self.saes))]
        positions = sum(part[0].batch.acts.n_positions for part in parts)
        return [count / max(1, positions) for count in entries]

    def harvesters(self, parameters: Parameters, longest: int, l0: list[float]) -> list[Harvester]:
        """Empty accumulators, one set for each SAE."""
        return [
            Harvester(
                sae,
                parameters,
                vocabulary=self.subject.n_tokens,
                longest=longest,
                l0=active,
                device=self.subject.device,
                d_out=sae.W_dec.shape[1] if len(hooks.writes) == 1 else None,
            )
            for sae, hooks, active in zip(self.saes, self.hooks, l0, strict=True)
        ]
