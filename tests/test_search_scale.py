"""Search over thousands of explanations: recall against comparing all, and filters that leave few of them."""

import asyncio

import numpy as np
import pytest
from sqlalchemy import text

from app.store import search as s
from app.store.browse import Range
from app.store.embeddings import literal
from app.store.engine import async_engine, database_url, sync_engine
from app.store.migrate import migrate
from benchmarks.search import exact, lists, load, noisy
from tests.conftest import database_beside

N, TEXTS = 6000, 300


@pytest.fixture(scope="module")
def vectors():
    rows = np.random.default_rng(3).normal(size=(TEXTS, 384)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def texts():
    return lists(np.random.default_rng(4), TEXTS)


@pytest.fixture(scope="module")
def own(settings, vectors, texts):
    own = database_beside(settings, "search_scale")
    engine = sync_engine(database_url(own))
    migrate(engine)
    with engine.begin() as connection:
        load(connection, N, texts, vectors)
    engine.dispose()
    return own


@pytest.fixture(scope="module")
def sae(own):
    engine = sync_engine(database_url(own))
    with engine.connect() as connection:
        yield connection.execute(text("SELECT id FROM sae")).scalar_one()
    engine.dispose()


def rows_where(own, condition):
    """(latent, text) of the explanations."""
    engine = sync_engine(database_url(own))
    with engine.connect() as connection:
        found = connection.execute(
            text(
                "SELECT e.latent, e.text FROM explanation e "
                "JOIN latent l ON l.sae_id = e.sae_id AND l.index = e.latent "
                f"WHERE {condition} ORDER BY 1"
            )
        ).all()
    engine.dispose()
    return found


def asked(own, *questions):
    """What ``both`` answers to each (kept, words, vector), by indexes even where the table is small."""

    async def ask():
        engine, answers = async_engine(database_url(own)), []
        for kept, words, vector in questions:
            async with engine.connect() as connection:
                await connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
                await connection.exec_driver_sql("SET LOCAL enable_sort = off")
                found = await s.both(connection, kept, words, literal(vector), kept.saes, loose=False)
            async with engine.connect() as connection:
                answers.append((found, await exact(connection, kept.saes[0], literal(vector))))
        await engine.dispose()
        return answers

    return asyncio.run(ask())


def queries(vectors, n):
    return noisy(np.random.default_rng(5), vectors[:n])


def test_the_ten_nearest_are_nearly_all_found(own, sae, vectors):
    hits, total = 0, 0
    for found, cosines in asked(own, *((s.Kept((sae,)), "", vector) for vector in queries(vectors, 50))):
        assert not found.exact
        near = [one.cosine for one in found.found[:10]]
        hits += sum(cosine >= cosines[-1] - 1e-6 for cosine in near)
        total += len(cosines)
    assert total == 500
    assert hits / total >= 0.95


@pytest.mark.parametrize("few", [s.LEAST, 0])
def test_selective_filters_leave_full_pages_of_what_they_keep(own, sae, vectors, few, monkeypatch):
    monkeypatch.setattr(s, "few_of", lambda kept: few)
    wanted = {latent for latent, _ in rows_where(own, "l.density >= 0.0032 AND l.label_score >= 0.8")}
    assert 40 < len(wanted) < 0.1 * N
    kept = s.Kept((sae,), density=Range(low=0.0032), score=Range(low=0.8))
    for found, _ in asked(own, *((kept, "", vector) for vector in queries(vectors, 10))):
        assert found.exact == (few > 0)
        latents = {one.key[1] for one in found.found}
        assert latents <= wanted
        assert len(latents) >= min(len(wanted), 100 if few else 40)


def test_a_rare_method_is_found_whole(own, sae, vectors):
    wanted = {latent for latent, _ in rows_where(own, "e.method = 'person'")}
    assert 0 < len(wanted) < 30
    ((found, _),) = asked(own, (s.Kept((sae,), method="person"), "", vectors[0]))
    assert {one.key[1] for one in found.found} == wanted


def test_of_a_frequent_word_only_some_matches_are_ranked_and_that_is_said(own, sae, vectors, monkeypatch):
    ((whole, _),) = asked(own, (s.Kept((sae,)), "fires", vectors[0]))
    assert s.WORDS <= whole.words < N  # a label or two has it as well
    assert whole.more
    monkeypatch.setattr(s, "WORDS", 7000)
    ((whole, _),) = asked(own, (s.Kept((sae,)), "fires", vectors[0]))
    assert (whole.words, whole.more) == (N, False)


def test_more_is_compared_exactly_where_there_is_more_to_walk_through():
    assert [s.few_of(s.Kept((), size=size)) for size in (0, 4096, 20_000, 1_000_000)] == [1000, 1000, 2000, 14142]
