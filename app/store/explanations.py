"""Reading explanations, their scores, and the examples a score is of."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Integer, and_, bindparam, func, select, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncConnection

from app.store import tables as t
from app.store.pipeline import Asked, ask
from app.store.queries import SAERecord

LEFT = 3  # tokens before a window that are read with it: as far back as rules look


@dataclass(frozen=True)
class ExplanationRecord:
    """An explanation; ``scores`` are the rows of its scores as they are in the table."""

    id: int
    sign: int
    method: str
    version: int
    model: str | None
    author: str | None
    parameters: dict[str, Any]
    text: str
    label: str
    rule: dict[str, Any] | None
    status: str
    made: datetime
    votes: int
    edits: list[dict[str, Any]]  # text, author and made of what it was before, the newest first
    scores: list[dict[str, Any]]


@dataclass(frozen=True)
class ScoreRecord:
    """A score with its explanation, and what was asked and said; the lists have an element an example."""

    score: dict[str, Any]
    explanation: ExplanationRecord
    sequences: list[int]
    starts: list[int]
    kinds: list[int]
    intervals: list[int]
    peaks: list[int]
    activations: list[float]
    width: int
    predictions: list[bool | None]
    probabilities: list[float] | None
    presented: list[str] | None
    errors: list[str | None] | None


class WindowRecord(NamedTuple):
    """Tokens from LEFT before a window (``left`` of them, if the sequence begins later) to its end."""

    token_ids: list[int]
    left: int
    document: str


class SummaryRecord(NamedTuple):
    method: str
    model: str
    scorer: str
    facts: dict[str, Any]


_EXPLANATIONS = text(
    """
    SELECT e.id, e.sign, e.method, e.version, e.model, e.author, e.parameters, e.text, e.label, e.rule, e.status,
        e.made, coalesce((SELECT sum(v.value) FROM explanation_vote v
            WHERE v.sae_id = e.sae_id AND v.explanation_id = e.id), 0),
        coalesce((SELECT jsonb_agg(to_jsonb(h) ORDER BY h.number DESC) FROM explanation_edit h
            WHERE h.sae_id = e.sae_id AND h.explanation_id = e.id), '[]'),
        coalesce((SELECT jsonb_agg(to_jsonb(s) ORDER BY s.id) FROM score s
            WHERE s.sae_id = e.sae_id AND s.explanation_id = e.id), '[]')
    FROM explanation e WHERE e.sae_id = :sae AND e.latent = :latent AND (:id = 0 OR e.id = :id) ORDER BY e.id
    """
)
_SCORE = text(
    """
    SELECT s.explanation_id, x.sequences, x.starts, x.kinds, x.intervals, x.peaks, x.activations, x.width,
        a.predictions, a.probabilities, a.presented, a.errors
    FROM score s
    JOIN example_set x ON x.sae_id = s.sae_id AND x.id = s.example_set_id
    JOIN score_example a ON a.sae_id = s.sae_id AND a.score_id = s.id
    WHERE s.sae_id = :sae AND s.latent = :latent AND s.id = :score
    """
)
_ASKED = (
    func.unnest(bindparam("sequences", type_=ARRAY(Integer)), bindparam("starts", type_=ARRAY(Integer)))
    .table_valued("sequence", "start", with_ordinality="number")
    .render_derived(name="asked")
)
_s = t.sequence.c
_WINDOWS = (
    select(
        _s.token_ids[func.greatest(_ASKED.c.start - LEFT, 0) + 1 : _ASKED.c.start + bindparam("width", type_=Integer)],
        func.least(_ASKED.c.start, LEFT),
        _s.document,
    )
    .select_from(_ASKED)
    .join(t.sequence, and_(_s.corpus_id == bindparam("corpus", type_=Integer), _s.id == _ASKED.c.sequence))
    .order_by(_ASKED.c.number)
)


async def get_explanations(
    connection: AsyncConnection, sae_id: int, latent: int, one: int = 0
) -> list[ExplanationRecord]:
    """A latent's explanations with their scores, or ``one`` of them, in one query."""
    return await ask(connection, explanations_asked(sae_id, latent, one))


def explanations_asked(sae_id: int, latent: int, one: int = 0) -> Asked[list[ExplanationRecord]]:
    asked = {"sae": sae_id, "latent": latent, "id": one}
    return Asked(_EXPLANATIONS, asked, lambda rows: [ExplanationRecord(*row) for row in rows])


async def get_score(connection: AsyncConnection, sae_id: int, latent: int, score: int) -> ScoreRecord | None:
    """A score that was made on examples, in two queries."""
    row = (await connection.execute(_SCORE, {"sae": sae_id, "latent": latent, "score": score})).first()
    if row is None:
        return None
    (explanation,) = await get_explanations(connection, sae_id, latent, row[0])
    mine = next(one for one in explanation.scores if one["id"] == score)
    return ScoreRecord(mine, explanation, *row[1:])


async def get_windows(connection: AsyncConnection, sae: SAERecord, score: ScoreRecord) -> list[WindowRecord]:
    """The windows of a score's examples, in their order, in one query."""
    given = {"sequences": score.sequences, "starts": score.starts, "width": score.width, "corpus": sae.corpus_id}
    return [WindowRecord(*row) for row in await connection.execute(_WINDOWS, given)]
