"""The feature table: filters that compose, every order paged by its key, and the same rows as a stream."""

import base64
import binascii
import json
import struct
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from sqlalchemy import ColumnElement, Double, Integer, Select, cast, func, literal_column, select, text, tuple_
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncConnection

from app.errors import BadRequest
from app.store import tables as t
from app.store.map_places import OnMap

Sort = Literal["index", "density", "max", "score", "label"]
Sign = Literal["positive", "negative", "both"]
Place = Literal["first", "last"]
SCORE_BINS = 20
CHUNK = 2000  # rows of an export held at a time

_c = t.latent.c
LATENT = _c.index
# Expressions of indexes are literal: where a value is a parameter, a prepared plan cannot match it to the index.
LABEL_KEY: ColumnElement[str] = literal_column('(lower(left(latent.label, 100) COLLATE "C"))')
_TOKENS: ColumnElement[Any] = literal_column(
    "(latent.token_probability_ids || latent.token_mean_ids || latent.promoted_ids)"
)
_PLACES = {  # only with IS TRUE does the planner ask the index how many there are
    place: text(f"(2 * latent.{place}_fired > latent.fired) IS TRUE") for place in ("first", "last")
}
_KEYS: dict[Sort, ColumnElement[Any]] = {
    "index": _c.index, "density": _c.density, "max": _c.maximum, "score": _c.label_score, "label": LABEL_KEY,
}  # fmt: skip


@dataclass(frozen=True)
class Range:
    """Both ends belong to it; None leaves an end open."""

    low: float | None = None
    high: float | None = None

    def __bool__(self) -> bool:
        return self.low is not None or self.high is not None


@dataclass(frozen=True)
class Filters:
    """Which latents to keep; what is None, empty or open keeps all, and all that are given must hold.

    label: text the label holds, whatever its case. A range of scores keeps no latent without a score. place: more than
    half of the firings are on sequences' first (last) positions. tokens: ids of which any is among the tokens the
    latent fires on or promotes. on_map: where on a map.
    """

    label: str | None = None
    source: str | None = None
    density: Range = field(default_factory=Range)
    maximum: Range = field(default_factory=Range)
    score: Range = field(default_factory=Range)
    sign: Sign | None = None
    alive: bool | None = None
    place: Place | None = None
    tokens: tuple[int, ...] = ()
    indices: tuple[int, ...] = ()
    on_map: OnMap | None = None

    def conditions(self) -> list[Any]:
        found: list[Any] = []
        if self.label:
            found.append(_c.label.icontains(self.label, autoescape=True))
        if self.source:
            found.append(_c.label_source == self.source)
        for column, span in ((_c.density, self.density), (_c.maximum, self.maximum), (_c.label_score, self.score)):
            if span.low is not None:
                found.append(column >= single(span.low))
            if span.high is not None:
                found.append(column <= single(span.high))
        match self.sign:
            case "positive":
                found += [_c.maximum > 0, _c.minimum >= 0]
            case "negative":
                found += [_c.maximum <= 0, _c.minimum < 0]
            case "both":
                found += [_c.maximum > 0, _c.minimum < 0]
        if self.alive is not None:
            found.append(_c.density > 0 if self.alive else _c.density == 0)
        if self.place:
            found.append(_PLACES[self.place])
        if self.tokens:
            found.append(_TOKENS.op("&&")(cast(list(self.tokens), ARRAY(Integer))))
        if self.indices:
            found.append(_c.index.in_(self.indices))
        if self.on_map:
            found.append(_c.index.in_(self.on_map.latents()))
        return found


@dataclass(frozen=True)
class BrowseRecord:
    """A row of the feature table. key: the value it is sorted by."""

    index: int
    label: str
    label_source: str
    label_score: float | None
    density: float
    maximum: float
    minimum: float
    promoted_ids: list[int]
    token_mean_ids: list[int] | None
    token_probability_ids: list[int] | None
    key: Any


_ROW = [
    _c[name]
    for name in (
        "index", "label", "label_source", "label_score", "density", "maximum", "minimum", "promoted_ids",
        "token_mean_ids", "token_probability_ids",
    )
]  # fmt: skip
# What an export has beside the tokens: every number of a latent that is one number.
SCALARS = (
    "index", "label", "label_source", "label_score", "density", "fired", "mean", "std", "maximum", "minimum",
    "decoder_norm", "encoder_decoder_cosine", "first_fired", "last_fired", "documents",
)  # fmt: skip


def single(value: float) -> float:
    """The nearest value a real column can hold, so that a bound written in decimals includes what it names."""
    try:
        return float(struct.unpack("f", struct.pack("f", value))[0])
    except OverflowError:
        return float("inf") if value > 0 else float("-inf")


def below(value: float) -> str:
    """The greatest number a real column can hold below ``value``, so that of two ranges only one holds ``value``."""
    return str(np.nextafter(np.float32(value), np.float32(-np.inf)))


async def page(
    connection: AsyncConnection,
    sae_id: int,
    filters: Filters,
    *,
    sort: Sort,
    descending: bool,
    cursor: str | None,
    limit: int,
) -> tuple[list[BrowseRecord], str | None]:
    """One page and the cursor of the next (None at the end). Ties go by index, in the same direction; latents without
    a score come after all others, whichever the direction.

    Raises:
        BadRequest: the cursor was not made by this function for this order.
    """
    after = _read_cursor(cursor, sort, descending) if cursor else None
    base = select(*_ROW, _KEYS[sort].label("key")).where(_c.sae_id == sae_id, *filters.conditions())
    rows: list[BrowseRecord] = []
    if sort != "score":
        rows = await _take(connection, _ordered(base, _KEYS[sort], descending, after), limit + 1)
    else:  # both parts are read off one index
        if after is None or after[0] is not None:
            scored = base.where(_c.label_score.is_not(None))
            rows = await _take(connection, _ordered(scored, _c.label_score, descending, after), limit + 1)
        if len(rows) <= limit and not filters.score:
            unscored = base.where(_c.label_score.is_(None))
            last = (after[1], after[1]) if after is not None and after[0] is None else None
            rows += await _take(connection, _ordered(unscored, _c.index, descending, last), limit + 1 - len(rows))
    if len(rows) <= limit:
        return rows, None
    return rows[:limit], _write_cursor(sort, descending, rows[limit - 1].key, rows[limit - 1].index)


def _ordered(
    query: Select[Any], key: ColumnElement[Any], descending: bool, after: tuple[Any, int] | None
) -> Select[Any]:
    if key is _c.index:
        if after is not None:
            query = query.where(_c.index < after[1] if descending else _c.index > after[1])
        return query.order_by(_c.index.desc() if descending else _c.index)
    keys = (key, _c.index)
    if after is not None:
        query = query.where(tuple_(*keys) < tuple_(*after) if descending else tuple_(*keys) > tuple_(*after))
    return query.order_by(*(k.desc() if descending else k.asc() for k in keys))


async def _take(connection: AsyncConnection, query: Select[Any], limit: int) -> list[BrowseRecord]:
    return [BrowseRecord(**row._mapping) for row in await connection.execute(query.limit(limit))]


async def count(connection: AsyncConnection, sae_id: int, filters: Filters, most: int) -> int:
    """How many latents the filters keep, counted up to ``most``."""
    kept = select(_c.index).where(_c.sae_id == sae_id, *filters.conditions()).limit(most).subquery()
    return int((await connection.execute(select(func.count()).select_from(kept))).scalar_one())


async def count_by_density(
    connection: AsyncConnection, sae_id: int, filters: Filters, edges: list[float]
) -> tuple[list[int], int]:
    """How many of the latents that the filters keep are in each bin of log10 density, and how many never fired."""
    bin_of = func.width_bucket(func.log(func.nullif(cast(_c.density, Double), 0)), cast(edges, ARRAY(Double)))
    query = select(bin_of.label("bin"), func.count()).where(_c.sae_id == sae_id, *filters.conditions()).group_by("bin")
    counts, dead = [0] * (len(edges) - 1), 0
    for number, n in await connection.execute(query):
        if number is None:
            dead += n
        else:
            counts[min(max(number, 1), len(counts)) - 1] += n
    return counts, dead


async def sources(connection: AsyncConnection, sae_id: int) -> list[str]:
    """The sources labels come from. Each is one step along the index, however many latents there are."""
    steps = text(
        """
        WITH RECURSIVE step (source) AS (
            SELECT min(label_source) FROM latent WHERE sae_id = :sae
            UNION ALL
            SELECT (SELECT min(label_source) FROM latent WHERE sae_id = :sae AND label_source > step.source)
            FROM step WHERE step.source IS NOT NULL
        )
        SELECT source FROM step WHERE source IS NOT NULL LIMIT 50
        """
    )
    return list((await connection.execute(steps, {"sae": sae_id})).scalars())


async def score_counts(connection: AsyncConnection, sae_id: int) -> tuple[list[float], list[int]]:
    """Scores in equal bins from the least to the greatest: (edges, counts); ([], []) where nothing is scored."""
    scored = (_c.sae_id == sae_id, _c.label_score.is_not(None))
    low, high = (
        await connection.execute(select(func.min(_c.label_score), func.max(_c.label_score)).where(*scored))
    ).one()
    if low is None:
        return [], []
    low, high = min(0.0, float(low)), max(1.0, float(high))
    bin_of = func.width_bucket(_c.label_score, low, high, SCORE_BINS)
    found = await connection.execute(select(bin_of.label("bin"), func.count()).where(*scored).group_by("bin"))
    counts = [0] * SCORE_BINS
    for number, n in found:
        counts[min(number, SCORE_BINS) - 1] += n  # the last bin's upper edge belongs to it
    return [low + (high - low) * i / SCORE_BINS for i in range(SCORE_BINS + 1)], counts


async def stream(
    connection: AsyncConnection, sae_id: int, filters: Filters, *, sort: Sort, descending: bool
) -> AsyncGenerator[Sequence[Any], None]:
    """Every row the filters keep, in the table's order, some at a time from a cursor of the server's: SCALARS, then
    token_probability_ids, token_mean_ids and promoted_ids. Whoever may leave early closes it before the connection."""
    key = _KEYS[sort]
    order = [key.desc().nulls_last() if descending else key.asc().nulls_last()] if sort == "score" else []
    order += [
        k.desc() if descending else k.asc()
        for k in ((key, _c.index) if sort not in ("score", "index") else (_c.index,))
    ]
    columns = [_c[name] for name in (*SCALARS, "token_probability_ids", "token_mean_ids", "promoted_ids")]
    query = select(*columns).where(_c.sae_id == sae_id, *filters.conditions()).order_by(*order)
    found = await connection.stream(query, execution_options={"yield_per": CHUNK})
    try:
        async for rows in found.partitions():
            yield rows
    finally:  # what stream() returns closes nothing when a generator is left
        await found.close()


def _write_cursor(sort: str, descending: bool, value: Any, index: int) -> str:
    raw = json.dumps([sort, descending, value, index], separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def _read_cursor(cursor: str, sort: Sort, descending: bool) -> tuple[Any, int]:
    try:
        if len(cursor) > 2000:
            raise ValueError("cursor")
        made_for, order, value, index = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        if made_for != sort or order is not descending:
            raise ValueError("order")
        return _key(sort, value), _whole(index)
    except (ValueError, TypeError, OverflowError, struct.error, binascii.Error, RecursionError):
        raise BadRequest(
            f"Cursor {cursor[:40]!r} does not belong to this table's order; start again without a cursor.",
            cursor=cursor[:200],
        ) from None


def _key(sort: Sort, value: Any) -> Any:
    match sort:
        case "index":
            return _whole(value)
        case "label":
            if not isinstance(value, str) or "\0" in value or any("\ud800" <= ch <= "\udfff" for ch in value):
                raise ValueError("label")
            return value
        case "score" if value is None:
            return None
        case _:
            return struct.unpack("f", struct.pack("f", float(value)))[0]


def _whole(value: Any) -> int:
    number = int(value)
    if not -(2**31) <= number < 2**31:
        raise ValueError("index")
    return number
