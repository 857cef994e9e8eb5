"""Writing what language models explained and scored: one transaction a latent."""

import hashlib
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from sqlalchemy import Connection, Engine, delete, select
from sqlalchemy.dialects.postgresql import insert

from app.errors import ExplainRunning, UnknownSAE
from app.store import tables as t
from app.store.engine import explained
from app.store.explanation_bulk import make_partitions
from app.store.labels import relabel
from app.store.locks import sole_right
from app.store.plain import plain
from app.store.score_summaries import summarise


@dataclass(frozen=True)
class ExplanationRow:
    """``status``: ok, or failed, and then there is no text."""

    latent: int
    sign: int
    method: str
    version: int
    model: str
    parameters: dict[str, Any]
    text: str
    label: str
    raw: str | None
    status: str = "ok"


@dataclass(frozen=True)
class SetRow:
    """The windows of a latent that were asked about; columns as in ``example_set``."""

    latent: int
    sign: int
    split: str
    sample: str
    seed: int
    width: int
    sequences: list[int]
    starts: list[int]
    kinds: list[int]
    intervals: list[int]
    peaks: list[int]
    activations: list[float]

    @property
    def hash(self) -> str:
        whole = [self.sequences, self.starts, self.kinds, self.intervals, self.peaks]
        return hashlib.sha256(repr((self.split, self.width, whole)).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class ScoreRow:
    """``columns``: of ``score``; the lists have an element an example of the set."""

    scorer: str
    version: int
    model: str
    columns: dict[str, Any]
    predictions: list[bool | None]
    probabilities: list[float | None] | None
    presented: list[str | None]
    errors: list[str | None] = field(default_factory=list)


def job_lock(engine: Engine, job: str) -> AbstractContextManager[None]:
    """Hold the only right to work on ``job``.

    Raises (when entered):
        ExplainRunning: another process holds it.
    """
    told = "The very same explaining is under way already; wait for it or stop it first."
    return sole_right(engine, f"explain {job}", ExplainRunning(told))


def prepare_partitions(engine: Engine, sae_id: int) -> None:
    """What follows writes into them."""
    with explained(), engine.begin() as connection:
        _known(connection, sae_id)
        make_partitions(connection, sae_id)


def sum_up(engine: Engine, sae_id: int) -> None:
    """Make the SAE's summaries of scores anew."""
    with explained(), engine.begin() as connection:
        summarise(connection, sae_id)


def save_explanation(engine: Engine, sae_id: int, row: ExplanationRow) -> int:
    """In the place of an older one of the same method and model, with its scores. Returns its id; an older one that
    says the same stays with its scores and id."""
    with explained(), engine.begin() as connection:
        _known(connection, sae_id)
        e = t.explanation.c
        same = (
            e.sae_id == sae_id, e.latent == row.latent, e.sign == row.sign, e.method == row.method,
            e.model == row.model,
        )  # fmt: skip
        values = plain(vars(row))
        for older in connection.execute(select(t.explanation).where(*same)).all():
            if all(getattr(older, name) == value for name, value in values.items()):
                return int(older.id)
            _drop(connection, sae_id, older.id)
        query = insert(t.explanation).values(sae_id=sae_id, **values).returning(e.id)
        return int(connection.execute(query).scalar_one())


class Said(NamedTuple):
    """What somebody wrote of a latent."""

    id: int
    latent: int
    sign: int
    text: str


def said_by(connection: Connection, sae_id: int, methods: Sequence[str]) -> list[Said]:
    """Explanations by these methods, in the order they were made."""
    e = t.explanation.c
    query = select(e.id, e.latent, e.sign, e.text).where(e.sae_id == sae_id, e.method.in_(methods), e.status == "ok")
    return [Said(*row) for row in connection.execute(query.order_by(e.id))]


def save_scores(
    engine: Engine, sae_id: int, explanation_id: int, latent: int, of: SetRow, rows: Sequence[ScoreRow]
) -> None:
    """In the place of older ones of the same scorers and model; the latent's label follows."""
    with explained(), engine.begin() as connection:
        _known(connection, sae_id)
        s = t.score.c
        set_id = _set(connection, sae_id, of)
        for row in rows:
            same = (
                s.sae_id == sae_id, s.explanation_id == explanation_id, s.scorer == row.scorer, s.model == row.model,
            )  # fmt: skip
            for older in connection.execute(select(s.id).where(*same)).scalars().all():
                _drop_score(connection, sae_id, older)
            values = {
                "sae_id": sae_id, "explanation_id": explanation_id, "latent": latent, "scorer": row.scorer,
                "version": row.version, "model": row.model, "example_set_id": set_id, **plain(row.columns),
            }  # fmt: skip
            query = insert(t.score).values(values).returning(s.id)  # fn is a column, and a name of SQLAlchemy's
            score_id = connection.execute(query).scalar_one()
            said = {
                "predictions": row.predictions, "probabilities": row.probabilities, "presented": plain(row.presented),
                "errors": row.errors or None,
            }  # fmt: skip
            connection.execute(insert(t.score_example).values(sae_id=sae_id, score_id=score_id, **said))
        relabel(connection, sae_id, [latent])


def _set(connection: Connection, sae_id: int, of: SetRow) -> int:
    c = t.example_set.c
    query = select(c.id).where(
        c.sae_id == sae_id, c.latent == of.latent, c.sign == of.sign, c.split == of.split, c.hash == of.hash
    )
    there = connection.execute(query).scalar()
    if there is None:
        values = {"sae_id": sae_id, "hash": of.hash, **plain(vars(of))}
        there = connection.execute(insert(t.example_set).values(**values).returning(c.id)).scalar_one()
    return int(there)


def _known(connection: Connection, sae_id: int) -> None:
    query = select(t.sae.c.id).where(t.sae.c.id == sae_id).with_for_update(read=True, key_share=True)
    if connection.execute(query).scalar() is None:
        raise UnknownSAE("The SAE was removed while it was explained; nothing of that is kept.", sae=sae_id)


def _drop(connection: Connection, sae_id: int, explanation_id: int) -> None:
    s = t.score.c
    scores = select(s.id).where(s.sae_id == sae_id, s.explanation_id == explanation_id)
    for score in connection.execute(scores).scalars().all():
        _drop_score(connection, sae_id, score)
    for table, column in (
        (t.explanation, "id"),
        (t.explanation_edit, "explanation_id"),
        (t.explanation_vote, "explanation_id"),
    ):
        connection.execute(delete(table).where(table.c.sae_id == sae_id, table.c[column] == explanation_id))


def _drop_score(connection: Connection, sae_id: int, score_id: int) -> None:
    x, s = t.score_example.c, t.score.c
    connection.execute(delete(t.score_example).where(x.sae_id == sae_id, x.score_id == score_id))
    connection.execute(delete(t.score).where(s.sae_id == sae_id, s.id == score_id))
