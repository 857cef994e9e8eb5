"""What an SAE's page says of its revisions, of its explanations' scores and of its evaluations, in one query."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.store.evaluations import EvaluationRecord
from app.store.explanations import SummaryRecord
from app.store.queries import SAERecord


@dataclass(frozen=True)
class RevisionRecord:
    """One harvest of an SAE."""

    revision: str
    corpus: str
    tokens: int
    finished: datetime


class Overview(NamedTuple):
    """revisions: the newest first."""

    revisions: list[RevisionRecord]
    summaries: list[SummaryRecord]
    evaluations: Sequence[EvaluationRecord] = ()


_OVERVIEW = text(
    """
    SELECT s.revision, c.name, h.tokens, h.finished,
        CASE WHEN s.id = :sae THEN (
            SELECT jsonb_agg(jsonb_build_array(x.method, x.model, x.scorer, x.facts)
                ORDER BY x.method, x.model, x.scorer DESC)
            FROM score_summary x WHERE x.sae_id = s.id
        ) END,
        CASE WHEN s.id = :sae THEN (
            SELECT jsonb_agg(to_jsonb(x) ORDER BY x.id DESC)
            FROM (
                SELECT e.id, e.group, e.parameters, e.values, CAST('{}' AS jsonb) AS details, e.corpus, e.tokens,
                    e.seed, e.source, e.version, e.seconds, e.made
                FROM evaluation e
                WHERE e.weights = s.sha256 AND (e.subject IS NULL OR m.sha256 IS NULL OR e.subject = m.sha256)
                ORDER BY e.id DESC LIMIT 200
            ) x
        ) END
    FROM sae s JOIN subject m ON m.id = s.subject_id JOIN harvest h ON h.sae_id = s.id
        JOIN corpus c ON c.id = h.corpus_id
    WHERE s.slug = :slug ORDER BY s.id DESC
    """
)


async def list_revisions(connection: AsyncConnection, slug: str) -> list[RevisionRecord]:
    """Every revision of an SAE, the newest first."""
    rows = await connection.execute(_OVERVIEW, {"sae": 0, "slug": slug})
    return [RevisionRecord(*row[:4]) for row in rows]


async def get_overview(connection: AsyncConnection, sae: SAERecord) -> Overview:
    rows = (await connection.execute(_OVERVIEW, {"sae": sae.id, "slug": sae.slug})).all()
    summaries = [SummaryRecord(*one) for row in rows for one in row[4] or []]
    evaluations = [EvaluationRecord.of(one) for row in rows for one in row[5] or []]
    return Overview([RevisionRecord(*row[:4]) for row in rows], summaries, evaluations)
