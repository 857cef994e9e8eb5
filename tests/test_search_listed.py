"""Search by what the subject lists: a real engine on a subject that lists planted words, a real database."""

import re
import threading
import time
from contextlib import contextmanager
from html import unescape
from pathlib import Path

import pytest
import torch
from fastapi.testclient import TestClient
from sqlalchemy import text

from app.harvest.job import Job, run_job
from app.live.jobs import ListAnswer
from app.live.listing import listing
from app.live.prompt import Target
from app.live.queued import Request
from app.main import create_app
from app.sae.formats import saelens
from app.store import queries as q
from app.store.engine import database_url, sync_engine
from app.store.migrate import migrate
from app.subject.load import load_subject
from app.web import search_listed
from app.web.listings import Listings, Shares
from tests.conftest import database_beside, public_folder, random_sae
from tests.counting import counted_queries
from tests.lister import QUERY, plant
from tests.services import free_port

FIRST, SECOND = "first", "second"
# (SAE, latent): fired, and for each token firings on it and how often it was seen.
FIRES = {
    (FIRST, 33): (50, {" January": (30, 30), " March": (10, 20), " cat": (1, 10)}),
    (FIRST, 5): (100, {" may": (10, 20), " Paris": (40, 80)}),
    (FIRST, 6): (100, {" may": (10, 40)}),
    (SECOND, 7): (8, {"Jan": (2, 2), " Jan": (2, 2)}),
    (SECOND, 8): (8, {" sea": (8, 8)}),
}


@pytest.fixture(scope="module")
def own(settings):
    return database_beside(settings, "listing").model_copy(update={"home": public_folder()})


@pytest.fixture(scope="module")
def saes(own, database, lister, sequences, harvested):
    """Ids by slug, of two SAEs of one subject; every fifth feature has another density."""
    for number, slug in enumerate((FIRST, SECOND)):
        harvest(slug, number, lister, sequences, database, own, harvested[1])
    with database.begin() as connection:
        ids = dict(connection.execute(text("SELECT slug, id FROM sae")).all())
        connection.execute(text("UPDATE latent SET label = 'nothing much', density = 0.01"))
        connection.execute(text("UPDATE latent SET density = 0.03 WHERE index % 5 = 0"))
        for (slug, latent), (fired, tokens) in FIRES.items():
            given = {
                "sae": ids[slug], "latent": latent, "fired": fired,
                "tokens": [lister.encode(token)[0] for token in tokens],
                "values": [on / seen for on, seen in tokens.values()], "seen": [seen for _, seen in tokens.values()],
            }  # fmt: skip
            connection.execute(
                text(
                    "UPDATE latent SET fired = :fired, token_probability_ids = :tokens, token_probability_values ="
                    " :values, token_probability_seen = :seen WHERE sae_id = :sae AND index = :latent"
                ),
                given,
            )
    return ids


def harvest(slug, layer, subject, sequences, database, own, parameters):
    folder = public_folder() / slug
    sae = random_sae(hook=f"model.layers.{layer}:out", seed=layer)
    saelens.write(folder, sae, matrices=torch.float32, metadata={})
    run_job(Job(slug, folder, "test text", 64, parameters), subject, sequences, database, own.home)


@pytest.fixture(scope="module", autouse=True)
def patient():
    """A busy machine may take long; what waits in vain is tested apart."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search_listed, "PATIENCE_S", 120.0)
        yield


@pytest.fixture(scope="module")
def client(own, saes):
    with TestClient(create_app(own)) as client:
        asked(client, "what is searched first")
        yield client


def asked(client, q, **query):
    answer = client.get("/search.json", params={"q": q, **query})
    assert answer.status_code == 200, answer.text
    return answer.json()["result"]


def names(result):
    return [(hit["sae"], hit["index"]) for hit in result["items"]]


def engine_of(client):
    return client.app.state.saescope.engine


def missing(result):
    return [note for note in result["notes"] if note.startswith("Not compared")]


def test_a_feature_that_fires_on_what_the_subject_lists_is_found_where_no_text_says_so(client, lister):
    weight = {item.text: item.weight for item in listing(lister, QUERY).items}
    scores = {
        (FIRST, 33): 0.6 * weight["january"] + 0.2 * weight["march"],
        (FIRST, 5): 0.1 * weight["may"],
        (FIRST, 6): 0.1 * weight["may"],
        (SECOND, 7): 0.5 * weight["jan"],
    }
    result = asked(client, QUERY)
    assert names(result) == sorted(scores, key=lambda key: (-round(scores[key], 9), key[0] != FIRST, key[1]))
    assert result["found"] == 0
    assert result["lists"] == [{"subject": "lister", "words": ["january", "march", "may", "jan"]}]
    assert missing(result) == []
    best = result["items"][0]
    assert best["listed"]["subject"] == "lister"
    assert best["listed"]["share"] == pytest.approx(0.8)
    assert [(word["text"], pytest.approx(word["share"])) for word in best["listed"]["words"]] == [
        ("january", 0.6), ("march", 0.2),
    ]  # fmt: skip
    assert (best["words"], best["meaning"], best["cosine"]) == (None, None, None)
    both = next(hit for hit in result["items"] if hit["sae"] == SECOND)["listed"]["words"]
    assert [(word["text"], word["share"]) for word in both] == [("jan", 0.5)]  # of two tokens that read alike


def test_the_page_says_what_was_listed_and_what_of_that_each_feature_fires_on(client):
    page = unescape(re.sub("</?bdi>", "", client.get("/search", params={"q": QUERY}).text))
    assert "lister lists for this: january, march, may, jan." in page
    assert "fires on january, march (80% of its firings), which lister lists for this" in page
    assert "No explanation or label has the words; these fire on what the model lists." in page
    other = client.get("/search", params={"q": "colors of the sea"}).text
    assert "lists for this" not in other
    assert "what the model lists" not in other
    assert asked(client, "colors of the sea")["lists"] == [{"subject": "lister", "words": []}]
    assert asked(client, "colors of the sea")["items"] == []


def test_lists_are_merged_and_words_stay_in_it(client, database, saes):
    with database.begin() as connection:
        label = text("UPDATE latent SET label = :label WHERE sae_id = :sae AND index = :latent")
        connection.execute(label, {"label": "months", "sae": saes[FIRST], "latent": 20})
        connection.execute(label, {"label": "the months, all months", "sae": saes[FIRST], "latent": 6})
    try:
        result = asked(client, QUERY)
        assert names(result)[0] == (FIRST, 6)  # in both lists
        assert set(names(result)[1:3]) == {(FIRST, 20), (FIRST, 33)}  # the first of one each
        assert result["found"] == 2
        by_key = {(hit["sae"], hit["index"]): hit for hit in result["items"]}
        assert by_key[FIRST, 6]["words"]
        assert by_key[FIRST, 6]["listed"]["words"][0]["text"] == "may"
        assert by_key[FIRST, 20]["listed"] is None
        assert by_key[FIRST, 33]["words"] is None
    finally:
        with database.begin() as connection:
            connection.execute(text("UPDATE latent SET label = 'nothing much'"))


@pytest.mark.parametrize(
    ("filters", "left"),
    [
        ({"sae": SECOND}, [(SECOND, 7)]),
        ({"layer": 1}, [(SECOND, 7)]),
        ({"density_min": "2%"}, [(FIRST, 5)]),
        ({"density_max": "2%"}, [(FIRST, 33), (SECOND, 7), (FIRST, 6)]),
        ({"density_min": "50%"}, []),
        ({"method": "nobody"}, []),
        ({"fires": "negative"}, []),
    ],
)
def test_filters_hold(client, filters, left):
    assert names(asked(client, QUERY, **filters)) == left


def test_a_query_is_asked_of_the_model_once_whatever_page_and_filter(client):
    asked(client, f"{QUERY} of a year")
    before = engine_of(client).forwards
    first = asked(client, f"{QUERY}   of a  year ", top=2)
    second = asked(client, f"{QUERY} of a year", top=2, after=2)
    assert (len(first["items"]), first["next"], second["next"]) == (2, 2, None)
    assert names(first) + names(second) == names(asked(client, f"{QUERY} of a year"))
    assert len(names(asked(client, f"{QUERY} of a year", sae=SECOND, density_max="2%"))) == 1
    assert engine_of(client).forwards == before
    asked(client, f"{QUERY} of that year")
    assert engine_of(client).forwards == before + 1


@pytest.mark.parametrize("query", [f'"{QUERY}"', f"{QUERY} -year", f"-{QUERY}", f'{QUERY} "', "-- months"])
def test_whoever_wants_these_very_words_gets_no_list(client, query):
    before = engine_of(client).forwards
    result = asked(client, query)
    assert (result["lists"], missing(result)) == ([], [])
    assert not any(hit["listed"] for hit in result["items"])
    assert engine_of(client).forwards == before


def test_a_hyphen_within_a_word_is_no_minus(client):
    assert names(asked(client, f"well-known {QUERY}")) == []  # its token stands behind a space there
    assert asked(client, f"{QUERY} of mid-year")["lists"][0]["words"]


def test_a_list_takes_no_statement_and_with_filters_one(client):
    for filters, more in (({}, 0), ({"density_max": "2%"}, 1)):
        counts = []
        for query in (f'"{QUERY}"', QUERY):
            asked(client, query, **filters)
            with counted_queries(client) as statements:
                asked(client, query, **filters)
            counts.append(len(statements))
        listed = asked(client, QUERY, **filters)
        assert listed["items"]
        assert counts[1] - counts[0] == more + 1, counts  # and one for the hits, which the other has not


# Why there is no list.


@contextmanager
def held(client, lister):
    """The engine's thread is at work as long as the block runs."""
    begun, go = threading.Event(), threading.Event()

    def steps(_subject, _probes):
        begun.set()
        go.wait(300)
        yield "done"

    aim = Target("none", "lister", lister.path, Path("none"))
    request = Request([aim], saes=False, steps=steps, tell=lambda _: None)
    engine_of(client)._submit(request)
    try:
        assert begun.wait(300)
        yield
    finally:
        go.set()
        request.future.result(300)


def test_a_model_that_is_slow_is_waited_for_so_long_and_no_longer(client, lister, monkeypatch):
    monkeypatch.setattr(search_listed, "PATIENCE_S", 0.3)
    with held(client, lister):
        started = time.monotonic()
        page = client.get("/search", params={"q": f"{QUERY} of his"})
        assert time.monotonic() - started < 100
        assert page.status_code == 200
        assert "Not compared with what lister lists: it has not answered in time" in page.text
        assert names(asked(client, QUERY))  # which is known
    monkeypatch.setattr(search_listed, "PATIENCE_S", 120.0)
    assert names(asked(client, f"{QUERY} of his"))
    assert engine_of(client).pending == 0


def test_an_engine_that_is_full_or_stopped_leaves_the_page_as_it_was(own, saes, lister):
    with TestClient(create_app(own.model_copy(update={"engine_waiting": 1}))) as client:
        client.portal.call(lambda: client.app.state.warming)
        with held(client, lister):
            (told,) = missing(asked(client, QUERY))
            assert told.startswith("Not compared with what lister lists: 1 requests are waiting")
        assert names(asked(client, QUERY))
        engine_of(client).stop()
        for path in ("/search", "/search.json"):
            answer = client.get(path, params={"q": f"{QUERY} of hers"})
            assert (answer.status_code, "is being stopped" in answer.text) == (200, True)
        assert names(asked(client, QUERY))


def test_services_that_are_away_leave_the_page_as_it_was(own, saes):
    away = own.model_copy(update={"infer_url": f"http://127.0.0.1:{free_port()}"})
    with TestClient(create_app(away)) as client:
        (told,) = missing(asked(client, QUERY))
        assert "The inference service does not answer" in told
        assert client.get("/search", params={"q": QUERY}).status_code == 200


def test_a_client_in_debt_gets_its_search_without_a_list(own, saes):
    with TestClient(create_app(own.model_copy(update={"client_tokens": 20, "client_requests": 4}))) as client:
        assert names(asked(client, QUERY))  # 70 tokens, of which it pays for most afterwards
        (told,) = missing(asked(client, f"{QUERY} of ours"))
        assert "You have used your 20 tokens a minute" in told
        assert names(asked(client, QUERY))  # costs nothing


def test_a_model_that_is_gone_leaves_the_page_as_it_was(own, database, saes):
    with database.begin() as connection:
        path = connection.execute(text("SELECT path FROM subject")).scalar_one()
        connection.execute(text("UPDATE subject SET path = 'nowhere'"))
    try:
        with TestClient(create_app(own)) as client:
            (told,) = missing(asked(client, QUERY))
            assert "No model at" in told
    finally:
        with database.begin() as connection:
            connection.execute(text("UPDATE subject SET path = :p"), {"p": path})


def test_so_many_features_are_not_scored(client, monkeypatch):
    monkeypatch.setattr(search_listed, "LARGEST", 79)
    result = asked(client, QUERY)
    assert result["items"] == []
    assert "More than 79 features are searched" in result["notes"][-1]
    assert names(asked(client, QUERY, sae=SECOND)) == [(SECOND, 7)]


def test_tokens_that_take_long_to_read_are_read_on_while_the_page_is_answered(own, saes, monkeypatch):
    monkeypatch.setattr(search_listed, "PATIENCE_S", 0.2)
    with TestClient(create_app(own)) as client:
        state = client.app.state.saescope
        client.portal.call(state.token_shares._turn.acquire)  # as if others were being read
        (told,) = missing(asked(client, QUERY))
        assert "are being read; search again" in told
        assert len(state.token_shares._coming) == 2
        client.portal.call(state.token_shares._turn.release)
        while state.token_shares._coming:
            client.get("/healthz")
        monkeypatch.setattr(search_listed, "PATIENCE_S", 120.0)
        with counted_queries(client) as statements:
            assert names(asked(client, QUERY))
        assert not any("token_probability_seen" in statement for statement in statements)


@pytest.fixture(scope="module")
def crowded(settings, lister, sequences, harvested):
    """Settings of a database with an SAE of each of four subjects, the fourth's harvest older than token counts."""
    own = database_beside(settings, "crowded").model_copy(update={"home": public_folder()})
    engine = sync_engine(database_url(own))
    migrate(engine)
    for number in range(4):
        folder = public_folder() / f"lister{number}"
        plant(lister.tokenizer, folder, seed=number)
        subject = load_subject(folder, f"lister{number}", dtype="float32", device="cpu")
        harvest(f"of-{number}", 0, subject, sequences, engine, own, harvested[1])
    token = lister.encode(" may")[0]
    with engine.begin() as connection:
        connection.execute(
            text(
                "UPDATE latent SET fired = 10, token_probability_ids = ARRAY[CAST(:t AS int)], token_probability_values"
                " = ARRAY[0.5], token_probability_seen = ARRAY[10] WHERE index = 3"
            ),
            {"t": token},
        )
        connection.execute(
            text(
                "UPDATE latent SET token_probability_ids = NULL, token_probability_values = NULL,"
                " token_probability_seen = NULL WHERE sae_id = (SELECT id FROM sae WHERE slug = 'of-3')"
            )
        )
    engine.dispose()
    return own


def test_two_subjects_are_asked_and_what_is_left_out_is_said(crowded):
    with TestClient(create_app(crowded)) as client:
        result = asked(client, QUERY)
        asked_of = [one["subject"] for one in result["lists"]]
        assert len(asked_of) == 2
        assert {(hit["sae"], hit["index"], hit["listed"]["subject"]) for hit in result["items"]} == {
            (f"of-{subject[-1]}", 3, subject) for subject in asked_of
        }
        assert any(f"Only {' and '.join(asked_of)} were asked what they list" in note for note in result["notes"])
        assert any(note.startswith("The harvest of of-3 did not count") for note in result["notes"])
        alone = asked(client, QUERY, sae="of-3")
        assert (alone["items"], alone["lists"]) == ([], [])


# What is kept.


def test_answers_used_longest_ago_are_given_up():
    kept, one = Listings(most=2), ListAnswer([], 1)
    model, other = (Path("a"), None), (Path("a"), "hash")
    kept.add(model, "x", one)
    kept.add(other, "x", one)
    assert kept.get(model, "x") is one
    kept.add(model, "y", one)
    assert [kept.get(*key) is None for key in ((model, "x"), (other, "x"), (model, "y"))] == [False, True, False]


def test_shares_are_read_once_and_kept_within_bytes(client):
    state = client.app.state.saescope

    async def records():
        async with state.database.connect() as connection:
            return await q.list_saes(connection)

    two = client.portal.call(records)

    async def reads(most):
        kept = Shares(state.reads, state.later, most=most)
        counts = []
        for some in (two, two, two[:1], two[1:]):
            with counted_queries(client) as statements:
                found = await kept.get(some)
            assert set(found) == {sae.id for sae in some}
            counts.append(len(statements))
        return counts, sum(one.nbytes for one in found.values())

    counts, nbytes = client.portal.call(reads, 1 << 20)
    assert counts == [2, 0, 0, 0]
    assert client.portal.call(reads, nbytes)[0] == [2, 1, 1, 1]
    assert client.portal.call(reads, 0)[0] == [2, 2, 1, 1]
