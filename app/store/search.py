"""Explanations and labels by words and by meaning, within filters, as two ranked lists that are merged; and that with
a third one where it is given, of latents that fire on what the subject lists (app.live.listed_scores).

Words are PostgreSQL's full text, of explanations and of labels that no explanation gave, over at most ``WORDS`` of the
matches. Meaning is the cosine of embeddings: exact over
what filters keep where that is little, else by HNSW, which goes on until the filters have kept enough.
Lists are merged by reciprocal rank fusion (Cormack, Clarke & Büttcher 2009): 1 / (60 + rank) added up.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from math import isqrt
from typing import Any, NamedTuple

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.store.browse import Range, single

WORDS = 1500  # matches of a word that are looked at, each a row somewhere on the disk
DEPTH = 200  # of each list, that are merged
LEAST = 1000  # so few that the filters keep are always all compared
EF_SEARCH = 100
RRF = 60
MARKS = "\ue000", "\ue001"  # around a matched word; of the private use area, so in no text that is kept here
Key = tuple[int, int]  # an SAE's id, a latent's index


@dataclass(frozen=True)
class Kept:
    """Which hits to keep: of these SAEs, and all that else is given. sign: of what the explanation is of, or of the
    activations; score: of the latent's label; size: latents of the SAEs."""

    saes: tuple[int, ...]
    method: str | None = None
    sign: int | None = None
    density: Range = field(default_factory=Range)
    score: Range = field(default_factory=Range)
    size: int = 0

    def __bool__(self) -> bool:
        """Whether it keeps less than all of the SAEs."""
        return bool(self.method or self.sign or self.density or self.score)

    def parameters(self) -> dict[str, Any]:
        found: dict[str, Any] = {"method": self.method, "sign": self.sign}
        for name, span in (("density", self.density), ("score", self.score)):
            found[f"{name}_low"] = None if span.low is None else single(span.low)
            found[f"{name}_high"] = None if span.high is None else single(span.high)
        return {name: value for name, value in found.items() if value is not None}

    def of_latent(self) -> str:
        """Conditions on ``latent l``, as " AND ..."."""
        found = ""
        for name, column, span in (("density", "l.density", self.density), ("score", "l.label_score", self.score)):
            found += f" AND {column} >= :{name}_low" if span.low is not None else ""
            found += f" AND {column} <= :{name}_high" if span.high is not None else ""
        return found

    def of_explanation(self) -> str:
        """Conditions on ``explanation e``."""
        return " AND e.method = :method" * bool(self.method) + " AND e.sign = :sign" * bool(self.sign)

    def of_label(self) -> str:
        """Conditions on ``latent l`` where it is found by what it is called."""
        signs = {1: " AND l.maximum > 0", -1: " AND l.minimum < 0", None: ""}
        return self.of_latent() + " AND l.label_source = :method" * bool(self.method) + signs[self.sign]

    def of_feature(self) -> str:
        """Conditions on ``latent l`` where it is found otherwise; of the method it must have an explanation."""
        explained = (
            " AND (l.label_source = :method OR EXISTS (SELECT FROM explanation x WHERE x.sae_id = l.sae_id"
            " AND x.latent = l.index AND x.method = :method AND x.status = 'ok'))"
        )
        signs = {1: " AND l.maximum > 0", -1: " AND l.minimum < 0", None: ""}
        return self.of_latent() + explained * bool(self.method) + signs[self.sign]


def few_of(kept: Kept) -> int:
    """How many explanations are all compared. HNSW passes DEPTH * size / n of them to find DEPTH of the n that the
    filters keep, so it is worth it where n is greater than that."""
    return max(LEAST, isqrt(DEPTH * kept.size))


class Found(NamedTuple):
    """A latent that was found: where it stands in each list (from 0; None where it does not), by which explanation
    (None: by its label), and the cosine."""

    key: Key
    by_word: int | None
    word_id: int | None
    by_meaning: int | None
    meaning_id: int | None
    cosine: float | None
    merged: float  # the sum of 1 / (60 + rank)
    by_list: int | None = None


class Both(NamedTuple):
    """words: how many latents hold the words, exactly unless ``more``; exact: whether the meaning was compared with
    every explanation that the filters keep."""

    found: list[Found]
    words: int
    more: bool
    exact: bool


def ids(saes: Collection[int]) -> str:
    """As literals, so that the planner leaves other partitions out."""
    return ", ".join(str(int(one)) for one in saes) or "-1"


async def both(
    connection: AsyncConnection,
    kept: Kept,
    asked: str,
    vector: str | None,
    embedded: Sequence[int],
    *,
    loose: bool,
    listed: Sequence[Key] = (),
) -> Both:
    """Latents whose explanations or labels hold the words of ``asked``, those nearest to ``vector`` (as pgvector writes
    one) among the SAEs ``embedded``, and those ``listed``, the best first. loose: any of the words is enough."""
    near = tuple(one for one in kept.saes if one in set(embedded)) if vector is not None else ()
    few = await _prepare(connection, kept)
    query = _SELECTIVE if few else _BROAD
    statement = query.format(
        saes=ids(kept.saes), near=ids(near), query=LOOSE if loose else STRICT, latent=kept.of_latent(),
        explanation=kept.of_explanation(), label=kept.of_label(),
        join="JOIN latent l ON l.sae_id = e.sae_id AND l.index = e.latent" if kept.of_latent() else "",
    )  # fmt: skip
    given = kept.parameters() | {"asked": asked, "bound": WORDS, "depth": DEPTH, "few": few_of(kept)}
    given["vector"] = vector if near else None
    rows = list(await connection.execute(text(statement), given))
    held, more = (rows[0].held, rows[0].more) if rows else (0, False)
    rows.sort(key=lambda r: (-r.value if r.kind == "word" else r.value, r.sae_id, r.latent, r.id or 0))
    words = [((r.sae_id, r.latent), r.id) for r in rows if r.kind == "word"]
    meaning = [((r.sae_id, r.latent), r.id, 1 - r.value) for r in rows if r.kind == "near"]
    return Both(with_listed(merge(words, meaning), listed), held, more, few or not near)


def merge(words: Sequence[tuple[Key, int | None]], meaning: Sequence[tuple[Key, int, float]]) -> list[Found]:
    """Both lists, the best first, as one without repeats. A latent stands where its best explanation does; of equal
    ones the nearer is first."""
    by_word: dict[Key, tuple[int, int | None]] = {}
    for key, one in words:
        rank, known = by_word.setdefault(key, (len(by_word), one))
        if known is None and one is not None:  # the explanation says more than the label made from it
            by_word[key] = (rank, one)
    by_meaning: dict[Key, tuple[int, int, float]] = {}
    for key, number, near_by in meaning:
        by_meaning.setdefault(key, (len(by_meaning), number, near_by))
    found = []
    for key in by_word.keys() | by_meaning.keys():
        w, w_id = by_word.get(key, (None, None))
        near = by_meaning.get(key)
        m, m_id, cosine = near or (None, None, None)
        merged = sum(1 / (RRF + 1 + rank) for rank in (w, m) if rank is not None)
        found.append(Found(key, w, w_id, m, m_id, cosine, merged))
    return sorted(found, key=lambda one: (-one.merged, -(one.cosine or -1.0), one.key))


def with_listed(told: Sequence[Found], listed: Sequence[Key]) -> list[Found]:
    """What texts say and what latents fire on, each the best first, merged alike; of equal ones what texts say is
    first. Words and meaning have one vote together: each with its own outvoted the third list."""
    places = {key: rank for rank, key in enumerate(listed)}
    if not places:
        return list(told)
    found = []
    for rank, one in enumerate(told):
        place = places.pop(one.key, None)
        merged = 1 / (RRF + 1 + rank) + (0 if place is None else 1 / (RRF + 1 + place))
        found.append(one._replace(merged=merged, by_list=place))
    found += [Found(key, None, None, None, None, None, 1 / (RRF + 1 + place), place) for key, place in places.items()]
    return sorted(found, key=lambda one: -one.merged)


async def _prepare(connection: AsyncConnection, kept: Kept) -> bool:
    """Settings for this transaction; whether the filters keep so few explanations that all can be compared."""
    join = "JOIN latent l ON l.sae_id = e.sae_id AND l.index = e.latent" if kept.of_latent() else ""
    some = (
        f"SELECT FROM explanation e {join} WHERE e.sae_id IN ({ids(kept.saes)})"
        f" AND e.status = 'ok'{kept.of_explanation()}{kept.of_latent()} LIMIT :most"
    )
    count = f"(SELECT count(*) FROM ({some}) kept)" if kept else ":most"
    query = (
        "SELECT set_config('hnsw.ef_search', :ef, true), set_config('hnsw.iterative_scan', 'relaxed_order', true),"
        f" set_config('jit', 'off', true), CAST({count} AS int8)"
    )
    found = await connection.execute(text(query), kept.parameters() | {"most": few_of(kept) + 1, "ef": str(EF_SEARCH)})
    return int(found.one()[3]) <= few_of(kept)


STRICT = "websearch_to_tsquery('english', :asked)"
LOOSE = "replace(websearch_to_tsquery('english', :asked)::text, ' & ', ' | ')::tsquery"
_LABELS = """
    named AS MATERIALIZED (
        SELECT l.sae_id, l.index AS latent, NULL::bigint AS id, to_tsvector('english', l.label) AS words
        FROM latent l WHERE l.sae_id IN ({saes}) AND l.explanation_id IS NULL
            AND to_tsvector('english', l.label) @@ {query}{label}
        LIMIT :bound
    ),
"""
_LISTS = """
    word AS MATERIALIZED (
        SELECT sae_id, latent, id, ts_rank_cd(words, {query}, 1) AS value
        FROM (SELECT * FROM told UNION ALL SELECT * FROM named) every_one
    ),
    told_of AS (
        SELECT (SELECT count(*) FROM (SELECT DISTINCT sae_id, latent FROM word) w) AS held,
        (SELECT count(*) FROM told_bound) >= :bound OR (SELECT count(*) FROM named) >= :bound AS more
    )
    (SELECT 'word' AS kind, word.*, held, more FROM word, told_of
     ORDER BY value DESC, sae_id, latent, id LIMIT :depth)
    UNION ALL
    (SELECT 'near' AS kind, near.*, held, more FROM near, told_of)
"""
_BROAD = (
    """
    WITH told_bound AS MATERIALIZED (
        SELECT e.sae_id, e.latent, e.id, e.words FROM explanation e
        WHERE e.sae_id IN ({saes}) AND e.status = 'ok' AND e.words @@ {query}{explanation}
        LIMIT :bound
    ),
    told AS (SELECT e.* FROM told_bound e {join} WHERE true{latent}),
    """
    + _LABELS
    + """
    near AS MATERIALIZED (
        SELECT e.sae_id, e.latent, e.id, e.embedding <=> CAST(:vector AS halfvec) AS value
        FROM explanation e {join}
        WHERE e.sae_id IN ({near}) AND e.status = 'ok' AND e.embedding IS NOT NULL{explanation}{latent}
        ORDER BY e.embedding <=> CAST(:vector AS halfvec) LIMIT :depth
    ),
    """
    + _LISTS
)
_SELECTIVE = (
    """
    WITH kept AS MATERIALIZED (
        SELECT e.sae_id, e.latent, e.id, CASE WHEN e.words @@ {query} THEN e.words END AS words,
            e.embedding <=> CAST(:vector AS halfvec) AS value
        FROM explanation e {join}
        WHERE e.sae_id IN ({saes}) AND e.status = 'ok'{explanation}{latent} LIMIT :few
    ),
    told AS (SELECT sae_id, latent, id, words FROM kept WHERE words IS NOT NULL),
    told_bound AS (SELECT FROM told WHERE false),
    """
    + _LABELS
    + """
    near AS (
        SELECT sae_id, latent, id, value FROM kept WHERE sae_id IN ({near}) AND value IS NOT NULL
        ORDER BY value LIMIT :depth
    ),
    """
    + _LISTS
)
