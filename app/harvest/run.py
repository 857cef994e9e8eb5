"""The pass over a corpus: forward to the hook, encode, accumulate; checkpointed, so a killed one carries on."""

import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from app.corpus.sequences import Sequence
from app.errors import DiskFull
from app.harvest.batches import assemble, counted, groups, pad
from app.harvest.harvester import Harvester
from app.harvest.quiet import QuietContexts
from app.harvest.reading import Hooks
from app.sae.base import SAE
from app.subject.load import Subject


@dataclass(frozen=True)
class Parameters:
    """What decides a harvest's result besides subject, SAE and corpus; part of the revision.

    width is the window of tokens stored with an example; FVU and L0 are measured on every
    ``reconstruct_every``-th batch, the loss recovered on ``recovery_sequences`` sequences.
    ``quiet`` contexts a latent does not fire in, random and near, are drawn from ``quiet_windows`` windows.
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
    seed: int = 0
    version: int = 4


@dataclass(frozen=True)
class Progress:
    """tokens counts what the subject has read, padding left out; resumed is what an earlier run had done."""

    tokens: int
    total: int
    resumed: int
    seconds: float


def harvest(
    subject: Subject,
    sae: SAE,
    sequences: list[Sequence],
    parameters: Parameters,
    *,
    checkpoint: Path | None = None,
    checkpoint_seconds: float = 20.0,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> tuple[Harvester, float]:
    """Run or finish the pass; returns the accumulators and the seconds spent, earlier runs' included.

    ``checkpoint`` is a file for this very harvest (name it by revision): it is written by atomic rename after the
    batch in which ``checkpoint_seconds`` have passed since the last, and continued from if it is there. Ctrl-C ends
    the pass after the batch at hand, with a checkpoint; a second Ctrl-C ends it at once.

    Raises:
        BadRequest: the SAE does not fit the subject's activations.
        DiskFull: a checkpoint could not be written.
    """
    hooks = Hooks.of(sae, subject)
    d_out = sae.W_dec.shape[1] if len(hooks.writes) == 1 else None
    harvester = Harvester(
        sae,
        top=parameters.top,
        per_interval=parameters.per_interval,
        width=parameters.width,
        reconstruct_every=parameters.reconstruct_every,
        seed=parameters.seed,
        device=subject.device,
        d_out=d_out,
        quiet=QuietContexts(
            sae.config.n_latents, sequences, parameters.width, parameters.quiet_windows, parameters.seed, subject.device
        ),
    )
    special = torch.tensor(subject.special_ids, device=subject.device)
    batches = groups(sequences, parameters.batch_tokens)
    total = sum(len(s.token_ids) for s in sequences)
    spent = _restore(harvester, checkpoint)
    done = sum(len(s.token_ids) for _, batch in batches[: harvester.batches] for s in batch)
    resumed, started = done, time.perf_counter()
    saved = started
    with Interrupt() as stop:
        for number in range(harvester.batches, len(batches)):
            first, rows = batches[number]
            padded = pad(rows, subject.device)
            found = hooks.read(subject, padded)
            mask = counted(padded, special)
            x = hooks.inputs(sae, found, mask)
            y = None if hooks.reads == hooks.writes else hooks.targets(found, mask)
            harvester.update(assemble(sae.encode(x), first, padded, mask), x, y)
            done += sum(len(s.token_ids) for s in rows)
            seconds = time.perf_counter() - started
            asked = stop.asked
            due = time.perf_counter() - saved >= checkpoint_seconds
            if checkpoint is not None and (due or asked):
                _save(harvester, checkpoint, spent + seconds)
                saved = time.perf_counter()
            on_progress(Progress(done, total, resumed, seconds))
            if asked:
                raise KeyboardInterrupt
        if stop.asked and checkpoint is not None:
            _save(harvester, checkpoint, spent + time.perf_counter() - started)
    return harvester, spent + time.perf_counter() - started


class Interrupt:
    """While it is open, Ctrl-C is only noted (``asked``), so that a batch can be finished and saved before it
    is raised; a second Ctrl-C is raised at once. In threads other than the main one it does nothing."""

    def __init__(self) -> None:
        self.asked = False

    def __enter__(self) -> "Interrupt":
        self._main = threading.current_thread() is threading.main_thread()
        if self._main:
            self._before = signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if self._main:
            signal.signal(signal.SIGINT, self._before)
        if self.asked and kind is None:  # it came after the block last looked
            raise KeyboardInterrupt

    def _note(self, *_: object) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True


def _save(harvester: Harvester, path: Path, seconds: float) -> None:
    partial = path.with_suffix(".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            torch.save({"state": harvester.state_dict(), "seconds": seconds}, file)
            file.flush()
            os.fsync(file.fileno())
        partial.rename(path)
    except (OSError, RuntimeError) as error:
        partial.unlink(missing_ok=True)
        raise DiskFull(f"The harvest's checkpoint {path} could not be written: {error}.", path=str(path)) from error


def _restore(harvester: Harvester, path: Path | None) -> float:
    if path is None or not path.is_file():
        return 0.0
    try:
        saved: dict[str, Any] = torch.load(path, weights_only=True, map_location=harvester.stats.count.device)
    except Exception:  # torch raises many types for a file that is cut; the pass starts over
        path.rename(path.with_suffix(".damaged"))
        return 0.0
    harvester.load_state_dict(saved["state"])
    return float(saved["seconds"])


def parameters_json(parameters: Parameters) -> dict[str, Any]:
    return asdict(parameters)
