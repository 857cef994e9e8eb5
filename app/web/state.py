"""What every request shares: settings, the database, the engine, the queue, vocabularies and scales."""

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.jobs import Harvests
from app.live.inference import Inference
from app.live.prompt import Target
from app.live.ranking import Scale
from app.settings import Settings
from app.store import tables as t
from app.store.queries import SAERecord
from app.subject.tokens import Vocabulary
from app.subject.vocabulary import vocabulary_beside, vocabulary_here
from app.web.limits import Limits
from app.web.matches import Matches
from app.web.scores import Scores
from app.web.traffic import Traffic


@dataclass
class State:
    settings: Settings
    database: AsyncEngine
    engine: Inference
    harvests: Harvests
    hardware: str
    limits: Limits
    traffic: Traffic
    stopping: bool = False  # told to stop: what is under way goes on for a while
    scores: Scores = field(default_factory=Scores)
    matches: Matches = field(default_factory=Matches)
    exports: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(4))  # each holds a connection
    tasks: set[asyncio.Task[None]] = field(default_factory=set)  # begun by a page, which does not wait for them
    _vocabularies: dict[str, Vocabulary] = field(default_factory=dict)
    _scales: dict[int, Scale] = field(default_factory=dict)

    @cached_property
    def reads(self) -> AsyncEngine:
        """For what needs no snapshot: a statement is all that goes over the wire, without BEGIN and ROLLBACK."""
        return self.database.execution_options(isolation_level="AUTOCOMMIT")

    async def stop(self) -> None:
        """The server was told to stop: its harvest is interrupted at once, prompts may go on for a while; whoever waits
        for the model then is told so, streams by a last event."""
        self.stopping = True
        self.harvests.interrupt()
        await asyncio.sleep(self.settings.drain_seconds)
        await self.engine.close()

    def later(self, work: Coroutine[Any, Any, None]) -> None:
        """Do ``work`` when this page has been answered."""
        task = asyncio.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def vocabulary(self, sae: SAERecord) -> Vocabulary:
        if sae.subject_path not in self._vocabularies:
            home, path = self.settings.home, self.settings.home / sae.subject_path
            beside = partial(vocabulary_beside, memory=home / "vocabularies")
            load = beside if self.settings.infer_urls else vocabulary_here
            self._vocabularies[sae.subject_path] = await asyncio.to_thread(load, path)
        return self._vocabularies[sae.subject_path]

    async def scale(self, connection: AsyncConnection, sae: SAERecord) -> Scale:
        """Every latent's max|a| and density, read once a revision."""
        if sae.id not in self._scales:
            c = t.latent.c
            query = select(c.maximum, c.minimum, c.density).where(c.sae_id == sae.id).order_by(c.index)
            rows = np.array([tuple(row) for row in await connection.execute(query)], dtype=np.float32)
            self._scales[sae.id] = Scale(np.maximum(rows[:, 0], -rows[:, 1]), rows[:, 2])
        return self._scales[sae.id]


def target(sae: SAERecord, home: Path) -> Target:
    """Paths inside the home are stored relative to it, so that a home can be moved."""
    return Target(sae.revision, sae.subject, home / sae.subject_path, home / sae.path, sae.subject_sha256, sae.sha256)
