"""Inference services that the site asks in place of an engine of its own."""

import asyncio
import json
import logging
import math
import time
from collections.abc import AsyncGenerator, Awaitable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, aclosing, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from zipfile import BadZipFile

import httpx2

from app import tracing
from app.embed.embedder import Embedded, Memory, check_texts
from app.errors import EngineBusy, EngineStopped, EngineUnavailable, SaescopeError, TokenWrong
from app.infer import wire
from app.live.cache import Cache
from app.live.jobs import Job
from app.live.prompt import PromptRun, Target
from app.live.stats import EngineStats
from app.logs import request_id
from app.settings import Settings

AWAY_S = 3.0  # for which a service that could not be reached comes last
PATIENCE_S = 3.0  # after which a service that has not answered is asked whether it is there
THERE_S = 3.0  # it has to say so, where another may be asked in its place
ALONE_S = 20.0  # where none may: a machine with much else to do is worth waiting for
DRAINS_S = 60.0  # for which it may take no more connections and still end what it has begun; it takes half as long
CONNECT_S = 2.0
A = TypeVar("A")
T = TypeVar("T")
_log = logging.getLogger(__name__)


@dataclass(eq=False)
class _Service:
    url: str
    asked: int = 0  # of ours, not yet answered
    away_until: float = 0.0

    @contextmanager
    def working(self) -> Iterator[None]:
        self.asked += 1
        try:
            yield
        finally:
            self.asked -= 1


class _Closing(EngineStopped):
    """It is we who stop."""

    def __init__(self) -> None:
        super().__init__("The server is being stopped; try again in a moment.")


class _Gone(Exception):
    """A service that cannot be reached, breaks off, or answers what no inference service does."""


# What comes of reading what no inference service wrote.
_UNREADABLE = (
    ValueError, KeyError, TypeError, AttributeError, EOFError, BadZipFile, httpx2.TransportError, httpx2.DecodingError
)  # fmt: skip
_ELSEWHERE = (_Gone, EngineBusy, EngineStopped, TokenWrong)  # what another service may do better


class Services:
    """app.live.inference over HTTP. A request goes to the service with the fewest of ours; where that one is away or
    full it goes to the next, unless answers have begun to come."""

    def __init__(
        self, urls: Sequence[str], home: Path, token: str | None = None, *, cache_bytes: int = 1 << 28
    ) -> None:
        self._services = [_Service(url) for url in urls]
        self._home = home
        self._cache = Cache(cache_bytes)
        self._closed: asyncio.Future[None] | None = None
        self._embedded = Memory()
        self._http = httpx2.AsyncClient(
            headers={b"authorization": f"Bearer {token}".encode()} if token else {},
            # How long it may take is for ``_patiently`` to say. The server keeps idle connections for longer than we.
            timeout=httpx2.Timeout(None, connect=CONNECT_S),
            limits=httpx2.Limits(max_connections=None, max_keepalive_connections=20, keepalive_expiry=2.0),
            trust_env=False,
        )

    @classmethod
    def of(cls, settings: Settings) -> "Services":
        return cls(settings.infer_urls, settings.home, settings.infer_token)

    @property
    def pending(self) -> int:
        return sum(service.asked for service in self._services)

    def stats(self) -> EngineStats:
        """As app.live.inference has it."""
        now, cache = time.monotonic(), self._cache
        away = sum(service.away_until > now for service in self._services)
        there = away < len(self._services)
        return EngineStats(
            there, self.pending, cache.hits, cache.misses, cache.nbytes, services=len(self._services), away=away
        )

    async def read(
        self, targets: Sequence[Target], text: str, *, chat: bool = False, predict: bool = False
    ) -> PromptRun:
        """As app.live.inference has it."""
        key = (targets[0].model, text, chat)
        known, missing, ask = self._cache.lacks(key, targets, predict)
        self._cache.count(hit=known is not None)
        if known is not None:
            return known
        body = wire.written(wire.ReadAsk(self._places(missing), text, chat, ask))
        refusals: dict[_Service, SaescopeError] = {}
        while True:
            service = self._choose(refusals)
            try:
                with service.working():
                    return self._cache.add(key, await self._read(service, body, {t.revision for t in missing}))
            except _ELSEWHERE as error:
                refusals[service] = _noted(service, error)

    def known(
        self, targets: Sequence[Target], text: str, *, chat: bool = False, predict: bool = False
    ) -> PromptRun | None:
        """As app.live.inference has it."""
        found = self._cache.lacks((targets[0].model, text, chat), targets, predict)[0]
        if found is not None:
            self._cache.count(hit=True)
        return found

    def expecting(self) -> AbstractContextManager[None]:
        """The services wait as they see fit."""
        return nullcontext()

    async def run(self, targets: Sequence[Target], job: Job[A]) -> AsyncGenerator[A, None]:
        """As app.live.inference has it."""
        body = wire.written(wire.RunAsk(self._places(targets), job))  # type: ignore[arg-type]
        refusals: dict[_Service, SaescopeError] = {}
        while True:
            service, begun = self._choose(refusals), False
            try:
                with service.working():
                    async with aclosing(self._answers(service, body, job)) as answers:
                        async for answer in answers:
                            begun = True
                            yield answer
                return
            except _ELSEWHERE as error:
                refusals[service] = _noted(service, error)
                if begun:
                    raise refusals[service] from None

    async def warm(self, target: Target) -> None:
        """Every service; those that are away or full are left out."""
        body = wire.written(wire.ReadAsk(self._places([target]), "warm", False, False))

        async def one(service: _Service) -> None:
            try:
                with service.working():
                    await self._read(service, body, {target.revision})
            except _ELSEWHERE as error:
                _noted(service, error)

        await asyncio.gather(*map(one, self._services))

    async def embed(self, texts: Sequence[str]) -> Embedded:
        """As app.live.inference has it."""
        check_texts(texts)
        if (known := self._embedded.get(texts)) is not None:
            return known
        body = wire.written(wire.EmbedAsk(list(texts)))
        refusals: dict[_Service, SaescopeError] = {}
        while True:
            service = self._choose(refusals)
            try:
                with service.working():
                    found = await self._embed(service, body, len(texts))
            except _ELSEWHERE as error:
                refusals[service] = _noted(service, error)
            else:
                self._embedded.add(texts, found)
                return found

    async def close(self) -> None:
        if not self._closing.done():
            self._closing.set_result(None)
        await self._http.aclose()

    @property
    def _closing(self) -> "asyncio.Future[None]":
        if self._closed is None:
            self._closed = asyncio.get_running_loop().create_future()
        return self._closed

    def _places(self, targets: Sequence[Target]) -> list[wire.Place]:
        return [wire.place(target, self._home) for target in targets]

    def _choose(self, refusals: dict[_Service, SaescopeError]) -> _Service:
        """
        Raises:
            EngineBusy: those that are there are full. EngineUnavailable: none is there. EngineStopped: we stop.
        """
        if self._closing.done():
            raise _Closing
        left = [service for service in self._services if service not in refusals]
        if left:
            now = time.monotonic()
            return min(left, key=lambda service: (service.away_until > now, service.asked))
        busy = [error for error in refusals.values() if isinstance(error, EngineBusy)]
        if busy:
            raise min(busy, key=lambda error: float(error.detail.get("retry_after", 1)))
        raise next(iter(refusals.values()))

    def _others(self, service: _Service) -> bool:
        """Whether another one is there, as far as is known."""
        now = time.monotonic()
        return any(other is not service and other.away_until <= now for other in self._services)

    async def _read(self, service: _Service, body: bytes, revisions: Collection[str]) -> PromptRun:
        try:
            async with aclosing(self._answer(service, "/read", body)) as answers:
                answer = await anext(answers)
                run = wire.run_read(await self._patiently(service, answer.aread()))
            return _with(run, revisions)
        except _UNREADABLE as error:
            raise _Gone(f"its answer cannot be read ({type(error).__name__})") from error

    async def _embed(self, service: _Service, body: bytes, texts: int) -> Embedded:
        try:
            async with aclosing(self._answer(service, "/embed", body)) as answers:
                answer = await anext(answers)
                found = wire.embedded_read(json.loads(await self._patiently(service, answer.aread())))
            if found.vectors.ndim != 2 or len(found.vectors) != texts:
                raise ValueError("vectors")
        except _UNREADABLE as error:
            raise _Gone(f"its answer cannot be read ({type(error).__name__})") from error
        return found

    async def _answers(self, service: _Service, body: bytes, job: Job[A]) -> AsyncGenerator[A, None]:
        async with aclosing(self._answer(service, "/run", body)) as answers:
            lines = (await anext(answers)).aiter_lines()
            while True:
                try:
                    told = json.loads(await self._patiently(service, anext(lines)))
                    if "error" in told:
                        raise wire.error_read(told["error"])
                    if "done" in told:
                        return
                    answer = wire.answer_read(job, told["answer"])
                except (StopAsyncIteration, *_UNREADABLE) as error:
                    raise _Gone(f"its answer broke off ({type(error).__name__})") from error
                yield answer

    async def _answer(self, service: _Service, path: str, body: bytes) -> AsyncGenerator[httpx2.Response, None]:
        """One answer of status 200, its body still to be read.

        Raises:
            _Gone: there is none. SaescopeError: the service refuses.
        """
        headers = {"content-type": "application/json", "x-request-id": request_id.get()}
        with tracing.asking(f"POST {path}", headers, **{"server.address": service.url}):
            request = self._http.build_request("POST", service.url + path, content=body, headers=headers)
            try:
                answer = await self._patiently(service, self._http.send(request, stream=True))
            except httpx2.TransportError as error:
                raise _Gone(f"it cannot be reached ({type(error).__name__})") from error
            try:
                if answer.status_code != 200:
                    try:
                        raise wire.error_read(json.loads(await answer.aread()))
                    except _UNREADABLE:
                        told = f"it answers {answer.status_code}, and not as an inference service does"
                        raise _Gone(told) from None
                yield answer
            finally:
                await answer.aclose()

    async def _patiently(self, service: _Service, work: Awaitable[T]) -> T:
        """What ``work`` gives, however long it takes, as long as the service answers at all.

        Raises:
            _Gone: it does not. EngineStopped: we stop.
        """
        task: asyncio.Future[T] = asyncio.ensure_future(work)
        either: set[asyncio.Future[Any]] = {task, self._closing}
        closed = math.inf  # since when it takes no connections
        try:
            while not (await asyncio.wait(either, timeout=PATIENCE_S, return_when=asyncio.FIRST_COMPLETED))[0]:
                try:
                    patience = THERE_S if self._others(service) else ALONE_S
                    await self._http.get(service.url + "/healthz", timeout=patience)
                    closed = math.inf
                except httpx2.TimeoutException:
                    raise _Gone("it has stopped answering") from None
                except httpx2.TransportError:  # it drains; had it been killed, ``work`` would have ended
                    closed = min(closed, time.monotonic())
                    if time.monotonic() - closed > DRAINS_S:
                        raise _Gone("it takes no connections any more") from None
            if not task.done():
                raise _Closing
            return await task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def _with(run: PromptRun, revisions: Collection[str]) -> PromptRun:
    """
    Raises:
        KeyError: a reading is missing.
    """
    for revision in revisions:
        run.readings[revision]
    return run


def _noted(service: _Service, error: Exception) -> SaescopeError:
    """What its reader is told if no other service answers. Addresses are for the log alone."""
    if isinstance(error, EngineBusy | _Closing):
        return error
    now = time.monotonic()
    if service.away_until < now:
        _log.warning("the inference service at %s: %s", httpx2.URL(service.url).copy_with(userinfo=b""), error)
    service.away_until = now + AWAY_S
    if isinstance(error, EngineStopped):
        return error
    if isinstance(error, TokenWrong):
        return EngineUnavailable(
            "The inference service does not take this server's token; SAESCOPE_INFER_TOKEN must be the same on both."
        )
    return EngineUnavailable(
        "The inference service does not answer, so nothing can be read anew; kept runs and all other pages work. "
        "Try again in a moment.",
        retry_after=math.ceil(AWAY_S),
    )
