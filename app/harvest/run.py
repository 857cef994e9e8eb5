"""The pass over a corpus: forward to the hooks, encode, accumulate; checkpointed, so a killed one carries on."""

import contextlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch

from app.corpus.sequences import Corpus, CorpusHash
from app.disk import room
from app.harvest.batches import groups
from app.harvest.harvester import Harvester
from app.harvest.interrupt import Interrupt
from app.harvest.parameters import Parameters
from app.harvest.reader import Read, Reader
from app.harvest.stages import Stages
from app.sae.base import SAE
from app.subject.load import Subject


@dataclass(frozen=True)
class Progress:
    """tokens are those that count, as everywhere: not BOS, EOS or padding, though the subject reads these too. total
    is what was asked for while the corpus is still read, then what it holds; None where nothing was asked. resumed is
    what an earlier run had done."""

    tokens: int
    total: int | None
    resumed: int
    seconds: float


class Harvested(NamedTuple):
    """One set of accumulators for each SAE; seconds spent, earlier runs' included; whether batches were halved."""

    harvesters: list[Harvester]
    seconds: float
    halved: bool


@dataclass
class Watch:
    """What a harvest tells, and is told. ``progress`` returns whether to stop after the batch at hand; ``between`` runs
    after each batch and may raise to end the pass; ``doing`` takes the name of what is done while no batch is read;
    ``note`` a sentence for the user; ``kept`` the checkpoint's file and how many tokens it holds, at the start and
    whenever it is written. ``read`` takes the corpus and what every SAE has of each batch, of a pass on this machine;
    ``saved`` the number of an SAE that is in the database now, its revision and the folder of its files."""

    progress: Callable[[Progress], bool | None] = lambda progress: None
    between: Callable[[], None] = lambda: None
    doing: Callable[[str], None] = lambda stage: None
    note: Callable[[str], None] = lambda line: None
    kept: Callable[[Path, int], None] = lambda file, tokens: None
    read: Callable[[Corpus, list[Read]], None] = lambda corpus, part: None
    saved: Callable[[int, str, Path], None] = lambda number, revision, folder: None
    stages: Stages = field(default_factory=Stages)


def harvest(
    subject: Subject,
    saes: list[SAE],
    corpus: Corpus,
    parameters: Parameters,
    *,
    context: int,
    total: int | None = None,
    checkpoint: Path | None = None,
    checkpoint_seconds: float = 20.0,
    watch: Watch | None = None,
    names: list[str] | None = None,
) -> Harvested:
    """Run or finish the pass for all ``saes`` at once. No sequence is longer than ``context`` tokens.

    ``total`` is how many tokens were asked for, which stands until the whole corpus is known.

    ``checkpoint`` is a file for this very harvest: it is written by atomic rename after the batch in which
    ``checkpoint_seconds`` have passed since the last, and continued from if it is there and the sequences it has seen
    are the corpus's still. Ctrl-C ends the pass after the batch at hand, with a checkpoint; a second one at once.

    ``names`` are what refusals call the SAEs.

    Raises:
        BadRequest: an SAE does not fit the subject's activations.
        InvalidSAE, SubjectUnavailable: an SAE's or the subject's activations are not finite.
        CorpusUnavailable: there is no sequence.
        DiskFull: a checkpoint could not be written.
        OutOfMemory: half a batch does not fit.
    """
    watch = watch or Watch()
    reader = Reader(subject, saes, watch.stages, names)
    harvesters = reader.harvesters(parameters, context, reader.l0(corpus))
    place = restore(harvesters, checkpoint, corpus, watch)
    started = saved = time.perf_counter()
    resumed, known = place.tokens, False

    def spent() -> float:
        return place.seconds + time.perf_counter() - started

    def keep() -> None:
        if checkpoint is not None:
            with watch.stages("checkpoint"):
                save(harvesters, place, checkpoint, spent(), watch)

    with Interrupt() as stop:
        batches = groups(corpus, parameters.batch_tokens, place.sequences)
        while True:
            with watch.stages("waiting for tokens"):
                following = next(batches, None)
            if following is None:
                break
            first, rows = following
            for part in reader.read(first, rows):
                for harvester, read in zip(harvesters, part, strict=True):
                    harvester.update(read.batch, read.x, read.y, watch.stages)
                with watch.stages("keeping a sample"):
                    watch.read(corpus, part)
            for sequence in rows:
                place.digest.add(sequence)
            place.sequences = first + len(rows)
            place.tokens = harvesters[0].stats.positions
            if not known and corpus.complete:
                total, known = corpus.counted(subject.special_ids), True
            told = watch.progress(Progress(place.tokens, total, resumed, time.perf_counter() - started))
            asked = stop.asked or bool(told)
            due = time.perf_counter() - saved >= checkpoint_seconds
            if due or asked:
                keep()
                saved = time.perf_counter()
            if asked:
                raise KeyboardInterrupt
            watch.between()
        if stop.asked:
            keep()
    for harvester in harvesters:
        harvester.finish()
    return Harvested(harvesters, spent(), reader.halved)


@dataclass
class Place:
    """How far a pass has come: sequences read, tokens counted, seconds spent in earlier runs, what was read."""

    sequences: int = 0
    tokens: int = 0
    seconds: float = 0.0
    digest: CorpusHash = field(default_factory=CorpusHash)


def save(harvesters: list[Harvester], place: Place, path: Path, seconds: float, watch: Watch) -> None:
    partial = path.with_suffix(".partial")
    state = {
        "harvesters": [harvester.state_dict() for harvester in harvesters],
        "sequences": place.sequences,
        "sha256": place.digest.hexdigest(),
        "seconds": seconds,
    }
    try:
        with room(path, "The harvest's checkpoint"):
            path.parent.mkdir(parents=True, exist_ok=True)
            with partial.open("wb") as file:
                torch.save(state, file)
                file.flush()
                os.fsync(file.fileno())
            partial.rename(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    watch.kept(path, place.tokens)


def restore(harvesters: list[Harvester], path: Path | None, corpus: Corpus, watch: Watch) -> Place:
    """Where to go on from. A checkpoint that cannot be read, or of a corpus that has changed, is set aside."""
    place = Place()
    if path is not None:
        if path.is_file():
            place = _restored(harvesters, path, corpus, watch.note)
        watch.kept(path, place.tokens)
    return place


def _restored(harvesters: list[Harvester], path: Path, corpus: Corpus, note: Callable[[str], None]) -> Place:
    saved: Any = None
    with contextlib.suppress(Exception):  # torch raises many types for a file that is cut
        saved = torch.load(path, weights_only=True, map_location=harvesters[0].stats.count.device)
    if not _whole(saved, harvesters):
        path.rename(path.with_suffix(".damaged"))
        note("The checkpoint is damaged and was set aside; the harvest starts over.")
        return Place()
    place = Place(saved["sequences"], 0, saved["seconds"])
    for number in range(place.sequences):
        try:
            sequence = corpus[number]
        except IndexError:
            break
        place.digest.add(sequence)
    if place.digest.hexdigest() != saved["sha256"]:
        path.rename(path.with_suffix(".outdated"))
        note("The corpus is not what it was at the checkpoint, which was set aside; the harvest starts over.")
        return Place()
    for harvester, state in zip(harvesters, saved["harvesters"], strict=True):
        harvester.load_state_dict(state)
    place.tokens = harvesters[0].stats.positions
    return place


def _whole(saved: Any, harvesters: list[Harvester]) -> bool:
    """Whether a file's content is what ``save`` writes for these very accumulators."""
    kinds = {"harvesters": list, "sequences": int, "sha256": str, "seconds": float}
    if not isinstance(saved, dict) or {key: type(value) for key, value in saved.items()} != kinds:
        return False
    states: list[Any] = saved["harvesters"]
    return len(states) == len(harvesters) and all(
        _fits(harvester.state_dict(), state) for harvester, state in zip(harvesters, states, strict=True)
    )


def _fits(fresh: Any, saved: Any) -> bool:
    """Whether ``saved`` may follow from the state ``fresh``: the same keys, types, dtypes and shapes, but that what is
    empty at first may have grown."""
    if isinstance(fresh, torch.Tensor):
        if not isinstance(saved, torch.Tensor) or (saved.dtype, saved.ndim) != (fresh.dtype, fresh.ndim):
            return False
        return saved.shape == fresh.shape or (not len(fresh) and saved.shape[1:] == fresh.shape[1:])
    if isinstance(fresh, dict) and fresh:
        return (
            isinstance(saved, dict) and saved.keys() == fresh.keys() and all(_fits(fresh[k], saved[k]) for k in fresh)
        )
    return type(saved) is type(fresh)


def forget(checkpoint: Path) -> None:
    """Remove a checkpoint that is not needed any more, and what was set aside in its place."""
    for suffix in (".pt", ".partial", ".damaged", ".outdated"):
        checkpoint.with_suffix(suffix).unlink(missing_ok=True)
