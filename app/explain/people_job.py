"""Scores of what people wrote and of what was imported, by what needs no language model: the sentence model, and the
subject itself."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Engine

from app.errors import BadRequest
from app.explain.codes import TOKENS, read_codes
from app.explain.embedding_scorer import EmbeddingScorer, Encodes
from app.explain.llm_job import local_subject
from app.explain.llm_run import Plan, Subject, Watch, shuffled
from app.explain.llm_scoring import LOCAL, Scoring, locally, of_set
from app.explain.samples import Sampler
from app.store.engine import explained
from app.store.explain_sources import find_explain_source, read_facts
from app.store.llm_bulk import job_lock, said_by, save_scores, sum_up
from app.store.revisions import known
from app.subject.load import load_vocabulary

WRITTEN = "person", "imported"  # methods whose explanations nobody has scored


@dataclass(frozen=True)
class People:
    """scorers: of LOCAL; n: test windows of either kind."""

    address: str
    scorers: tuple[str, ...] = ("embedding",)
    n: int = 50
    seed: int = 0
    tokens: int = TOKENS
    control: bool = True


@dataclass(frozen=True)
class Scored:
    """silent: of explanations whose latents fire in no test window."""

    slug: str
    revision: str
    scored: int
    silent: int
    means: dict[str, tuple[float | None, float | None, int]]  # by scorer: headline, control, how many have one


def score_people(
    engine: Engine, home: Path, wanted: People, *, sentences: Encodes | None, device: str = "cpu", dtype: str = "auto",
    watch: Watch | None = None,
) -> Scored:  # fmt: skip
    """Each explanation is saved by itself.

    Raises:
        UnknownSAE: there is none.
        BadRequest: there is nothing to score, or a scorer that needs a language model.
        ExplainRunning: it is being done.
    """
    watch = watch or Watch()
    if strange := [one for one in wanted.scorers if one not in LOCAL]:
        raise BadRequest(
            f"{strange[0]} needs a language model to judge; people's explanations are scored by {', '.join(LOCAL)}.",
            scorer=strange[0],
        )
    slug, _, revision = wanted.address.partition("@")
    with explained(), engine.connect() as connection:
        known(connection, slug, revision or None)
        source = find_explain_source(connection, slug, revision or None)
        facts = read_facts(connection, source.id)
        texts = said_by(connection, source.id, WRITTEN)
    if not texts:
        raise BadRequest(f"Nobody has written an explanation of {slug} yet, nor was any imported.", sae=slug)
    with job_lock(engine, f"people {source.id}"):
        sampled = read_codes(engine, source, home, wanted.tokens, device=device, doing=watch.doing, step=watch.step)
        pieces = load_vocabulary(home / source.subject_path).pieces
        sampler = Sampler(sampled.codes, facts.neighbours, facts.maxima, wanted.seed)
        subject = Subject(source, facts, sampler, sampled.name, pieces)
        local = (
            local_subject(subject, home, (dtype, device))
            if {"surprisal", "intervention"} & set(wanted.scorers)
            else None
        )
        embedder = EmbeddingScorer(sentences, pieces) if sentences is not None else None
        scoring = Scoring(local, embedder)
        plan = Plan("llm", wanted.scorers, wanted.n, control=wanted.control, seed=wanted.seed)
        newest = {(one.latent, one.sign): one.text for one in texts}
        others = shuffled(newest, facts, wanted.seed) if wanted.control else {}
        watch.doing("scoring what people wrote")
        silent, found = 0, []
        for number, said in enumerate(texts):
            one = said.latent, said.sign
            windows = sampler.windows(*one, "test", wanted.n)
            if any(window.active for window in windows):
                seed = (wanted.seed, one[0], int(one[1] < 0))
                rows = [
                    locally(name, scoring, windows, one, said.text, others.get(one), seed) for name in wanted.scorers
                ]
                save_scores(engine, source.id, said.id, said.latent, of_set(subject, plan, one, windows), rows)
                found.append(rows)
            else:
                silent += 1
            watch.step(number + 1, len(texts))
        sum_up(engine, source.id)
        return Scored(source.slug, source.revision, len(found), silent, _means(wanted.scorers, found))


def _means(scorers: Sequence[str], found: Sequence[Sequence[Any]]) -> dict[str, tuple[float | None, float | None, int]]:
    out = {}
    for place, name in enumerate(scorers):
        told = [rows[place].columns for rows in found if rows[place].columns["headline"] is not None]
        controls = [one["control"] for one in told if one["control"] is not None]
        mean = sum(one["headline"] for one in told) / len(told) if told else None
        out[name] = mean, sum(controls) / len(controls) if controls else None, len(told)
    return out
