"""The client of language models against a server with every fault of one: what is retried, what stops a job, what
counts as a failure, what is paid and never paid twice."""

import asyncio
import json
import random
from datetime import UTC, datetime

import pytest
from sqlalchemy import text

from app.errors import BudgetSpent, EndpointRefused, EndpointSilent
from app.explain.budget import Budget
from app.explain.capabilities import ANSWERS, Capabilities
from app.explain.client import Ask, Client
from app.explain.client import Endpoint as Where
from app.explain.failures import Failed, Failure
from app.explain.ledger import Ledger, spent
from app.explain.pacing import Clock, Pace, asked_wait, jittered
from app.explain.prices import LOCAL, UNKNOWN, Price, Usage, chosen, cost, listed
from app.store.engine import async_engine, database_url, sync_engine
from app.store.migrate import migrate
from tests.conftest import database_beside
from tests.llm_endpoint import PRICE, Endpoint, Quick, clients, completion, verdicts


@pytest.fixture(scope="module")
def own(settings):
    own = database_beside(settings, "llm_client")
    engine = sync_engine(database_url(own))
    migrate(engine)
    engine.dispose()
    return own


@pytest.fixture
def database(own):
    engine = sync_engine(database_url(own))
    yield engine
    with engine.begin() as connection:
        connection.execute(text("TRUNCATE llm_request CASCADE"))
    engine.dispose()


@pytest.fixture
def run(own, database):
    with clients(own) as call:
        yield call


def ask(number=0, n=1, **changes):
    messages = [{"role": "system", "content": "s"}, {"role": "user", "content": f"Description: cat {number}\n"}]
    return Ask(messages, 1, "detection", 50, latent=3, **changes)


def rows(database, query):
    with database.connect() as connection:
        return connection.execute(text(query)).all()


def simply(body):
    return verdicts([True])


def test_an_answer_is_kept_and_asked_for_once(run, database):
    endpoint = Endpoint(simply)

    async def twice(client):
        return [(await client.ask(ask())).text for _ in range(2)]

    assert run(endpoint, twice, key="secret") == [verdicts([True])] * 2
    assert run(endpoint, twice) == [verdicts([True])] * 2
    assert len(endpoint.requests) == 1
    assert endpoint.keys == ["Bearer secret"]
    [row] = rows(database, "SELECT * FROM llm_request")
    assert json.loads(row.response)["choices"][0]["message"]["content"] == verdicts([True])
    assert (row.state, row.attempts, row.latent, row.purpose) == ("done", 1, 3, "detection")
    assert (row.prompt_tokens, row.completion_tokens, row.price_source) == (100, 10, "given")
    assert row.cost == pytest.approx((100 * 1 + 10 * 2) / 1e6)
    assert "secret" not in str(row)
    [attempt] = rows(database, "SELECT * FROM llm_attempt")
    assert (attempt.outcome, attempt.cost) == ("answered", row.cost)
    assert attempt.reserved > attempt.cost


def test_what_decides_an_answer_is_in_the_key(run):
    endpoint = Endpoint(simply)

    async def several(client):
        for one in (ask(0), ask(1), ask(0, temperature=0.7), ask(0, seed=1), ask(0, schema=ANSWERS)):
            await client.ask(one)

    run(endpoint, several)
    assert len(endpoint.requests) == 5


def test_a_wait_that_is_asked_for_is_waited_and_others_are_drawn(run, database):
    faults = [(429, {"retry-after": "7"}, "{}"), 503, (429, {"retry-after": "4000"}, "{}")]
    endpoint, clock = Endpoint(simply, lambda number, body: faults[number] if number < len(faults) else None), Quick()

    async def work(client):
        await client.ask(ask())
        return client.pace.limit

    assert run(endpoint, work, clock=clock) == 2  # 16, halved three times
    assert clock.slept[0] == 7.0
    assert 1.0 <= clock.slept[1] <= 4.0
    assert clock.slept[2] == 120.0
    assert [row.outcome for row in rows(database, "SELECT outcome FROM llm_attempt ORDER BY id")] == [
        "refused", "refused", "refused", "answered",
    ]  # fmt: skip
    assert rows(database, "SELECT sum(cost) FROM llm_attempt")[0][0] == pytest.approx(120e-6)


def test_an_endpoint_that_stays_silent_is_given_up_after_six_attempts_and_three_requests(run, database):
    endpoint = Endpoint(simply, lambda number, body: 503)

    async def work(client):
        kinds = []
        for number in range(3):
            try:
                await client.ask(ask(number))
            except (Failed, EndpointSilent) as error:
                kinds.append(error)
        return kinds

    first, second, third = run(endpoint, work)
    assert (first.kind, second.kind) == (Failure.unavailable, Failure.unavailable)
    assert isinstance(third, EndpointSilent)
    assert "does not answer (HTTP 503)" in third.message
    assert len(endpoint.requests) == 18
    assert {row.state for row in rows(database, "SELECT state FROM llm_request")} == {"failed"}
    endpoint.fault = None
    assert run(endpoint, lambda client: client.ask(ask(0))).text == verdicts([True])


def test_a_timeout_and_a_broken_answer_count_as_paid_and_are_asked_again(run, database):
    faults = ["timeout", "cut"]
    endpoint = Endpoint(simply, lambda number, body: faults[number] if number < 2 else None)
    run(endpoint, lambda client: client.ask(ask()), timeout=5.0)
    attempts = rows(database, "SELECT * FROM llm_attempt ORDER BY id")
    assert [one.outcome for one in attempts] == ["lost", "lost", "answered"]
    assert [one.cost is None for one in attempts] == [True, True, False]
    total = run(endpoint, lambda client: spent(client._ledger.database, "job"))
    assert total == pytest.approx(2 * attempts[0].reserved + 120e-6)


def test_a_server_that_is_not_there_costs_nothing(own, database):
    async def work():
        engine = async_engine(database_url(own))
        ledger = Ledger(engine, "job", Budget(1.0), Quick())
        client = Client(Where("http://127.0.0.1:9/v1", "m"), ledger, PRICE, clock=Quick(), seed=0)
        try:
            with pytest.raises(Failed, match="unavailable"):
                await client.ask(ask())
            return await spent(engine, "job")
        finally:
            await client.close()
            await engine.dispose()

    assert asyncio.run(work()) == 0.0


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (401, "does not accept the key"),
        (402, "wants to be paid"),
        (403, "does not allow"),
        (404, "does not know the model"),
    ],
)
def test_a_refusal_stops_the_job_with_one_sentence_and_what_is_under_way_is_kept(run, database, status, said):
    endpoint = Endpoint(simply, lambda number, body: status if "cat 5" in str(body) else None)

    async def work(client):
        done = await asyncio.gather(*(client.ask(ask(i)) for i in range(12)), return_exceptions=True)
        later = await asyncio.gather(client.ask(ask(99)), return_exceptions=True)
        return done, later

    done, [later] = run(endpoint, work, at_once=3)
    refused = [one for one in done if isinstance(one, EndpointRefused)]
    assert said in done[5].message
    assert "\n" not in done[5].message
    assert isinstance(later, EndpointRefused)
    assert "cat 99" not in str(endpoint.requests)
    assert len(refused) + rows(database, "SELECT count(*) FROM llm_request WHERE state = 'done'")[0][0] == 12
    assert {row.state for row in rows(database, "SELECT state FROM llm_request WHERE response IS NULL")} <= {
        "failed", "waiting",
    }  # fmt: skip


def test_no_quota_left_is_no_crowd(run):
    body = json.dumps({"error": {"code": "insufficient_quota", "message": "You exceeded your current quota."}})
    endpoint = Endpoint(simply, lambda number, _: (429, {}, body))
    with pytest.raises(EndpointRefused, match="has no quota left: You exceeded your current quota"):
        run(endpoint, lambda client: client.ask(ask()))
    assert len(endpoint.requests) == 1


GOOD = {"model": "m"}


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        ({"choices": []}, Failure.no_choices),
        ({"object": "error"}, Failure.no_choices),
        (completion("", GOOD), Failure.empty),
        (completion(None, GOOD), Failure.empty),
        (completion("<think>well", GOOD), Failure.empty),
        (completion('{"answers": [', GOOD, finish="length"), Failure.cut_short),
        (completion("", GOOD, finish="content_filter"), Failure.filtered),
        ('{"choices": [{"message": {"content": "{\\"answ', Failure.unreadable),
        ("[1]", Failure.unreadable),
    ],
)
def test_what_is_no_answer_is_a_failure_of_its_kind_kept_and_not_paid_again(run, database, answer, kind):
    endpoint = Endpoint(simply, lambda number, body: answer)
    for _ in range(2):
        with pytest.raises(Failed) as failed:
            run(endpoint, lambda client: client.ask(ask()))
        assert failed.value.kind is kind
    assert len(endpoint.paid) == 1
    assert rows(database, "SELECT state FROM llm_request") == [("done",)]


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (400, {"error": {"message": "maximum context length is 10"}}, Failure.too_long),
        (400, {"error": {"code": 400, "type": "exceed_context_size_error", "message": "9031"}}, Failure.too_long),
        (400, {"error": {"code": "content_filter", "message": "no"}}, Failure.filtered),
        (422, {"detail": "no such thing"}, Failure.refused),
    ],
)  # fmt: skip
def test_a_request_that_is_refused_for_itself_fails_alone(run, status, body, kind):
    endpoint = Endpoint(simply, lambda number, _: (status, {}, json.dumps(body)) if number == 0 else None)

    async def work(client):
        with pytest.raises(Failed) as failed:
            await client.ask(ask(0))
        await client.ask(ask(1))
        return failed.value.kind

    assert run(endpoint, work) is kind


def test_an_error_inside_a_200_is_that_error(run):
    inner = {"error": {"code": 429, "message": "slow down"}}
    endpoint = Endpoint(simply, lambda number, body: inner if number == 0 else None)
    assert run(endpoint, lambda client: client.ask(ask())).text == verdicts([True])


def test_no_more_are_under_way_than_allowed(run):
    endpoint = Endpoint(simply)
    endpoint.gate = asyncio.Event()

    async def work(client):
        async with asyncio.TaskGroup() as group:
            for i in range(12):
                group.create_task(client.ask(ask(i)))
            while endpoint.most_at_once < 3:
                await asyncio.sleep(0.01)
            endpoint.gate.set()

    run(endpoint, work, at_once=3)
    assert len(endpoint.paid) == 12
    assert endpoint.most_at_once == 3


def test_the_budget_is_never_passed_whatever_the_endpoint_does(run, database):
    """Half the answers are lost after they may have been paid for."""
    rng = random.Random(0)
    endpoint = Endpoint(simply, lambda number, body: rng.choice(["cut", None, 503]))
    worst = []

    async def work(client):
        sample = client.asked(ask(10))
        worst.append(client.price.worst(sample.messages, sample.params, 50))
        done = await asyncio.gather(*(client.ask(ask(i)) for i in range(10, 70)), return_exceptions=True)
        return done, client._ledger.budget

    most = 0.006
    done, budget = run(endpoint, work, most=most)
    assert any(isinstance(one, BudgetSpent) for one in done)
    total = rows(database, "SELECT sum(coalesce(cost, reserved)) FROM llm_attempt")[0][0]
    assert total <= most
    assert total == pytest.approx(budget.spent)
    assert most - total < worst[0]  # and what could be spent was
    paid = len(endpoint.paid)
    done, _ = run(endpoint, work, most=most)
    assert len(endpoint.paid) == paid
    assert rows(database, "SELECT sum(coalesce(cost, reserved)) FROM llm_attempt")[0][0] == total
    assert "--max-usd 0.006" in next(one for one in done if isinstance(one, BudgetSpent)).message


def test_another_job_has_a_budget_of_its_own_and_the_answers_for_nothing(run, database):
    endpoint = Endpoint(simply)
    run(endpoint, lambda client: client.ask(ask()), most=1.0)
    run(endpoint, lambda client: client.ask(ask()), most=0.0, job="other")
    assert len(endpoint.paid) == 1
    with pytest.raises(BudgetSpent):
        run(endpoint, lambda client: client.ask(ask(2)), most=0.0, job="other")


def test_two_that_want_the_same_at_once_pay_for_it_once(run, database):
    endpoint = Endpoint(simply)
    endpoint.gate = asyncio.Event()

    async def work(client):
        class Polling(Clock):
            async def sleep(self, seconds):
                endpoint.gate.set()
                await asyncio.sleep(0.01)

        client._ledger._clock = Polling()
        return await asyncio.gather(client.ask(ask()), client.ask(ask()))

    one, other = run(endpoint, work)
    assert one == other
    assert len(endpoint.requests) == 1


def test_one_probe_learns_what_an_endpoint_understands(run):
    async def work(client):
        return await client.probe()

    assert run(Endpoint(), work) == Capabilities("schema", True, "max_completion_tokens", True)
    plain = Endpoint(lacks=("json_schema", "json_object", "logprobs", "max_completion_tokens", "temperature"))
    assert run(plain, work) == Capabilities("none", False, "max_tokens", False)
    assert run(Endpoint(lacks=("json_schema",)), work) == Capabilities("object", True)


@pytest.fixture(autouse=True)
def _clean(database):
    """Each test sees no earlier one's requests."""


def test_a_probe_trusts_no_silent_acceptance(run):
    """An endpoint that takes every parameter and heeds none."""
    endpoint = Endpoint(fault=lambda number, body: completion("Yes, a cat.", {"model": "m"}))
    assert run(endpoint, lambda client: client.probe()) == Capabilities("none", False)
    assert len(endpoint.paid) == 1


def test_a_vague_refusal_costs_one_ability_after_another(run):
    endpoint = Endpoint(fault=lambda number, body: (400, {}, "{}") if "response_format" in body else None)
    assert run(endpoint, lambda client: client.probe()) == Capabilities("none", True)


def test_waits():
    today = datetime(2026, 11, 21, 12, 0, 0, tzinfo=UTC)
    assert asked_wait({"retry-after": "3"}) == 3.0
    assert asked_wait({"retry-after-ms": "250"}) == 0.25
    assert asked_wait({"retry-after": "Sat, 21 Nov 2026 12:00:30 GMT"}, today) == 30.0
    assert asked_wait({"retry-after": "9999"}) == 120.0
    assert asked_wait({"retry-after": "-5"}) == 0.0
    assert asked_wait({"retry-after": "soon"}) is None
    assert asked_wait({}) is None
    rng = random.Random(1)
    for attempt, most in ((1, 2.0), (3, 8.0), (6, 60.0), (9, 60.0)):
        drawn = [jittered(attempt, rng) for _ in range(500)]
        assert min(drawn) >= 1.0
        assert max(drawn) <= most
        assert max(drawn) > 0.8 * most


def test_the_pace_halves_and_climbs_back():
    pace = Pace(16)
    pace.crowded()
    pace.crowded()
    assert pace.limit == 4
    for _ in range(50):
        pace.good()
    assert pace.limit == 5
    for _ in range(5000):
        pace.good()
    assert pace.limit == 16
    for _ in range(9):
        pace.crowded()
    assert pace.limit == 1


def test_prices():
    models = {"data": [{"id": "a"}, {"id": "m", "pricing": {"prompt": "0.000001", "completion": "0.000003"}}]}
    assert listed(models, "m") == Price(1.0, 3.0, "endpoint")
    assert listed(models, "a") is None
    assert listed({}, "m") is None
    assert listed({"data": [{"id": "m", "pricing": {"prompt": "-1", "completion": "-1"}}]}, "m") is None
    assert chosen((1.0, 2.0), True, None) == PRICE
    assert chosen((None, None), True, None) is LOCAL
    assert chosen((None, None), False, None) is UNKNOWN
    assert chosen((None, None), False, PRICE) is PRICE
    assert cost(Usage(1000, 100, 0.5), PRICE, 9.0) == (0.5, "endpoint")
    assert cost(None, PRICE, 9.0) == (9.0, "given, worst case")
    assert cost(None, UNKNOWN, 0.0) == (None, "unknown")
    # A prompt's worst case holds whatever the tokenizer: a token is a byte at least.
    message = [{"role": "user", "content": "🎉" * 100}]
    assert PRICE.worst(message, {}, 10) >= (400 * 1 + 10 * 2) / 1e6
