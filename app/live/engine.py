"""Prompts read by subjects and SAEs: one thread owns the device and batches what has arrived.

What takes many steps (a long prompt, a generation, an attribution) runs as an iterator, a step at a time between two
batches, so that it keeps nobody waiting.
"""

import asyncio
import math
import queue
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

from app.embed.embedder import Embedded, Embedder
from app.errors import EmbeddingsUnavailable, EmptyText, EngineBusy, EngineStopped, TextTooLong, TooLarge
from app.live.cache import Cache
from app.live.forward import CHUNK, Chunk, joined, read_batch, read_long
from app.live.jobs import Job
from app.live.memory import told
from app.live.prompt import PromptRun, Target
from app.live.prompt_ids import prompt_ids
from app.live.queued import Request, Steps, Underway
from app.live.residents import NoRoom, Residents
from app.live.stats import EngineStats
from app.live.steps import steps_of
from app.shortage import out_of_memory
from app.subject.load import Subject

A = TypeVar("A")
_END = object()


class Engine:
    """``read`` and ``stream`` from any event loop; torch runs only in the engine's own thread.

    Prompts that arrive while the device is busy share one forward pass, and those that are expected when it is free, or
    come less than ``gap_s`` after one another; up to ``batch_tokens`` padded tokens and ``wait_s`` after the first.
    Results are cached by (subject, text) and SAE revision, in ``cache_bytes``. More than ``waiting`` requests are
    refused at once.
    """

    def __init__(
        self,
        residents: Residents,
        *,
        max_tokens: int = 4096,
        max_chars: int = 40_000,
        batch_tokens: int = 8192,
        wait_s: float = 0.005,
        gap_s: float = 0.001,
        cache_bytes: int = 1 << 28,
        waiting: int = 256,
        embedder: Embedder | None = None,
    ) -> None:
        self.residents, self._embedder = residents, embedder
        self.max_tokens, self.max_chars = max_tokens, max_chars
        self._batch_tokens, self._wait_s, self._gap_s, self._limit = batch_tokens, wait_s, gap_s, waiting
        self._queue: queue.SimpleQueue[Request | None] = queue.SimpleQueue()
        self._held: deque[Request] = deque()
        self._jobs: deque[Underway] = deque()
        self._cache = Cache(cache_bytes)
        self._count = threading.Lock()
        self._pending = self._expected = 0
        self._pace = 0.1  # seconds a request has taken lately
        self._thread: threading.Thread | None = None
        self._stopping = False
        self.forwards = self._batches = self._prompts = 0

    @property
    def pending(self) -> int:
        """Requests that are waiting or on their way."""
        return self._pending

    @property
    def running(self) -> bool:
        return self._thread is not None and not self._stopping

    def stats(self) -> EngineStats:
        """As app.live.inference has it."""
        cache = self._cache
        return EngineStats(
            self.running, self._pending, cache.hits, cache.misses, cache.nbytes,
            self.forwards, self._batches, self._prompts,
        )  # fmt: skip

    @contextmanager
    def expecting(self) -> Iterator[None]:
        """As app.live.inference has it."""
        with self._count:
            self._expected += 1
        try:
            yield
        finally:
            with self._count:
                self._expected -= 1

    def start(self) -> None:
        if self._thread is None:
            self._stopping = False
            self._thread = threading.Thread(target=self._serve, name="saescope-engine", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """End the thread; whoever waits is told so."""
        thread = self._thread
        if thread is not None:
            self._stopping = True
            self._queue.put(None)
            thread.join()
            self._thread = None

    async def read(
        self, targets: Sequence[Target], text: str, *, chat: bool = False, predict: bool = False
    ) -> PromptRun:
        """As app.live.inference has it."""
        if not text.strip():
            raise EmptyText("There is no text to inspect; paste at least one word.")
        if len(text) > self.max_chars:
            raise TextTooLong(
                f"The text has {len(text):,} characters; the limit is {self.max_chars:,}.",
                characters=len(text),
                limit=self.max_chars,
            )
        key = (targets[0].model, text, chat)
        known, missing, ask = self._cache.lacks(key, targets, predict)
        self._cache.count(hit=known is not None)
        if known is not None:
            return known
        run: PromptRun = await self._answer(Request(missing, text, chat, ask))
        return self._cache.add(key, run)

    def known(
        self, targets: Sequence[Target], text: str, *, chat: bool = False, predict: bool = False
    ) -> PromptRun | None:
        """As app.live.inference has it."""
        found = self._cache.lacks((targets[0].model, text, chat), targets, predict)[0]
        if found is not None:
            self._cache.count(hit=True)
        return found

    def run(self, targets: Sequence[Target], job: Job[A]) -> AsyncGenerator[A, None]:
        """As app.live.inference has it."""
        return self.stream(targets, steps_of(job, partial(self.tokens, reply=True)), saes=job.reads_saes)

    async def stream(self, targets: Sequence[Target], steps: Steps, *, saes: bool = True) -> AsyncGenerator[Any, None]:
        """What ``steps`` yields of the subject and, unless ``saes`` says otherwise, the SAEs of ``targets``, run a step
        at a time in the engine's thread; leaving the loop ends it.

        Raises:
            as ``read``, and whatever ``steps`` raises.
        """
        loop = asyncio.get_running_loop()
        told: asyncio.Queue[Any] = asyncio.Queue()

        def tell(item: Any) -> None:
            loop.call_soon_threadsafe(told.put_nowait, item)

        request = Request(targets, saes=saes, steps=steps, tell=tell)
        self._submit(request)
        request.future.add_done_callback(lambda _: tell(_END))
        try:
            while (item := await told.get()) is not _END:
                yield item
            request.future.result()
        finally:
            request.gone.set()

    async def warm(self, target: Target) -> None:
        """Load what ``target`` needs, so that the first prompt does not wait for it."""
        await self.read([target], "warm")

    async def embed(self, texts: Sequence[str]) -> Embedded:
        """As app.live.inference has it; in a thread of its own, so that no prompt waits for it."""
        if self._embedder is None:
            raise EmbeddingsUnavailable("This engine has no sentence model.")
        return await self._embedder.embed(texts)

    async def close(self) -> None:
        await asyncio.to_thread(self.stop)
        if self._embedder is not None:
            await asyncio.to_thread(self._embedder.close)

    async def _answer(self, request: Request) -> Any:
        self._submit(request)
        try:
            return await asyncio.wrap_future(request.future)
        finally:
            request.gone.set()

    def _submit(self, request: Request) -> None:
        with self._count:
            if not self.running:
                raise EngineStopped("The server is being stopped; try again in a moment.")
            if self._pending >= self._limit:
                seconds = max(1, math.ceil(self._pending * self._pace))
                raise EngineBusy(
                    f"{self._pending} requests are waiting for the model already; try again in {seconds} s.",
                    retry_after=seconds,
                )
            self._pending += 1
        request.future.add_done_callback(self._done)
        self._queue.put(request)

    def _done(self, _: "Future[Any]") -> None:
        with self._count:
            self._pending -= 1

    # From here on everything runs in the engine's own thread.

    def _serve(self) -> None:
        while not self._stopping:
            first = self._next(0.0 if self._jobs else None)
            if first is not None and first.steps is None and len(first.ids) <= CHUNK:
                self._run(self._gather(first))
            elif first is not None:
                self._jobs.append(self._begin(first))
            if self._jobs:
                self._step(self._jobs.popleft())
        self._refuse_all()

    def _refuse_all(self) -> None:
        left = [*self._held, *(job.request for job in self._jobs)]
        while not self._queue.empty():
            if (request := self._queue.get()) is not None:
                left.append(request)
        self._held.clear()
        self._jobs.clear()
        for request in left:
            self._finish(request, error=EngineStopped("The server is being stopped; try again in a moment."))

    def _next(self, timeout: float | None, *, forming: bool = False) -> Request | None:
        """The next request that is ready to run; what cannot be is answered here. None: nothing in time, or the end,
        or no room for it beside what runs or, ``forming``, beside the batch that is being put together."""
        while not self._stopping:
            request = self._held.popleft() if self._held else self._wait(timeout)
            if request is None:
                return None
            if request.gone.is_set():
                self._finish(request, error=EngineStopped("Nobody waits for this any more."))
                continue
            try:
                self._prepare(request)
                return request
            except NoRoom as none:
                if self._jobs or forming:  # they end one day
                    self._held.appendleft(request)
                    return None
                self._finish(request, error=TooLarge(str(none)))
            except Exception as error:  # whoever waits must hear of it, whatever it is
                self._finish(request, error=error)
        return None

    def _wait(self, timeout: float | None) -> Request | None:
        try:
            return self._queue.get(timeout=timeout) if timeout != 0.0 else self._queue.get_nowait()
        except queue.Empty:
            return None

    def _prepare(self, request: Request) -> None:
        """Load what it needs, and tokenise."""
        loaded = self.residents.lease(request.targets, saes=request.saes)
        try:
            if request.steps is None:
                request.ids = self.tokens(loaded.subject, request.text, chat=request.chat)
        except BaseException:
            self.residents.release(loaded)
            raise
        request.loaded = loaded

    def tokens(self, subject: Subject, text: str, *, chat: bool, reply: bool = False) -> list[int]:
        """The ids of ``text``, BOS included; for the engine's own thread. ``reply``: a chat's answer is to follow.

        Raises:
            EmptyText, TextTooLong, BadRequest: as ``read``.
        """
        return prompt_ids(subject, text, chat=chat, reply=reply, limit=self.max_tokens)

    def _gather(self, first: Request) -> list[Request]:
        batch, longest = [first], len(first.ids)
        deadline = time.perf_counter() + self._wait_s
        while True:
            left = deadline - time.perf_counter()
            if left <= 0:
                break
            # Where jobs are on their way, or nobody else is, only what has arrived already comes along.
            coming = self._expected > self._pending
            waits = not self._jobs and (coming or not self._expected)
            request = self._next(min(left, self._gap_s) if waits else 0.0, forming=True)
            if request is None:
                if coming and waits and not self._held:
                    continue
                break
            alike = request.steps is None and request.predict == first.predict and len(request.ids) <= CHUNK
            alike = alike and request.targets[0].model == first.targets[0].model
            longest = max(longest, len(request.ids))
            # Logits take far more than what the SAEs read.
            most = self._batch_tokens // 4 if first.predict else self._batch_tokens
            if not alike or longest * (len(batch) + 1) > most:
                self._put_back(request)
                break
            batch.append(request)
        return batch

    def _put_back(self, request: Request) -> None:
        assert request.loaded is not None
        self.residents.release(request.loaded)
        request.loaded = None
        self._held.append(request)

    def _run(self, batch: list[Request]) -> None:
        started = time.perf_counter()
        try:
            chunks = read_batch(
                batch[0].there.subject, [r.ids for r in batch], [r.there.probes for r in batch], batch[0].predict
            )
        except Exception as error:
            self._alone(batch, error)
            return
        self.forwards += 1
        self._batches += 1
        self._prompts += len(batch)
        seconds = time.perf_counter() - started
        self._pace += 0.2 * (seconds / len(batch) - self._pace)
        for request, chunk in zip(batch, chunks, strict=True):
            self._finish(request, self._made(request, [chunk], seconds, len(batch)))

    def _alone(self, batch: list[Request], error: Exception) -> None:
        """After a batch failed: each by itself, since one may have spoilt it for all; the last one hears why."""
        if out_of_memory(error):
            self.residents.forget()
        if len(batch) == 1:
            self._finish(batch[0], error=told(error))
            return
        for request in batch:
            self._run([request])

    def _begin(self, request: Request) -> Underway:
        loaded = request.there
        if request.steps is not None:
            return Underway(request, request.steps(loaded.subject, loaded.probes))
        return Underway(request, read_long(loaded.subject, request.ids, loaded.probes, request.predict))

    def _step(self, job: Underway) -> None:
        """One step of a job; it goes to the end of the line, unless it is done or nobody waits for it."""
        request, started = job.request, time.perf_counter()
        if request.gone.is_set():
            job.steps.close()  # type: ignore[attr-defined]
            self._finish(request, error=EngineStopped("Nobody waits for this any more."))
            return
        try:
            item: Any = next(job.steps, _END)
        except Exception as error:
            if out_of_memory(error):
                self.residents.forget()
            self._finish(request, error=told(error))
            return
        job.seconds += time.perf_counter() - started
        self.forwards += item is not _END
        if item is _END:
            made = None if request.steps is not None else self._made(request, job.chunks, job.seconds, 1)
            self._finish(request, made)
            return
        if request.tell is not None:
            request.tell(item)
        else:
            job.chunks.append(item)
        self._jobs.append(job)

    def _made(self, request: Request, chunks: list[Chunk], seconds: float, batch: int) -> PromptRun:
        subject = request.there.subject
        readings, predictions = joined(chunks, request.ids)
        special = set(subject.special_ids)
        return PromptRun(
            request.ids,
            subject.vocabulary.pieces(request.ids),
            [i not in special for i in request.ids],
            {target.revision: reading for target, reading in zip(request.targets, readings, strict=True)},
            predictions,
            seconds,
            batch,
        )

    def _finish(self, request: Request, result: Any = None, *, error: Exception | None = None) -> None:
        if request.loaded is not None:
            self.residents.release(request.loaded)
            request.loaded = None
        if request.future.cancelled() or not request.future.set_running_or_notify_cancel():
            return
        if error is not None:
            request.future.set_exception(error)
        else:
            request.future.set_result(result)
