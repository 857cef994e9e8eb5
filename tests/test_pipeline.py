"""Statements sent together: their answers, what listeners hear, refusals, and callers who leave."""

import asyncio

import pytest
from sqlalchemy import Integer, bindparam, event, select, text
from sqlalchemy.exc import DBAPIError, OperationalError

from app.errors import QueryTooLong
from app.store import queries as q
from app.store import tables as t
from app.store.engine import async_engine, database_url, explain
from app.store.glimpses import company_asked
from app.store.pipeline import Asked, ask, at_once
from tests.conftest import SLUG

LATENTS = (
    select(t.latent.c.index, t.latent.c.neighbour_cosines, t.latent.c.label)
    .where(t.latent.c.index < bindparam("below", type_=Integer))
    .order_by(t.latent.c.sae_id, t.latent.c.index)
)
NUMBER = text("SELECT CAST(:number AS int4), 'a % sign'")
QUOTIENT = text("SELECT 1 / CAST(:secret AS int)")
SLEEP = text("SELECT pg_sleep(:seconds)")
WHO = text("SELECT pg_backend_pid()")
END = text("SELECT pg_terminate_backend(CAST(:pid AS int4))")


def rows(statement, **parameters):
    return Asked(statement, parameters, lambda found: found)


def run(settings, work, seconds=0.0):
    """``work`` over a pool that opens a second connection only while the first is used."""

    async def inside():
        engine = async_engine(database_url(settings), seconds)
        try:
            return await work(engine.execution_options(isolation_level="AUTOCOMMIT"))
        finally:
            await engine.dispose()

    return asyncio.run(inside())


def test_answers_come_in_order_as_one_by_one_and_listeners_hear_of_each(harvested, settings):
    heard = []

    async def work(engine):
        event.listen(engine.sync_engine, "before_cursor_execute", lambda *given: heard.append(given[2]))
        event.listen(engine.sync_engine, "after_cursor_execute", lambda *given: heard.append("done"))
        async with engine.connect() as db:
            several = await at_once(db, rows(LATENTS, below=5), rows(NUMBER, number=3), rows(LATENTS, below=0))
            told = list(heard)
            alone = (await db.execute(LATENTS, {"below": 5})).all()
            return several, alone, await ask(db, Asked(NUMBER, {"number": 4}, lambda found: found[0][0])), told

    (latents, number, none), alone, four, told = run(settings, work)
    assert latents == [tuple(row) for row in alone]
    assert len(latents) >= 5
    assert (number, none, four) == ([(3, "a % sign")], [], 4)
    assert [line.split()[0] for line in told] == ["SELECT", "SELECT", "SELECT", "done", "done", "done"]


def test_a_latents_statements_are_planned_once(harvested, settings):
    counted = text("SELECT statement, generic_plans FROM pg_prepared_statements WHERE statement LIKE '%sequence_id%'")

    async def work(engine):
        async with engine.connect() as db:
            sae = await q.get_sae(db, SLUG)
            told = [await at_once(db, q.examples_asked(sae, i), company_asked(sae, i)) for i in range(30)]
            return sae, told, (await db.execute(counted)).all()

    sae, told, plans = run(settings, work)
    assert any(examples and company for examples, company in told)
    assert len(plans) == 2
    assert all(f"sae_id = {sae.id}" in statement for statement, _ in plans)  # for any partition it plans each time
    assert all(times >= 5 for _, times in plans)  # psycopg prepares the sixth; PostgreSQL looks at five plans


def test_a_refused_statement_is_an_error_as_ever_and_the_connection_goes_on(harvested, settings):
    async def work(engine):
        async with engine.connect() as db:
            with pytest.raises(DBAPIError, match="division by zero") as caught:
                await at_once(db, rows(NUMBER, number=1), rows(QUOTIENT, secret=0), rows(NUMBER, number=2))
            assert "secret" not in str(caught.value)
            return await ask(db, rows(NUMBER, number=5))

    assert run(settings, work) == [(5, "a % sign")]


def test_one_that_takes_too_long_is_told_so(harvested, settings):
    async def work(engine):
        async with engine.connect() as db:
            with pytest.raises(DBAPIError) as caught:
                await at_once(db, rows(NUMBER, number=1), rows(SLEEP, seconds=60))
            return explain(caught.value)

    assert isinstance(run(settings, work, seconds=1), QueryTooLong)


def test_a_caller_who_leaves_leaves_a_connection_that_works(harvested, settings):
    async def work(engine):
        async def hold():
            async with engine.connect() as db:
                await at_once(db, rows(NUMBER, number=1), rows(SLEEP, seconds=2), rows(LATENTS, below=3))

        for wait in (0.0, 0.02, 0.3):
            task = asyncio.create_task(hold())
            await asyncio.sleep(wait)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            async with engine.connect() as db:
                assert await at_once(db, rows(NUMBER, number=7), rows(NUMBER, number=8)) == [
                    [(7, "a % sign")], [(8, "a % sign")],
                ]  # fmt: skip

    run(settings, work)


def test_a_connection_that_dies_meanwhile_is_replaced(harvested, settings, caplog):
    async def work(engine):
        other = async_engine(database_url(settings))
        async with engine.connect() as db:
            ((pid,),) = await ask(db, rows(WHO))
            asked = asyncio.create_task(at_once(db, rows(SLEEP, seconds=30), rows(NUMBER, number=1)))
            await asyncio.sleep(0.2)
            async with other.connect() as killer:
                await killer.execute(END, {"pid": pid})
            with pytest.raises(OperationalError):
                await asked
        await other.dispose()
        async with engine.connect() as db:
            return await ask(db, rows(NUMBER, number=9))

    assert run(settings, work) == [(9, "a % sign")]
    assert [one.name for one in caplog.records if one.name.startswith("sqlalchemy")] == []  # nor tried to use it again
