"""Requests to language models in the database, so that none is paid for twice.

A request's key is a hash of all that decides its answer. Its row stays locked while it is under way, so that nobody
else sends it, and the lock goes with a killed process. What a sending may cost is written before it is sent and what
came back before it is looked at.
"""

import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.explain.budget import Budget
from app.explain.pacing import Clock
from app.explain.prices import Usage
from app.store import tables as t
from app.store.plain import plain, storable

POLL_SECONDS = 1.0


@dataclass(frozen=True)
class Asked:
    """All that a request is. ``version``: of the prompt's wording and the reading of its answer."""

    base_url: str
    model: str
    params: dict[str, Any]
    messages: list[dict[str, str]]
    version: int
    purpose: str
    sae_id: int | None = None
    latent: int | None = None

    @property
    def key(self) -> str:
        """SHA-256 of base_url, model, params, messages and prompt version as canonical JSON."""
        parts = [self.base_url.rstrip("/"), self.model, self.params, self.messages, self.version]
        return hashlib.sha256(json.dumps(parts, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


@dataclass(frozen=True)
class Attempt:
    """One sending: ``worst`` USD are set aside for it."""

    id: int
    worst: float


class Claim:
    """A request that nobody else sends meanwhile; ``response`` is its answer, as the endpoint sent it, where there is
    one already."""

    def __init__(self, ledger: "Ledger", connection: AsyncConnection, number: int, response: str | None) -> None:
        self._ledger, self._connection = ledger, connection
        self.id, self.response = number, response
        self._attempts = 0

    async def sending(self, worst: float) -> Attempt:
        """Set ``worst`` USD aside, and write so.

        Raises:
            BudgetSpent: they are not there.
        """
        await self._ledger.budget.reserve(worst)
        self._attempts += 1
        a = t.llm_attempt
        query = insert(a).values(request_id=self.id, job=self._ledger.job, reserved=worst).returning(a.c.id)
        try:
            async with self._ledger.database.begin() as connection:
                return Attempt((await connection.execute(query)).scalar_one(), worst)
        except BaseException:
            await self._ledger.budget.settle(worst, 0.0)
            raise

    async def failed(self, attempt: Attempt, outcome: str, *, status: int | None = None, paid: bool = False) -> None:
        """Nothing came back that could be kept. ``paid``: it may have been paid for all the same."""
        a = t.llm_attempt.c
        values: dict[str, Any] = {"outcome": outcome} if paid else {"outcome": outcome, "cost": 0.0}
        try:
            async with self._ledger.database.begin() as connection:
                await connection.execute(update(t.llm_attempt).where(a.id == attempt.id).values(**values))
        finally:
            await self._ledger.budget.settle(attempt.worst, attempt.worst if paid else 0.0)
        r = t.llm_request.c
        values = {"attempts": r.attempts + self._attempts, "status": status, "error": outcome, "state": "failed"}
        await self._connection.execute(update(t.llm_request).where(r.id == self.id).values(**values))

    async def answered(
        self, attempt: Attempt, body: str, usage: Usage | None, cost: float | None, source: str, latency: float
    ) -> None:
        """Keep what came back."""
        r, a = t.llm_request.c, t.llm_attempt.c
        values = {
            "response": storable(body), "state": "done", "status": 200, "error": None, "cost": cost,
            "price_source": source, "latency": latency, "answered": func.now(), "attempts": r.attempts + self._attempts,
            "prompt_tokens": usage and usage.prompt, "completion_tokens": usage and usage.completion,
        }  # fmt: skip
        try:
            await self._connection.execute(update(t.llm_request).where(r.id == self.id).values(**values))
            settled = {"outcome": "answered", "cost": cost or 0.0}
            await self._connection.execute(update(t.llm_attempt).where(a.id == attempt.id).values(**settled))
            await self._connection.commit()
        finally:
            await self._ledger.budget.settle(attempt.worst, cost or 0.0)
        self.response = body


class Ledger:
    """The requests of one job. Two processes must not work on one job at once; see app.explain.llm_run."""

    def __init__(self, database: AsyncEngine, job: str, budget: Budget, clock: Clock | None = None) -> None:
        self.database, self.job, self.budget = database, job, budget
        self._clock = clock or Clock()

    @asynccontextmanager
    async def claim(self, asked: Asked) -> AsyncIterator[Claim]:
        """Waits where another process is sending the same."""
        r = t.llm_request.c
        values = {
            "key": asked.key, "sae_id": asked.sae_id, "latent": asked.latent, "purpose": asked.purpose,
            "base_url": asked.base_url, "model": asked.model, "prompt_version": asked.version,
            "request": plain({"params": asked.params, "messages": asked.messages}), "state": "waiting",
        }  # fmt: skip
        async with self.database.begin() as connection:
            await connection.execute(insert(t.llm_request).values(**values).on_conflict_do_nothing())
        mine = select(r.id, r.response).where(r.key == asked.key).with_for_update(skip_locked=True, key_share=True)
        while True:
            async with self.database.connect() as connection:
                row = (await connection.execute(mine)).first()
                if row is not None:
                    try:
                        yield Claim(self, connection, row.id, row.response)
                    finally:
                        await connection.commit()
                    return
            await self._clock.sleep(POLL_SECONDS)


async def spent(database: AsyncEngine, job: str) -> float:
    """USD that ``job`` has spent: what is not known to have cost less counts with all that was set aside."""
    a = t.llm_attempt.c
    query = select(func.coalesce(func.sum(func.coalesce(a.cost, a.reserved)), 0.0)).where(a.job == job)
    async with database.connect() as connection:
        return float((await connection.execute(query)).scalar_one())
