"""How well search by meaning finds what a feature fires on: `python -m benchmarks.search_quality --home DIR`.

Of the demo's SAE, explained and embedded. A query says in words what the tokens of a list have in common, and holds
none of them. A feature is right for it by as much of its activation, over the text that explanations were made from,
as is on the list's tokens; nothing of an explanation has a say in that. The even queries were looked at while what is
embedded was chosen, the odd ones were kept apart until it was.

Three ways: words and meaning; those with the features that fire on what the subject lists; the last alone.
"""

import argparse
import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from app.embed.folder import check_model
from app.embed.model import SentenceModel
from app.explain.codes import read_codes
from app.explain.samples import Codes
from app.live.jobs import ListAnswer
from app.live.listed_scores import scored
from app.live.listing import listing
from app.settings import load_settings
from app.store import search as s
from app.store.embeddings import literal
from app.store.engine import async_engine, database_url, sync_engine
from app.store.explain_sources import find_explain_source
from app.store.token_shares import read_token_shares
from app.subject.load import load_subject

RIGHT = 0.4  # of a feature's activation, from which on it is right
TOP = 10
Floats = npt.NDArray[np.floating[Any]]
# Written from lists of words, before any ranking was seen.
QUERIES: dict[str, str] = {
    "hedging words": "may might perhaps possibly probably likely could possible seem seems apparently maybe",
    "months of the year": "january february march april june july august september october november december",
    "negation": "not no never none nor neither cannot without",
    "cardinal directions": "north south east west northern southern eastern western northeast southwest",
    "fractions and approximate amounts": "half almost nearly partially quarter twice third partly about approximately",
    "obligation and necessity": "must need needs required necessary require requires essential should",
    "drawing a conclusion": "therefore thus hence so thereby consequently accordingly",
    "family relatives": "father mother son daughter brother sister wife husband children parents uncle cousin",
    "quantities that are large": "many several numerous multiple hundreds thousands various",
    "adverbs of frequency": "always never often sometimes usually rarely frequently occasionally seldom ever",
    "what a term signifies": "meaning means literally meant refers denotes signifies meanings",
    "royalty": "king queen prince emperor throne princess monarch kings royal crown",
    "armed conflict": "war battle army troops soldiers military invasion siege battles wars forces",
    "parts of the human body": "head hand hands eye eyes arm leg legs face foot hair skin blood",
    "giving a reason": "because since due reason reasons cause caused owing",
    "for the most part": "mostly mainly primarily largely chiefly predominantly mainly principally",
    "contrast between statements": "but however although though yet whereas despite while nevertheless",
    "numerals": "one two three four five six seven eight nine ten",
    "water bodies": "river sea lake ocean rivers coast gulf bay lakes stream",
    "religious belief": "god church christian religion religious gods faith christ jesus prayer bible",
    "comparison of size or degree": "more less most larger greater smaller least higher lower largest",
    "dying": "death died dead die killed deaths kill murder suicide buried",
    "schooling": "university school college student students education taught teacher professor schools",
    "writing and publishing": "book books published novel author wrote written writer poem essay works",
    "plants and agriculture": "plant plants farm crops tree trees agriculture agricultural wheat fruit seeds seed",
    "words that point at something": "this that these those such",
    "nations and nationalities": "american french german greek british english chinese russian spanish italian",
    "movies and stage": "film films theatre movie actor actress television play scene drama",
    "chemical elements": "hydrogen oxygen carbon nitrogen iron gold silver helium copper sodium uranium actinium",
    "government by election": "president election elected vote congress senate party democratic government minister",
}


class Quality(NamedTuple):
    """Means over queries. hit: whether any of the first ten is right; mrr: 1 / the place of the first right one (0
    below the hundredth); share: of the activation of the first ten that is on the list."""

    queries: int
    hit: float
    mrr: float
    share: float


def shares(codes: Codes, pieces: Sequence[str], words: str) -> Floats:
    """[latents]: how much of each one's activation is on the tokens that read as one of ``words``."""
    wanted = set(words.split())
    there = np.array([piece.strip().casefold() in wanted for piece in pieces])
    value = np.abs(codes.value).astype(np.float64)
    latent = np.repeat(np.arange(codes.n_latents), np.diff(codes.indptr))
    on = np.bincount(latent, value * there[codes.token_ids[codes.place]], codes.n_latents)
    whole = np.bincount(latent, value, codes.n_latents)
    return np.asarray(on / np.maximum(whole, 1e-12))


def quality(ranked: Sequence[Sequence[int]], right: Sequence[Floats]) -> Quality:
    hit, mrr, share = [], [], []
    for found, of in zip(ranked, right, strict=True):
        good = [place for place, latent in enumerate(found[:100]) if of[latent] >= RIGHT]
        hit.append(bool(good) and good[0] < TOP)
        mrr.append(1 / (good[0] + 1) if good else 0.0)
        share.append(float(np.mean([of[latent] for latent in found[:TOP]])) if found else 0.0)
    return Quality(len(hit), float(np.mean(hit)), float(np.mean(mrr)), float(np.mean(share)))


async def ask(url: Any, sae: int, n: int, vectors: Floats, lists: Sequence[ListAnswer]) -> dict[str, list[list[int]]]:
    """What the site finds in each way."""
    engine = async_engine(url)
    async with engine.connect() as connection:
        counted = await read_token_shares(connection, sae, n)
    if counted is None:
        raise SystemExit("This harvest did not count on which tokens features fire; harvest the SAE again.")
    out: dict[str, list[list[int]]] = {"words and meaning": [], "and lists": [], "lists alone": []}
    for query, vector, answer in zip(QUERIES, vectors, lists, strict=True):
        listed = scored([(sae, counted, answer.items)]).keys(s.DEPTH)
        async with engine.connect() as connection:
            for name, some in (("words and meaning", []), ("and lists", listed)):
                found = await s.both(
                    connection, s.Kept((sae,), size=n), query, literal(vector), [sae], loose=False, listed=some
                )
                out[name].append([one.key[1] for one in found.found])
        out["lists alone"].append([latent for _, latent in listed])
    await engine.dispose()
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--sae", default="smollm2-135m-l9-topk-4096")
    given = parser.parse_args()
    settings = load_settings(home=given.home)
    url = database_url(settings)
    engine = sync_engine(url)
    with engine.connect() as connection:
        source = find_explain_source(connection, given.sae, None)
    subject = load_subject(settings.home / source.subject_path, "", settings.dtype, settings.device)
    pieces = [subject.vocabulary.text(token) for token in range(len(subject.vocabulary))]
    codes = read_codes(engine, source, settings.home).codes
    right = [shares(codes, pieces, words) for words in QUERIES.values()]
    model, lists = SentenceModel(check_model(settings)), [listing(subject, query) for query in QUERIES]
    ways = asyncio.run(ask(url, source.id, source.n_latents, model.encode(list(QUERIES)), lists))
    for number, (name, of) in enumerate(zip(QUERIES, right, strict=True)):
        places = [_first(ranked[number], of) for ranked in ways.values()]
        told = " ".join(f"{place or '-':>4}" for place in places)
        print(f"{name:40} {int((of >= RIGHT).sum()):3} right, the first at {told}")
    parts = {"all": slice(None), "even": slice(0, None, 2), "odd": slice(1, None, 2)}
    print(
        json.dumps(
            {
                way: {name: quality(ranked[p], right[p])._asdict() for name, p in parts.items()}
                for way, ranked in ways.items()
            },
            indent=1,
        )
    )


def _first(found: Sequence[int], of: Floats) -> int | None:
    return next((place + 1 for place, latent in enumerate(found) if of[latent] >= RIGHT), None)


if __name__ == "__main__":
    main()
