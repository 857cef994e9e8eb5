"""What every request shares: settings, the database, the engine, the queue, vocabularies and scales."""

import asyncio
from collections import OrderedDict
from collections.abc import Coroutine
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import aggregate_order_by
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.errors import UnknownSAE
from app.jobs import Jobs
from app.live.inference import Inference
from app.live.prompt import Target
from app.live.ranking import Scale
from app.settings import Settings
from app.store import tables as t
from app.store.credentials import Known
from app.store.queries import LatentSummary, SAERecord, get_sae, get_summaries_of
from app.subject.tokens import Vocabulary
from app.subject.vocabulary import vocabulary_beside, vocabulary_here
from app.web.attempts import Attempts
from app.web.gathered import Gathered
from app.web.known_latents import KnownLatents
from app.web.limits import Limits
from app.web.listings import Listings, Shares
from app.web.matches import Matches
from app.web.memory import Memory
from app.web.scores import Scores
from app.web.traffic import Traffic

if TYPE_CHECKING:
    from app.web.provider import Provider  # what it needs is loaded where there is one

T = TypeVar("T")


@dataclass
class State:
    settings: Settings
    database: AsyncEngine
    engine: Inference
    jobs: Jobs
    hardware: str
    limits: Limits
    traffic: Traffic
    searches: Limits
    known: Memory[Known | None] = field(default_factory=Memory)  # whom sessions and tokens stand for
    shares: Memory[tuple[str, datetime, int] | None] = field(default_factory=Memory)
    hashing: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(2))  # 64 MiB and a core each
    attempts: Attempts = field(default_factory=Attempts)
    provider: "Provider | None" = None  # as soon as somebody signs in by it
    stopping: bool = False  # told to stop: what is under way goes on for a while
    scores: Scores = field(default_factory=Scores)
    asked_for: OrderedDict[tuple[str, ...], list[SAERecord]] = field(default_factory=OrderedDict)  # by their names
    last_saes: dict[str, SAERecord] = field(default_factory=dict)  # what each address stood for the last time
    matches: Matches = field(default_factory=Matches)
    listings: Listings = field(default_factory=Listings)
    exports: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(4))  # each holds a connection
    tasks: set[asyncio.Task[Any]] = field(default_factory=set)  # begun by a page, which does not wait for them
    _vocabularies: dict[str, Vocabulary] = field(default_factory=dict)
    _scales: dict[int, Scale] = field(default_factory=dict)

    @cached_property
    def reads(self) -> AsyncEngine:
        """For what needs no snapshot: a statement is all that goes over the wire, without BEGIN and ROLLBACK."""
        return self.database.execution_options(isolation_level="AUTOCOMMIT")

    @cached_property
    def latents(self) -> KnownLatents:
        """Summaries of latents by (SAE's id, index)."""

        async def fetch(latents: list[tuple[int, int]]) -> dict[tuple[int, int], LatentSummary]:
            async with self.reads.connect() as db:
                return await get_summaries_of(db, latents)

        return KnownLatents(Gathered(fetch).get)

    @cached_property
    def saes(self) -> Gathered[str, SAERecord | UnknownSAE]:
        """SAEs by slug or slug@revision; of one that is not here, what there is to say."""

        async def fetch(addresses: list[str]) -> dict[str, SAERecord | UnknownSAE]:
            found: dict[str, SAERecord | UnknownSAE] = {}
            async with self.reads.connect() as db:
                for address in addresses:
                    try:
                        found[address] = await get_sae(db, address)
                    except UnknownSAE as error:
                        found[address] = error
            return found

        return Gathered(fetch)

    @cached_property
    def token_shares(self) -> Shares:
        """Which tokens latents fire on, by SAE."""
        return Shares(self.reads, self.later)

    async def stop(self) -> None:
        """The server was told to stop: its job is interrupted at once, prompts may go on for a while; whoever waits
        for the model then is told so, streams by a last event."""
        self.stopping = True
        self.jobs.interrupt()
        await asyncio.sleep(self.settings.drain_seconds)
        await self.engine.close()

    def later(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Do ``work``, whether or not anybody waits for it."""
        task = asyncio.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    async def vocabulary(self, sae: SAERecord) -> Vocabulary:
        if sae.subject_path not in self._vocabularies:
            home, path = self.settings.home, self.settings.home / sae.subject_path
            beside = partial(vocabulary_beside, memory=home / "vocabularies")
            load = beside if self.settings.infer_urls else vocabulary_here
            self._vocabularies[sae.subject_path] = await asyncio.to_thread(load, path)
        return self._vocabularies[sae.subject_path]

    async def scale(self, connection: AsyncConnection | None, sae: SAERecord) -> Scale:
        """Every latent's max|a| and density, read once a revision; None: over a connection of its own, if at all.

        Raises:
            UnknownSAE: it went meanwhile.
        """
        if sae.id not in self._scales:
            if connection is None:
                async with self.reads.connect() as own:
                    return await self.scale(own, sae)
            c = t.latent.c
            query = select(c.maximum, c.minimum, c.density).where(c.sae_id == sae.id).order_by(c.index)
            rows = np.array([tuple(row) for row in await connection.execute(query)], dtype=np.float32)
            if not len(rows):
                raise UnknownSAE(f"{sae.slug} was replaced or removed meanwhile; ask again.", sae=sae.slug)
            self._scales[sae.id] = Scale(np.maximum(rows[:, 0], -rows[:, 1]), rows[:, 2])
        return self._scales[sae.id]

    async def scales(self, connection: AsyncConnection, saes: list[SAERecord]) -> None:
        """Read the scales of all ``saes`` that are not known, in one query."""
        if missing := [sae.id for sae in saes if sae.id not in self._scales]:
            c = t.latent.c
            columns = (c.maximum, c.minimum, c.density)
            gathered = [func.array_agg(aggregate_order_by(column, c.index)) for column in columns]
            query = select(c.sae_id, *gathered).where(c.sae_id.in_(missing)).group_by(c.sae_id)
            for number, *arrays in await connection.execute(query):
                high, low, density = (np.array(array, dtype=np.float32) for array in arrays)
                self._scales[number] = Scale(np.maximum(high, -low), density)


def target(sae: SAERecord, home: Path) -> Target:
    """Paths inside the home are stored relative to it, so that a home can be moved."""
    return Target(sae.revision, sae.subject, home / sae.subject_path, home / sae.path, sae.subject_sha256, sae.sha256)
