"""The same pass over a Ray cluster: shards of the corpus as tasks, their accumulators merged in a tree.

The corpus is cut into shards of whole batches, the very batches one machine would read. A wave of shards is merged
pairwise by tasks, where the accumulators lie; the wave's sum comes to the driver, which adds it to what it has and
writes the same checkpoints as on one machine. Ray starts a shard again whose worker has died.
"""

import contextlib
import logging
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from app.corpus.sequences import Corpus, CorpusHash, Sequence
from app.errors import BadRequest, SaescopeError
from app.harvest.batches import groups
from app.harvest.harvester import Harvester
from app.harvest.interrupt import Interrupt
from app.harvest.parameters import Parameters
from app.harvest.reader import Reader
from app.harvest.run import Harvested, Place, Progress, Watch, restore, save
from app.sae.base import SAE
from app.subject.load import Subject, load_subject

WAVES = 16  # into which a corpus of known size is cut, about; more means more checkpoints and more merging
SHARD_TOKENS = 1 << 22  # at most
RETRIES = 3
# Ray's settings for a cluster that is this machine alone. By default it calls a node dead that is silent for a minute,
# as one on a busy machine may well be, and then ends the driver without a word; and its workers are so nice (15) that
# beside other work they stand all but still.
LOCAL = {"health_check_timeout_ms": 600_000, "health_check_failure_threshold": 20, "worker_niceness": 0}


@dataclass(frozen=True)
class Work:
    """What a worker needs besides its shard. The subject is loaded from ``path``, which every node must have."""

    path: Path
    name: str
    dtype: str
    saes: list[SAE]
    parameters: Parameters
    context: int
    l0: list[float]
    names: list[str]


@dataclass
class State:
    """What comes back of a shard, or of several merged."""

    harvesters: list[dict[str, Any]]
    halved: bool


_subjects: dict[tuple[Path, str], Subject] = {}  # of this worker process


def read_shard(work: Work, shard: list[tuple[int, list[Sequence]]]) -> State:
    """The accumulators of some batches, each with the corpus number of its first sequence."""
    key = (work.path, work.dtype)
    if key not in _subjects:
        _subjects[key] = load_subject(work.path, work.name, work.dtype)
    subject = _subjects[key]
    reader = Reader(subject, [sae.to(subject.device) for sae in work.saes], names=work.names)
    harvesters = reader.harvesters(work.parameters, work.context, work.l0)
    for first, rows in shard:
        for part in reader.read(first, rows):
            for harvester, read in zip(harvesters, part, strict=True):
                harvester.update(read.batch, read.x, read.y)
    return State([_mapped(harvester.state_dict(), torch.Tensor.cpu) for harvester in harvesters], reader.halved)


def join(work: Work, vocabulary: int, one: State, other: State) -> State:
    """The accumulators of both, as if one pass had seen what either saw."""
    merged = []
    for sae, l0, *states in zip(work.saes, work.l0, one.harvesters, other.harvesters, strict=True):
        mine, theirs = (_loaded(work, sae, vocabulary, l0, state) for state in states)
        mine.merge(theirs)
        merged.append(mine.state_dict())
    return State(merged, one.halved or other.halved)


def _loaded(work: Work, sae: SAE, vocabulary: int, l0: float, state: dict[str, Any]) -> Harvester:
    harvester = Harvester(sae, work.parameters, vocabulary=vocabulary, longest=work.context, l0=l0)
    # Copies: what Ray hands out lies in shared memory and may not be written.
    harvester.load_state_dict(_mapped(state, torch.Tensor.clone))
    return harvester


def _mapped(state: Any, change: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """A state_dict with every tensor of it changed."""
    if isinstance(state, torch.Tensor):
        return change(state)
    if isinstance(state, dict):
        return {key: _mapped(value, change) for key, value in state.items()}
    if isinstance(state, list | tuple):
        return type(state)(_mapped(value, change) for value in state)
    return state


def cluster(address: str) -> Callable[..., Harvested]:
    """``app.harvest.run.harvest`` over the Ray cluster at ``address``; ``auto`` is the one this machine belongs to or,
    where there is none, one of this machine's processors.

    Raises (when called):
        BadRequest: Ray is not installed, or there is no cluster at the address.
    """

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
        watch = watch or Watch()
        reader = Reader(subject, saes, names=names)
        l0 = reader.l0(corpus)
        harvesters = reader.harvesters(parameters, context, l0)
        place = restore(harvesters, checkpoint, corpus, watch)
        dtype = str(subject.dtype).removeprefix("torch.")
        work = Work(
            subject.path.absolute(), subject.name, dtype, [sae.to("cpu") for sae in saes], parameters, context, l0,
            reader.names,
        )  # fmt: skip
        with connected(address) as ray, Interrupt() as stop:
            tree = Tree(ray, work, subject.n_tokens)
            size = _shard_tokens(parameters.batch_tokens, total, tree.workers)
            started = saved = time.perf_counter()
            resumed, halved, known = place.tokens, False, False
            for root, after in _ahead(tree.waves(corpus, place, size)):
                try:
                    state: State = ray.get(root)
                except ray.exceptions.RayTaskError as error:
                    raise _cause(error) from None
                for harvester, sae, one, mine in zip(harvesters, saes, l0, state.harvesters, strict=True):
                    theirs = Harvester(sae, parameters, vocabulary=subject.n_tokens, longest=context, l0=one,
                                       device=subject.device)  # fmt: skip
                    theirs.load_state_dict(_mapped(mine, lambda tensor: tensor.clone().to(subject.device)))
                    harvester.merge(theirs)
                after.seconds, after.tokens = place.seconds, harvesters[0].stats.positions
                place, halved = after, halved or state.halved
                seconds = time.perf_counter() - started
                if not known and corpus.complete:
                    total, known = corpus.counted(subject.special_ids), True
                told = watch.progress(Progress(place.tokens, total, resumed, seconds))
                asked = stop.asked or bool(told)
                if checkpoint is not None and (asked or time.perf_counter() - saved >= checkpoint_seconds):
                    save(harvesters, place, checkpoint, place.seconds + seconds, watch)
                    saved = time.perf_counter()
                if asked:
                    raise KeyboardInterrupt
                watch.between()
            for harvester in harvesters:
                harvester.finish()
            return Harvested(harvesters, place.seconds + time.perf_counter() - started, halved)

    return harvest


class Tree:
    """Shards sent out a wave at a time, each wave merged in pairs by tasks that run where there is room."""

    def __init__(self, ray: Any, work: Work, vocabulary: int) -> None:
        resources = ray.cluster_resources()
        gpus = int(resources.get("GPU", 0))
        self.workers = gpus or max(1, int(resources.get("CPU", 1)))
        self._ray = ray
        needs = {"num_gpus": 1} if gpus else {"num_cpus": 1}
        self._read = ray.remote(max_retries=RETRIES, **needs)(read_shard)
        self._join = ray.remote(max_retries=RETRIES, num_cpus=1)(join)
        self._work = ray.put(work)
        self._batch_tokens = work.parameters.batch_tokens
        self._vocabulary = vocabulary

    def waves(self, corpus: Corpus, start: Place, size: int) -> Iterator[tuple[Any, Place]]:
        """For each wave its merged State's reference, and how far the corpus has been read with it."""
        digest, sequences = start.digest.copy(), start.sequences
        level: list[Any] = []
        shard: list[tuple[int, list[Sequence]]] = []
        held = 0

        def reached(digest: CorpusHash) -> Place:
            return Place(sequences, digest=digest.copy())

        for first, rows in groups(corpus, self._batch_tokens, sequences):
            shard.append((first, rows))
            for sequence in rows:
                digest.add(sequence)
                held += len(sequence.token_ids)
            if held >= size:
                level.append(self._read.remote(self._work, shard))
                sequences = first + len(rows)
                shard, held = [], 0
                if len(level) == 2 * self.workers:
                    yield self._merged(level), reached(digest)
                    level = []
        if shard:
            level.append(self._read.remote(self._work, shard))
            sequences = shard[-1][0] + len(shard[-1][1])
        if level:
            yield self._merged(level), reached(digest)

    def _merged(self, level: list[Any]) -> Any:
        while len(level) > 1:
            pairs = [level[i : i + 2] for i in range(0, len(level), 2)]
            level = [
                self._join.remote(self._work, self._vocabulary, *pair) if len(pair) == 2 else pair[0] for pair in pairs
            ]
        return level[0]


def _ahead(waves: Iterator[tuple[Any, Place]]) -> Iterator[tuple[Any, Place]]:
    """One wave further than what is waited for, so that no worker stands still at a wave's end."""
    held = next(waves, None)
    while held is not None:
        following = next(waves, None)
        yield held
        held = following


def _shard_tokens(batch_tokens: int, total: int | None, workers: int) -> int:
    if total is None:
        return SHARD_TOKENS
    return max(batch_tokens // 2, min(SHARD_TOKENS, total // (2 * workers * WAVES)))


def _cause(error: Any) -> BaseException:
    """What a worker raised: a refusal as it is, anything else as the first line of it."""
    cause = error.cause
    if isinstance(cause, SaescopeError):
        return cause
    return BadRequest(f"A worker failed: {type(cause).__name__}: {str(cause).partition(chr(10))[0]}")


@contextlib.contextmanager
def connected(address: str) -> Iterator[Any]:
    """Ray, in the cluster at ``address``.

    Raises:
        BadRequest: Ray is not installed, or there is no cluster.
    """
    try:
        import ray
    except ImportError:
        raise BadRequest("Ray is not installed; pip install 'saescope[ray]'.") from None
    if ray.is_initialized():  # by whoever called, whose it stays
        yield ray
        return
    options: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    _check(address)
    try:
        ray.init(address=address, **options)
    except (ConnectionError, ValueError, RuntimeError) as error:
        if address != "auto":
            reason = str(error).partition("\n")[0]
            raise BadRequest(f"There is no Ray cluster at {address!r}: {reason}", address=address) from None
        ray.init(address="local", include_dashboard=False, _system_config=LOCAL, **options)
    try:
        yield ray
    finally:
        ray.shutdown()


def _check(address: str) -> None:
    """Refuse an address at which nobody answers; Ray itself would wait for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        return
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except OSError as error:
        raise BadRequest(
            f"There is no Ray cluster at {address!r}: {error.strerror or error}.", address=address
        ) from None
