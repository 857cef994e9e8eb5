"""The feature table's URL, checked: text as it was typed becomes filters, and anything that does not fit is named."""

import math
import re
from typing import Any

from pydantic import BaseModel

from app.errors import BadRequest, LatentOutOfRange
from app.store.browse import Filters, Range
from app.store.queries import SAERecord
from app.subject.tokens import Vocabulary
from app.web import build
from app.web.browse_contexts import BrowseQuery, TableToken

LONGEST, MOST = 100, 1000
_GLYPHS = str.maketrans({"↵": "\n", "→": "\t", "␍": "\r"})


def filters(query: BrowseQuery, sae: SAERecord, tokens: list[TableToken]) -> Filters:
    """What ``query`` keeps; ``tokens`` are those its token means.

    Raises:
        BadRequest, LatentOutOfRange: the first thing that does not fit, in the order of the form.
    """
    _fits(query)
    return Filters(
        label=query.q or None,
        source=query.source or None,
        density=span_of(query, "density"),
        maximum=span_of(query, "max"),
        score=span_of(query, "score"),
        sign=_one_of(query, "fires", ("positive", "negative", "both")),
        alive=None if not query.state else _one_of(query, "state", ("alive", "dead")) == "alive",
        place=_one_of(query, "on", ("first", "last")),
        tokens=tuple(token.token_id for token in tokens),
        indices=_indices(query, sae),
    )


def tokens_meant(query: BrowseQuery, sae: SAERecord, vocabulary: Vocabulary) -> list[TableToken]:
    """The tokens that read as ``query.token``, with or without a space before it.

    Raises:
        BadRequest: no token does.
    """
    _fits(query)
    if not query.token:
        return []
    found = reading_as(query.token, vocabulary)
    if not found:
        raise BadRequest(
            f"No token of {sae.subject} reads {query.token[:40]!r}; words may be split; try a beginning.",
            field="token",
        )
    return found


def reading_as(typed: str, vocabulary: Vocabulary) -> list[TableToken]:
    """The tokens that read as ``typed``, with or without a space before it; its glyphs of whitespace as such if none
    does."""
    for text in (typed, typed.translate(_GLYPHS)):
        wanted = {text.encode(), f" {text}".encode()}
        found = [i for i, token in enumerate(vocabulary.token_bytes) if token in wanted]
        if found:
            return [TableToken(token=vocabulary.text(i), token_id=i) for i in found]
    return []


def _fits(query: BrowseQuery) -> None:
    for name, text in query.given().items():
        most = 12 * MOST if name in ("index", "within") else LONGEST
        if len(text) > most:
            raise BadRequest(f"{name} is longer than {most:,} characters.", field=name)
        if "\0" in text or any("\ud800" <= ch <= "\udfff" for ch in text):
            raise BadRequest(f"{name} holds a character no label and no token can hold.", field=name)


def span_of(query: BaseModel, name: str) -> Range:
    low, high = (_number(query, f"{name}_{end}") for end in ("min", "max"))
    if low is not None and high is not None and low > high:
        raise BadRequest(f"{name} from {low:g} to {high:g} holds nothing; the first must not be greater.", field=name)
    return Range(low, high)


def _number(query: BaseModel, name: str) -> float | None:
    given = text = getattr(query, name).strip()
    if not text:
        return None
    scale = 1.0
    if text.endswith("%"):
        text, scale = text[:-1].strip(), 0.01
    try:
        value = float(text) * scale if "_" not in text else math.nan
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise BadRequest(f"{name} is {given[:40]!r}, which is no number.", field=name)
    return value


def _one_of(query: BrowseQuery, name: str, values: tuple[str, ...]) -> Any:
    text = getattr(query, name)
    if text and text not in values:
        raise BadRequest(f"{name} is {text[:40]!r}; it is one of {', '.join(values)}.", field=name)
    return text or None


def _indices(query: BrowseQuery, sae: SAERecord) -> tuple[int, ...]:
    parts = query.given().get("index", "").split(",")
    if parts == [""]:
        return ()
    if len(parts) > MOST:
        raise BadRequest(f"index names {len(parts):,} features; at most {MOST:,} are shown so.", field="index")
    for part in parts:
        if not re.fullmatch(r"-?[0-9]{1,18}", part):
            raise LatentOutOfRange(f"{part[:40]!r} is no feature number; give whole numbers.", index=part[:40])
        if not 0 <= int(part) < sae.n_latents:
            raise build.out_of_range(sae, int(part))
    return tuple(dict.fromkeys(int(part) for part in parts))
