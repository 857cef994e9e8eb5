"""Evaluations in the database: each is written once, in a transaction of its own."""

import hashlib
import json
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

from sqlalchemy import Engine, Text, bindparam, or_, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from app.store import tables as t
from app.store.engine import explained
from app.store.plain import plain
from app.store.queries import SAERecord

KEPT = 200  # evaluations that a page shows


@dataclass(frozen=True)
class EvaluationRow:
    """An evaluation about to be written. subject: its hash; None for what was imported."""

    weights: str
    subject: str | None
    group: str
    parameters: dict[str, Any]
    values: dict[str, float | int | None]
    details: dict[str, Any]
    version: str
    corpus: str | None = None
    tokens: int | None = None
    seed: int | None = None
    source: str | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class EvaluationRecord:
    id: int
    group: str
    parameters: dict[str, Any]
    values: dict[str, float | int | None]
    details: dict[str, Any]
    corpus: str | None
    tokens: int | None
    seed: int | None
    source: str | None
    version: str
    seconds: float | None
    made: datetime

    @classmethod
    def of(cls, row: dict[str, Any]) -> "EvaluationRecord":
        """A row as PostgreSQL writes it in JSON."""
        return cls(**row | {"made": datetime.fromisoformat(row["made"])})


def key_of(*decides: Any) -> str:
    """A hash of all that decides an evaluation."""
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()


def there(engine: Engine, keys: list[str]) -> set[str]:
    """Those of ``keys`` that have been written."""
    with explained(), engine.connect() as connection:
        query = select(t.evaluation.c.key).where(t.evaluation.c.key.in_(keys))
        return set(connection.execute(query).scalars())


def save_evaluations(engine: Engine, rows: dict[str, EvaluationRow]) -> set[str]:
    """Write them in one transaction, each by its key, but those that are there; the keys of what was written."""
    values = [
        {"key": key} | {f.name: plain(getattr(row, f.name)) for f in fields(row)} for key, row in rows.items()
    ]  # fmt: skip
    query = insert(t.evaluation).values(values).on_conflict_do_nothing().returning(t.evaluation.c.key)
    with explained(), engine.begin() as connection:
        return set(connection.execute(query).scalars())


_e = t.evaluation.c
_MINE = (
    _e.weights == bindparam("weights"),
    or_(_e.subject.is_(None), _e.subject == bindparam("subject"), bindparam("subject", type_=Text).is_(None)),
)
_OF = select(*[_e[f.name] for f in fields(EvaluationRecord)]).where(*_MINE).order_by(_e.id.desc()).limit(KEPT)


async def list_evaluations(connection: AsyncConnection, sae: SAERecord) -> list[EvaluationRecord]:
    """Those of the SAE's weights with its subject, and imported ones; the newest first."""
    rows = await connection.execute(_OF, {"weights": sae.sha256, "subject": sae.subject_sha256})
    return [EvaluationRecord(*row) for row in rows]
