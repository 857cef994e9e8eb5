"""From an SAE's name to its latents explained by a language model, or to what that would cost."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Engine, select

from app.errors import BadRequest
from app.explain.budget import Budget
from app.explain.client import Ask, Client, Endpoint, check_reached
from app.explain.codes import TOKENS, read_codes
from app.explain.embedding_scorer import EmbeddingScorer
from app.explain.latents import ones
from app.explain.ledger import Ledger, spent
from app.explain.llm_explainers import explain_ask, gathered
from app.explain.llm_run import Latents, Outcome, Plan, Subject, Watch, job_of, run
from app.explain.llm_scorers import TOGETHER, Judge, judge_ask, questions, simulate_ask, simulated_windows
from app.explain.llm_scoring import Scoring
from app.explain.local_scorers import LocalSubject
from app.explain.pacing import AT_ONCE, Clock
from app.explain.prices import Price, chosen, likely_tokens, listed
from app.explain.samples import Sampler
from app.harvest.job import in_dtype, read_sae, resolved
from app.store import tables as t
from app.store.engine import async_engine, explained
from app.store.explain_sources import check_harvested, find_explain_source, read_facts
from app.store.llm_bulk import job_lock, sum_up
from app.store.revisions import known
from app.subject.load import load_subject, load_vocabulary

LOOKED_AT = 20  # latents whose prompts an estimate is made from
LIKELY_ANSWER = 60, 13, 14  # tokens: an explanation; a verdict; a value


@dataclass(frozen=True)
class Estimate:
    """requests and tokens, about; ``most``: USD that cannot be passed, retries apart; ``likely``: USD, about; None
    where no price is known."""

    latents: int
    requests: int
    prompt_tokens: int
    completion_tokens: int
    likely: float | None
    most: float | None
    price: Price


@dataclass(frozen=True)
class Wanted:
    """What the command line says. latents: ``0-99,512``, or None for all that fire; price: USD for a million tokens of
    prompt and of answer; sentences: the sentence model's folder, where there is one."""

    address: str
    plan: Plan
    endpoint: Endpoint
    latents: str | None = None
    price: tuple[float | None, float | None] = (None, None)
    max_usd: float | None = None
    at_once: int = AT_ONCE
    tokens: int = TOKENS
    sentences: Path | None = None


@dataclass(frozen=True)
class Done:
    slug: str
    revision: str
    outcome: Outcome
    sent: int
    spent: float
    price: Price


def prepare(engine: Engine, home: Path, wanted: Wanted, device: str, watch: Watch) -> tuple[Subject, Latents]:
    """
    Raises:
        UnknownSAE, LatentOutOfRange, BadRequest: see ``ones``.
        SubjectUnavailable, CorpusUnavailable, InvalidSAE: what it was harvested from is gone.
    """
    slug, _, revision = wanted.address.partition("@")
    with explained(), engine.connect() as connection:
        known(connection, slug, revision or None)
        source = find_explain_source(connection, slug, revision or None)
        check_harvested(source)
        facts = read_facts(connection, source.id)
    signs = (1, -1) if source.signed else (1,)
    alive = [(i, sign) for i in ones(wanted.latents, source.n_latents) for sign in signs
             if facts.maxima[i, int(sign < 0)] > 0]  # fmt: skip
    if not alive:
        raise BadRequest(
            f"None of the latents {wanted.latents or 'of ' + slug} ever fired; there is nothing to explain."
        )
    sampled = read_codes(engine, source, home, wanted.tokens, device=device, doing=watch.doing, step=watch.step)
    vocabulary = load_vocabulary(home / source.subject_path)
    sampler = Sampler(sampled.codes, facts.neighbours, facts.maxima, wanted.plan.seed)
    return Subject(source, facts, sampler, sampled.name, vocabulary.pieces), alive


def estimate(subject: Subject, plan: Plan, latents: Latents, price: Price) -> Estimate:
    """Made from the very prompts of up to 20 of the latents, without sending any; explanations are taken to be 25
    words, and every text of a scorer's as answered at once."""
    placed = "x" * 120  # an explanation of 25 words
    step = max(1, len(latents) // LOOKED_AT)
    looked = latents[::step][:LOOKED_AT]
    requests = prompt = completion = 0
    most = 0.0
    for one in looked:
        for ask, likely in _asks(subject, plan, one, placed):
            requests += 1
            prompt += likely_tokens(ask.messages)
            completion += likely
            most += price.worst(ask.messages, {}, ask.max_tokens)
    scale = len(latents) / max(len(looked), 1)
    likely_usd = (prompt * price.prompt + completion * price.completion) / 1e6 * scale
    return Estimate(
        len(latents), round(requests * scale), round(prompt * scale), round(completion * scale),
        likely_usd if price.known else None, most * scale if price.known else None, price,
    )  # fmt: skip


def _asks(subject: Subject, plan: Plan, one: tuple[int, int], placed: str) -> list[tuple[Ask, int]]:
    """What a latent takes, each with the tokens of a likely answer."""
    given = gathered(plan.method, subject.sampler, *one)
    if not given.active:
        return []
    latent, largest = one[0], subject.largest(*one)
    explain = explain_ask(given, subject.pieces, subject.promoted(*one), latent, largest, 0, as_json=True)
    asks = [(explain, LIKELY_ANSWER[0])] * plan.best_of
    windows = subject.sampler.windows(*one, "test", plan.n)
    times = 2 if plan.control else 1
    for scorer in plan.scorers:
        if scorer in ("detection", "fuzzing"):
            judge: Judge = "detection" if scorer == "detection" else "fuzzing"
            texts = [question.text for question in questions(judge, windows, subject.pieces, (plan.seed, latent))]
            for i in range(0, len(texts), TOGETHER):
                some = texts[i : i + TOGETHER]
                asks += [(judge_ask(judge, placed, some, latent), LIKELY_ANSWER[1] * len(some))] * times
        elif scorer == "simulation":
            for window in simulated_windows(windows):
                ask = simulate_ask(placed, window, subject.pieces, latent)
                asks += [(ask, LIKELY_ANSWER[2] * len(window.token_ids))] * times
    return asks


def dry_run(engine: Engine, home: Path, wanted: Wanted, *, device: str = "cpu", watch: Watch | None = None) -> Estimate:
    """What ``explain_sae`` would take; sends nothing."""
    subject, latents = prepare(engine, home, wanted, device, watch or Watch())
    price = chosen(wanted.price, wanted.endpoint.local, None)
    return estimate(subject, wanted.plan, latents, price)


async def price_of(client: Client, wanted: Wanted) -> Price:
    """
    Raises:
        BadRequest: there is a limit and no price.
    """
    given = chosen(wanted.price, wanted.endpoint.local, None)
    if given.source == "unknown":
        given = chosen(wanted.price, False, listed(await client.models(), wanted.endpoint.model))
    if wanted.max_usd is not None and not given.known:
        raise BadRequest(
            f"--max-usd cannot be kept: {wanted.endpoint.base_url} does not tell the price of {wanted.endpoint.model}; "
            "give --price-in and --price-out, USD for a million tokens."
        )
    return given


def explain_sae(
    engine: Engine, home: Path, wanted: Wanted, *, device: str = "cpu", dtype: str = "auto", watch: Watch | None = None,
    clock: Clock | None = None,
) -> Done:  # fmt: skip
    """
    Raises:
        ExplainRunning: the very same is under way.
        EndpointRefused, EndpointSilent, BudgetSpent: what was done until then is saved.
        And what ``prepare`` and ``price_of`` raise.
    """
    watch = watch or Watch()
    if not _answered(engine, wanted.endpoint):
        asyncio.run(check_reached(wanted.endpoint))  # before a pass over the text that may take minutes
    subject, latents = prepare(engine, home, wanted, device, watch)
    job = job_of(subject.source, wanted.endpoint, wanted.plan, latents)
    with job_lock(engine, job):
        return asyncio.run(_explain(engine, home, wanted, subject, latents, job, watch, clock, (dtype, device)))


def _answered(engine: Engine, endpoint: Endpoint) -> bool:
    """Whether answers of it are kept, which may be all that is needed."""
    r = t.llm_request.c
    kept = select(r.id).where(r.base_url == endpoint.base_url, r.model == endpoint.model, r.response.is_not(None))
    with engine.connect() as connection:
        return connection.execute(kept.limit(1)).first() is not None


async def _explain(
    engine: Engine,
    home: Path,
    wanted: Wanted,
    subject: Subject,
    latents: Latents,
    job: str,
    watch: Watch,
    clock: Clock | None,
    how: tuple[str, str],
) -> Done:
    database = async_engine(engine.url, holding=wanted.at_once)
    try:
        budget = Budget(wanted.max_usd, await spent(database, job))
        async with opened(wanted, Ledger(database, job, budget, clock), subject.source.id, clock) as client:
            client.price = await price_of(client, wanted)
            scoring = _scoring(subject, home, wanted, how)
            try:
                outcome = await run(subject, wanted.plan, latents, client, scoring, engine, watch)
            finally:
                sum_up(engine, subject.source.id)
            source = subject.source
            return Done(source.slug, source.revision, outcome, client.sent, budget.spent, client.price)
    finally:
        await database.dispose()


def _scoring(subject: Subject, home: Path, wanted: Wanted, how: tuple[str, str]) -> Scoring:
    scorers = set(wanted.plan.scorers)
    embedder = None
    if "embedding" in scorers:
        if wanted.sentences is None:
            raise BadRequest("embedding scores need a sentence model; 'saescope embed' fetches one.")
        from app.embed.model import SentenceModel

        embedder = EmbeddingScorer(SentenceModel(wanted.sentences, how[1]), subject.pieces)
    local = local_subject(subject, home, how) if scorers & {"surprisal", "intervention"} else None
    return Scoring(local, embedder)


@asynccontextmanager
async def opened(wanted: Wanted, ledger: Ledger, sae_id: int | None, clock: Clock | None) -> AsyncIterator[Client]:
    unpriced = chosen((None, None), True, None)
    client = Client(wanted.endpoint, ledger, unpriced, sae_id=sae_id, at_once=wanted.at_once, clock=clock)
    try:
        yield client
    finally:
        await client.close()


def local_subject(subject: Subject, home: Path, how: tuple[str, str]) -> LocalSubject:
    source = subject.source
    loaded = load_subject(home / source.subject_path, source.subject, *how)
    sae = in_dtype(resolved(read_sae(home / source.path), loaded), source.parameters.get("sae_dtype", "float32"))
    return LocalSubject(loaded, sae.to(loaded.device), subject.sampler)
