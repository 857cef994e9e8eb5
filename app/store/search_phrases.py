"""Latents whose stored examples hold a phrase: its token ids, in the corpus's sequences, in the examples cut from
them."""

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.store.queries import ExampleRecord, example_record
from app.store.search import Kept, ids

PLACES, EXAMPLES = 5000, 50_000  # places of the phrase, and examples that hold one, that are looked at


class PhraseHit(NamedTuple):
    """``peaks`` of the ``mentions`` examples that hold the phrase have their peak in it; sign, interval, rank: the
    strongest of those (else of all); position, length: where the phrase stands in its sequence. found: latents;
    places: of the phrase."""

    sae_id: int
    latent: int
    mentions: int
    peaks: int
    sign: int
    interval: int
    rank: int
    position: int
    length: int
    found: int
    places: int
    examples: int


async def with_phrase(
    connection: AsyncConnection, kept: Kept, variants: Sequence[Sequence[int]], after: int, limit: int
) -> list[PhraseHit]:
    """Latents with the phrase in most examples' peaks first, then those with it in most examples. variants: its token
    ids, with and without a space before it, and in other cases; of SAEs of one subject."""
    given = kept.parameters() | {"after": after, "limit": limit, "places": PLACES, "examples": EXAMPLES}
    given |= {f"v{n}": list(variant) for n, variant in enumerate(variants)}
    rows = ", ".join(f"(CAST(:v{n} AS int4[]))" for n in range(len(variants)))
    signs = " AND e.sign = :sign" if kept.sign else ""
    statement = _PHRASE.format(variants=rows, saes=ids(kept.saes), kept=kept.of_feature(), sign=signs)
    return [PhraseHit(*row) for row in await connection.execute(text(statement), given)]


_PHRASE = """
    WITH variant (ids) AS (VALUES {variants}),
    own AS MATERIALIZED (
        SELECT sae_id, corpus_id, CAST(parameters ->> 'width' AS int) AS width FROM harvest WHERE sae_id IN ({saes})
    ),
    place AS MATERIALIZED (
        SELECT s.corpus_id, s.id AS sequence_id, p - 1 AS position, cardinality(v.ids) AS length
        FROM variant v
        JOIN sequence s ON s.token_ids @> v.ids AND s.corpus_id IN (SELECT corpus_id FROM own)
        CROSS JOIN LATERAL unnest(array_positions(s.token_ids, v.ids[1])) p
        WHERE s.token_ids[p : p + cardinality(v.ids) - 1] = v.ids
        LIMIT :places
    ),
    held AS MATERIALIZED (
        SELECT e.sae_id, e.latent, e.sign, e.interval, e.rank, abs(e.activation) AS strength, place.position,
            place.length, e.position BETWEEN place.position AND place.position + place.length - 1 AS peak
        FROM place
        JOIN own USING (corpus_id)
        JOIN example e ON e.sae_id = own.sae_id AND e.sequence_id = place.sequence_id
            AND e.start <= place.position AND place.position + place.length <= e.start + own.width
        JOIN latent l ON l.sae_id = e.sae_id AND l.index = e.latent
        WHERE e.sae_id IN ({saes}) AND e.interval <= 10{sign}{kept}
        LIMIT :examples
    ),
    one AS (  -- an example may hold the phrase more than once
        SELECT DISTINCT ON (sae_id, latent, sign, interval, rank) * FROM held
        ORDER BY sae_id, latent, sign, interval, rank, peak DESC, position
    ),
    counted AS (
        SELECT sae_id, latent, count(*) AS mentions, count(*) FILTER (WHERE peak) AS peaks FROM one GROUP BY 1, 2
    ),
    best AS (
        SELECT DISTINCT ON (sae_id, latent) * FROM one
        ORDER BY sae_id, latent, peak DESC, strength DESC, sign DESC, interval DESC, rank
    )
    SELECT sae_id, latent, mentions, peaks, sign, interval, rank, position, length, count(*) OVER () AS found,
        (SELECT count(*) FROM place) AS places, (SELECT count(*) FROM held) AS examples
    FROM counted JOIN best USING (sae_id, latent)
    ORDER BY peaks DESC, mentions DESC, strength DESC, sae_id, latent OFFSET :after LIMIT :limit
"""


async def get_lines(connection: AsyncConnection, hits: Sequence[PhraseHit]) -> dict[tuple[int, int], ExampleRecord]:
    """The example each hit names, in one query."""
    if not hits:
        return {}
    names = ("sae_id", "latent", "sign", "interval", "rank")
    given = {name: [getattr(hit, name) for hit in hits] for name in names}
    rows = await connection.execute(text(_LINES.format(saes=ids({hit.sae_id for hit in hits}))), given)
    return {(row.sae_id, row.latent): example_record(row) for row in rows}


_LINES = """
    SELECT e.sign, e.interval, e.rank, e.sequence_id, e.position, e.start, e.activation, e.offsets, e.shares,
        s.token_ids[e.start + 1 : e.start + CAST(h.parameters ->> 'width' AS int)] AS token_ids, s.document,
        e.sae_id, e.latent
    FROM unnest(CAST(:sae_id AS int4[]), CAST(:latent AS int4[]), CAST(:sign AS int2[]), CAST(:interval AS int2[]),
        CAST(:rank AS int2[])) AS a (sae_id, latent, sign, interval, rank)
    JOIN example e ON e.sae_id = a.sae_id AND e.latent = a.latent AND e.sign = a.sign AND e.interval = a.interval
        AND e.rank = a.rank AND e.sae_id IN ({saes})
    JOIN harvest h ON h.sae_id = e.sae_id
    JOIN sequence s ON s.corpus_id = h.corpus_id AND s.id = e.sequence_id
"""
