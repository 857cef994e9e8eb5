"""What search shows of the latents it found, and those found by tokens or by any other list of latents."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.store.search import LOOSE, MARKS, STRICT, Kept, Key, ids

TOKENS = 5000  # latents with a token that are ranked


class Reason(NamedTuple):
    """An explanation, or a label (method None), that matched; words that did stand between MARKS."""

    text: str
    method: str | None
    model: str | None
    author: str | None


class HitRecord(NamedTuple):
    """word: what holds the words asked for; meaning: what is near in meaning, where that is something else."""

    key: Key
    label: str
    label_source: str
    label_score: float | None
    density: float
    maximum: float
    minimum: float
    word: Reason | None
    meaning: Reason | None


class Wanted(NamedTuple):
    """A latent and by which explanations it was found; worded: by words, be it of an explanation or of its label."""

    key: Key
    worded: bool = False
    word_id: int | None = None
    meaning_id: int | None = None


class TokenHit(NamedTuple):
    """In which of a latent's lists the token is; found: how many latents have it, at most TOKENS of each subject."""

    sae_id: int
    latent: int
    surely: bool
    strongly: bool
    promotes: bool
    found: int


_OPTIONS = f"'StartSel={MARKS[0]}, StopSel={MARKS[1]}, HighlightAll=true'"
_HITS = """
    SELECT l.sae_id, l.index AS latent, l.label, l.label_source, l.label_score, l.density, l.maximum, l.minimum,
        CASE WHEN a.worded THEN
            ts_headline('english', translate(coalesce(w.text, l.label), '{marks}', ''), {query}, {options})
        END AS word_text, w.method AS word_method, w.model AS word_model, w.author AS word_author,
        m.text AS meaning_text, m.method AS meaning_method, m.model AS meaning_model, m.author AS meaning_author
    FROM unnest(CAST(:saes AS int4[]), CAST(:indices AS int4[]), CAST(:worded AS bool[]), CAST(:words AS int8[]),
        CAST(:meanings AS int8[])) AS a (sae_id, latent, worded, word_id, meaning_id)
    JOIN latent l ON l.sae_id = a.sae_id AND l.index = a.latent
    LEFT JOIN explanation w ON w.sae_id = a.sae_id AND w.id = a.word_id
    LEFT JOIN explanation m ON m.sae_id = a.sae_id AND m.id = a.meaning_id
"""


async def get_hits(
    connection: AsyncConnection, wanted: Sequence[Wanted], asked: str = "", *, loose: bool = False
) -> dict[Key, HitRecord]:
    """What there is to show of each, in one query."""
    if not wanted:
        return {}
    statement = _HITS.format(marks="".join(MARKS), query=LOOSE if loose else STRICT, options=_OPTIONS)
    rows = await connection.execute(
        text(statement),
        {
            "asked": asked,
            "saes": [one.key[0] for one in wanted],
            "indices": [one.key[1] for one in wanted],
            "worded": [one.worded for one in wanted],
            "words": [one.word_id for one in wanted],
            "meanings": [one.meaning_id if one.meaning_id != one.word_id else None for one in wanted],
        },
    )
    return {(row.sae_id, row.latent): _record(row) for row in rows}


def _record(row: Any) -> HitRecord:
    word = meaning = None
    if row.word_text is not None:
        word = Reason(row.word_text, row.word_method, row.word_model, row.word_author)
    if row.meaning_text is not None:
        meaning = Reason(row.meaning_text, row.meaning_method, row.meaning_model, row.meaning_author)
    return HitRecord(
        (row.sae_id, row.latent), row.label, row.label_source, row.label_score, row.density, row.maximum, row.minimum,
        word, meaning,
    )  # fmt: skip


async def with_tokens(
    connection: AsyncConnection,
    kept: Kept,
    meant: Sequence[tuple[Sequence[int], Sequence[int]]],
    after: int,
    limit: int,
) -> list[TokenHit]:
    """Latents that fire on a token or promote it, those in whose lists it stands foremost first. meant: (SAEs' ids,
    token ids) of each subject."""
    parts, given = [], kept.parameters() | {"after": after, "limit": limit, "most": TOKENS}
    for number, (saes, token_ids) in enumerate(meant):
        given[f"tokens{number}"] = list(token_ids)
        parts.append(_TOKENS.format(saes=ids(saes), n=number, kept=kept.of_feature()))
    statement = (
        "SELECT sae_id, latent, surely, strongly, promotes, count(*) OVER () AS found"
        f" FROM ({' UNION ALL '.join(parts)}) found ORDER BY place, density, sae_id, latent OFFSET :after LIMIT :limit"
    )
    return [TokenHit(*row) for row in await connection.execute(text(statement), given)]


_TOKENS = """
    (SELECT l.sae_id, l.index AS latent, l.density, coalesce(l.token_probability_ids && t.ids, false) AS surely,
        coalesce(l.token_mean_ids && t.ids, false) AS strongly, l.promoted_ids && t.ids AS promotes,
        (SELECT min(least(array_position(l.token_probability_ids, i), array_position(l.token_mean_ids, i),
            5 + array_position(l.promoted_ids, i))) FROM unnest(t.ids) i) AS place
    FROM latent l, (SELECT CAST(:tokens{n} AS int4[]) AS ids) t
    WHERE l.sae_id IN ({saes})
        AND (l.token_probability_ids || l.token_mean_ids || l.promoted_ids) && CAST(:tokens{n} AS int4[]){kept}
    LIMIT :most)
"""


async def kept_latents(
    connection: AsyncConnection, kept: Kept, among: Sequence[int] | None = None
) -> dict[int, list[int]]:
    """Indices of the latents that the filters keep, of all or of those ``among``, by SAE."""
    chosen = "" if among is None else " AND l.index = ANY(CAST(:among AS int4[]))"
    statement = (
        f"SELECT l.sae_id, array_agg(l.index) FROM latent l WHERE l.sae_id IN ({ids(kept.saes)}){kept.of_feature()}"
        f"{chosen} GROUP BY l.sae_id"
    )
    given = kept.parameters() | ({} if among is None else {"among": list(among)})
    rows = await connection.execute(text(statement), given)
    return {row[0]: row[1] for row in rows}
