"""Prompts read by a subject and SAEs: one thread owns the device and batches what has arrived."""

import asyncio
import queue
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from app.errors import EmptyText, SubjectUnavailable, TextTooLong
from app.sae.base import SAE, Pursuing, Steps
from app.subject.hook_names import hook_point
from app.subject.hooks import read_activations
from app.subject.identity import fingerprint
from app.subject.load import Subject, load_subject


@dataclass(frozen=True)
class Target:
    """The SAE revision a prompt is read with, and where its parts lie on disk."""

    revision: str
    subject: str
    subject_path: Path
    sae_path: Path
    subject_sha256: str | None = None  # None in rows older than it, which are taken as what lies at the path

    @property
    def model(self) -> tuple[Path, str | None]:
        return self.subject_path, self.subject_sha256


@dataclass(frozen=True)
class PromptRun:
    """A prompt's sparse activations, sorted by position, then latent.

    token_ids and pieces have one entry a position, BOS included; counted is False at special tokens, where
    nothing is encoded. steps, of pursuits: at each position (latent, residual norm after it) in order of selection.
    position, latent: [nnz] int64; value: [nnz] fp32. seconds is the time on the device,
    batch how many prompts shared it.
    """

    token_ids: list[int]
    pieces: list[str]
    counted: list[bool]
    position: npt.NDArray[np.int64]
    latent: npt.NDArray[np.int64]
    value: npt.NDArray[np.float32]
    seconds: float
    batch: int
    steps: dict[int, list[tuple[int, float]]] | None = None


@dataclass
class _Request:
    target: Target
    text: str
    future: "Future[PromptRun]"
    ids: list[int]


class Engine:
    """``inspect`` from any event loop; torch runs only in the engine's own thread.

    Requests that arrive while the device is busy, or less than ``gap_s`` after one another, share one forward
    pass, up to ``batch_tokens`` padded tokens and ``wait_s`` after the first. Results are cached by
    (subject, revision, text). ``hashes`` is the file that app.subject.identity.fingerprint remembers in.
    """

    def __init__(
        self,
        read_sae: Callable[[Path], SAE],
        *,
        dtype: str = "auto",
        device: str = "auto",
        max_tokens: int = 1024,
        max_chars: int = 20_000,
        batch_tokens: int = 8192,
        wait_s: float = 0.005,
        gap_s: float = 0.001,
        cache: int = 256,
        hashes: Path | None = None,
    ) -> None:
        self._read_sae = read_sae
        self._dtype, self._device = dtype, device
        self.max_tokens, self.max_chars = max_tokens, max_chars
        self._batch_tokens, self._wait_s, self._gap_s, self._cache_size = batch_tokens, wait_s, gap_s, cache
        self._queue: queue.SimpleQueue[_Request | None] = queue.SimpleQueue()
        self._held: _Request | None = None
        self._cache: OrderedDict[tuple[str, str, str], PromptRun] = OrderedDict()
        self._cache_lock = threading.Lock()
        self._hashes = hashes
        self._subjects: dict[tuple[Path, str | None], Subject] = {}
        self._saes: dict[str, SAE] = {}
        self._thread: threading.Thread | None = None
        self.forwards = 0

    def start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._serve, name="saescope-engine", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join()
            self._thread = None

    async def inspect(self, target: Target, text: str) -> PromptRun:
        """Read ``text``.

        Raises:
            EmptyText, TextTooLong: with the limit and what was given.
            SubjectUnavailable, InvalidSAE: the files are gone or broken.
        """
        if not text.strip():
            raise EmptyText("There is no text to inspect; paste at least one word.")
        if len(text) > self.max_chars:
            raise TextTooLong(
                f"The text has {len(text):,} characters; the limit is {self.max_chars:,}.",
                characters=len(text),
                limit=self.max_chars,
            )
        key = (target.subject, target.revision, text)
        with self._cache_lock:
            if (known := self._cache.get(key)) is not None:
                self._cache.move_to_end(key)
                return known
        request = _Request(target, text, Future(), [])
        self._queue.put(request)
        run = await asyncio.wrap_future(request.future)
        with self._cache_lock:
            self._cache[key] = run
            while len(self._cache) > self._cache_size:
                self._cache.popitem(last=False)
        return run

    async def warm(self, target: Target) -> None:
        """Load what ``target`` needs, so that the first prompt does not wait for it."""
        await self.inspect(target, "warm")

    def _serve(self) -> None:
        while (first := self._next(None)) is not None:
            batch = self._gather(first)
            if not batch:
                continue
            try:
                self._run(batch)
            except Exception as error:  # every waiting caller must hear of it, whatever it is
                for request in batch:
                    if not request.future.done():
                        request.future.set_exception(error)

    def _next(self, timeout: float | None) -> _Request | None:
        """The next request that reads well; the others are answered here. None: stop, or nothing in time."""
        while True:
            if self._held is not None:
                held, self._held = self._held, None
                return held
            try:
                request = self._queue.get(timeout=timeout)
            except queue.Empty:
                return None
            if request is None:
                if timeout is not None:
                    self._queue.put(None)  # the outer loop must see it too
                return None
            if request.future.set_running_or_notify_cancel() and self._prepare(request):
                return request

    def _prepare(self, request: _Request) -> bool:
        """Tokenise; a refusal or a broken file answers this request alone."""
        try:
            subject = self._subject(request.target)
            self._sae(request.target, subject)
            ids = subject.encode(request.text)
            bos = [subject.bos_id] if subject.bos_id is not None else []
            if len(ids) + len(bos) > self.max_tokens:
                raise TextTooLong(
                    f"The text has {len(ids):,} tokens; the limit is {self.max_tokens - len(bos):,}.",
                    tokens=len(ids),
                    limit=self.max_tokens - len(bos),
                )
            request.ids = bos + ids
        except Exception as error:
            request.future.set_exception(error)
            return False
        return True

    def _gather(self, first: _Request) -> list[_Request]:
        batch, longest = [first], len(first.ids)
        deadline = time.perf_counter() + self._wait_s
        while (left := deadline - time.perf_counter()) > 0:
            request = self._next(min(left, self._gap_s))
            if request is None:
                break
            longest = max(longest, len(request.ids))
            same = request.target.model == first.target.model
            if not same or longest * (len(batch) + 1) > self._batch_tokens:
                self._held = request
                break
            batch.append(request)
        return batch

    def _run(self, batch: list[_Request]) -> None:
        started = time.perf_counter()
        subject = self._subject(batch[0].target)
        saes = [self._sae(request.target, subject) for request in batch]
        lengths = [len(request.ids) for request in batch]
        rows = np.zeros((len(batch), max(lengths)), dtype=np.int64)
        for row, request in zip(rows, batch, strict=True):
            row[: len(request.ids)] = request.ids
        token_ids = torch.from_numpy(rows).to(subject.device)
        attention = None
        if len(batch) > 1:
            attention = (torch.arange(rows.shape[1]) < torch.tensor(lengths)[:, None]).long().to(subject.device)
        hooks = [[hook_point(name, subject.model) for name in sae.config.reads] for sae in saes]
        found = read_activations(subject.model, token_ids, sorted({h for some in hooks for h in some}), attention)
        self.forwards += 1
        special = np.array(subject.special_ids)
        results = []
        for number, (request, sae, reads) in enumerate(zip(batch, saes, hooks, strict=True)):
            counted = ~np.isin(rows[number, : lengths[number]], special)
            places = np.flatnonzero(counted)
            kept = torch.from_numpy(places).to(subject.device)
            x = torch.cat([found[hook][number, kept] for hook in reads], dim=1)
            steps = sae.pursue(x) if isinstance(sae, Pursuing) else None
            results.append((request, counted, places, sae.encode(x), steps))
        seconds = time.perf_counter() - started
        for request, counted, places, acts, steps in results:
            request.future.set_result(
                PromptRun(
                    token_ids=request.ids,
                    pieces=subject.vocabulary.pieces(request.ids),
                    counted=counted.tolist(),
                    position=places[acts.position.cpu().numpy()],
                    latent=acts.latent.cpu().numpy(),
                    value=acts.value.cpu().numpy(),
                    seconds=seconds,
                    batch=len(batch),
                    steps=None if steps is None else _steps(places, steps),
                )
            )

    def _subject(self, target: Target) -> Subject:
        if target.model not in self._subjects:
            subject = load_subject(target.subject_path, target.subject, self._dtype, self._device)
            if target.subject_sha256 not in (None, fingerprint(subject, self._hashes)):
                raise SubjectUnavailable(
                    f"The model at {target.subject_path} is no longer the one that {target.subject} was harvested "
                    "from; put that one back, or harvest its SAEs again.",
                    path=str(target.subject_path),
                )
            self._subjects[target.model] = subject
        return self._subjects[target.model]

    def _sae(self, target: Target, subject: Subject) -> SAE:
        if target.revision not in self._saes:
            self._saes[target.revision] = self._read_sae(target.sae_path).to(subject.device)
        return self._saes[target.revision]


def _steps(places: npt.NDArray[np.int64], steps: Steps) -> dict[int, list[tuple[int, float]]]:
    rows = zip(places.tolist(), steps.latent.tolist(), steps.residual.tolist(), strict=True)
    return {
        place: [(latent, norm) for latent, norm in zip(latents, norms, strict=True) if latent >= 0]
        for place, latents, norms in rows
    }
