"""What an SAE's page says of its revisions and of its explanations' scores, in one query."""

from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

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


_OVERVIEW = text(
    """
    SELECT s.revision, c.name, h.tokens, h.finished,
        CASE WHEN s.id = :sae THEN (
            SELECT jsonb_agg(jsonb_build_array(x.method, x.model, x.scorer, x.facts)
                ORDER BY x.method, x.model, x.scorer DESC)
            FROM score_summary x WHERE x.sae_id = s.id
        ) END
    FROM sae s JOIN harvest h ON h.sae_id = s.id JOIN corpus c ON c.id = h.corpus_id
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
    return Overview([RevisionRecord(*row[:4]) for row in rows], summaries)
