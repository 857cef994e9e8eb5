"""Rows of the database to what search shows."""

import re
from collections.abc import Sequence

from app import urls
from app.live.ranking import Ranked
from app.store.queries import ExampleRecord, SAERecord
from app.store.search import MARKS, Found
from app.store.search_hits import HitRecord, Reason, TokenHit
from app.store.search_phrases import PhraseHit
from app.subject.tokens import Vocabulary
from app.web import search_contexts as c
from app.web.build import layer_of
from app.web.contexts import Glimpse

LONGEST = 400  # characters of an explanation
AROUND = 10  # tokens on either side of a phrase


def hit(sae: SAERecord, record: HitRecord) -> c.SearchHit:
    return c.SearchHit(
        sae=sae.slug,
        address=sae.address,
        layer=layer_of(sae.reads[0]) if sae.reads else None,
        index=record.key[1],
        label=record.label,
        label_source=record.label_source,
        label_score=record.label_score,
        density=record.density,
        max=record.maximum,
        min=record.minimum,
        url=urls.feature(sae.address, record.key[1]),
        words=None if record.word is None else matched(record.word),
        meaning=None if record.meaning is None else matched(record.meaning),
    )


def by_meaning(sae: SAERecord, record: HitRecord, found: Found, listed: Sequence[tuple[str, float]]) -> c.SearchHit:
    """listed: words with the share of its firings."""
    shown = hit(sae, record)
    shown.cosine = found.cosine
    if listed:
        words = [c.ListedWord(text=word, share=share) for word, share in listed]
        shown.listed = c.ListedFirings(subject=sae.subject, share=sum(share for _, share in listed), words=words)
    return shown


def matched(reason: Reason) -> c.Matched:
    return c.Matched(pieces=pieces(reason.text), method=reason.method, model=reason.model, author=reason.author)


def pieces(text: str) -> list[c.Piece]:
    """``text`` with its MARKS as pieces; a long one from a little before the first mark on."""
    begin, end = MARKS
    first = text.find(begin)
    start = max(0, first - LONGEST // 2) if len(text) > LONGEST and first > LONGEST // 2 else 0
    cut = text[start : start + LONGEST]
    cut = ("…" if start else "") + cut + ("…" if start + LONGEST < len(text) else "")
    found, marked = [], False
    for part in re.split(f"([{begin}{end}])", cut):
        if part in (begin, end):
            marked = part == begin
        elif part:
            found.append(c.Piece(text=part, marked=marked))
    return found


def by_token(sae: SAERecord, record: HitRecord, found: TokenHit) -> c.SearchHit:
    shown = hit(sae, record)
    kinds = (("fires most surely", found.surely), ("fires most strongly", found.strongly), ("promotes", found.promotes))
    shown.tokens = [name for name, there in kinds if there]
    return shown


def by_text(sae: SAERecord, record: HitRecord, found: Ranked) -> c.SearchHit:
    shown = hit(sae, record)
    shown.fires = c.Fires(
        activation=found.activation, share=found.share, strength=found.strength, position=found.position,
        activations=found.activations,
    )  # fmt: skip
    return shown


def by_phrase(
    sae: SAERecord, record: HitRecord, found: PhraseHit, line: ExampleRecord, vocabulary: Vocabulary
) -> c.SearchHit:
    first = found.position - line.start
    end = first + found.length
    start, stop = max(0, first - AROUND), end + AROUND
    peak = line.position - line.start
    strongest = max(range(first, end), key=lambda place: abs(line.activations[place]))
    shown = hit(sae, record)
    shown.mentions = c.Mentions(
        examples=found.mentions,
        peaks=found.peaks,
        example=Glimpse(
            tokens=vocabulary.pieces(line.token_ids[start:stop]),
            activations=line.activations[start:stop],
            position=(peak if start <= peak < stop else strongest) - start,
            maximum=max(record.maximum, -record.minimum),
        ),
        first=first - start,
        end=end - start,
        document=line.document,
    )
    return shown


def by_direction(sae: SAERecord, record: HitRecord, cosine: float) -> c.SearchHit:
    shown = hit(sae, record)
    shown.cosine = cosine
    return shown
