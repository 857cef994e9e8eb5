"""What a subject lists for a query, and how much of what latents fire on is that."""

import asyncio
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text

from app.errors import EmptyText, SubjectUnavailable, TextTooLong
from app.live import listing as module
from app.live.engine import Engine
from app.live.jobs import Listed, ListJob
from app.live.listed_scores import Scored, on_list, scored, scores
from app.live.listing import GENERIC, LEAST, MOST, SHOTS, Forms, listing, weights
from app.live.prompt import Target
from app.live.residents import Residents
from app.store import token_shares as store
from app.store.engine import async_engine, database_url
from app.store.token_shares import TokenShares, read_token_shares
from app.subject.load import load_subject
from app.subject.tokens import Vocabulary
from tests.lister import LISTED, PLANTED, QUERY


def by_hand(subject, query):
    """{word: (weight, probability, tokens)} from the model's own logits on whole prompts, a token at a time."""

    def told(asked):
        ids = torch.tensor([[subject.bos_id, *subject.encode(f"{SHOTS}{asked}:")]])
        with torch.inference_mode():
            p = torch.softmax(subject.model(input_ids=ids).logits[0, -1].float(), 0).double().tolist()
        found = {}
        for token, probability in enumerate(p):
            word = subject.vocabulary.text(token).strip().casefold()
            if word.isalpha() and len(word) > 1:
                known, tokens = found.get(word, (0.0, []))
                found[word] = known + probability, [*tokens, token]
        return found

    generic = [told(one) for one in GENERIC]
    out = {}
    for word, (p, tokens) in told(query).items():
        weight = math.log(p / max(sum(one[word][0] for one in generic) / len(generic), 1e-9))
        if p > LEAST and weight > 0:
            out[word] = weight, p, tokens
    return out


def as_table(answer):
    return {item.text: (item.weight, item.probability, item.tokens) for item in answer.items}


def test_forms_are_what_tokens_read_as():
    forms = Forms.among(Vocabulary([b" May", b"may", b"7", b"a", b"\xff", b" MAY\n", b"\xd7\xa9\xd7\x9c", b"it's"]))
    assert forms.texts == ["may", "של"]
    assert forms.of.tolist() == [0, 0, 2, 2, 2, 0, 1, 2]
    p = np.array([0.1, 0.2, 0.05, 0.05, 0.05, 0.15, 0.3, 0.05, 0.05])  # one id more than the vocabulary names
    assert forms.total(p).tolist() == pytest.approx([0.45, 0.3])
    assert forms.total(p[:2]).tolist() == pytest.approx([0.3, 0.0])


def test_weights_are_logs_against_the_generic_ones_of_what_is_likely_enough():
    p = np.array([0.5, 0.2, 0.2, 9e-5, 0.1, 0.01])
    generic = np.array([0.1, 0.4, 0.05, 1e-8, 0.0, 0.01])
    assert weights(p, generic).tolist() == pytest.approx([math.log(5), 0, math.log(4), 0, math.log(1e8), 0])


def test_the_greatest_weights_are_kept_and_no_more(monkeypatch):
    monkeypatch.setattr(module, "MOST", 2)
    p, generic = np.full(4, 0.2), np.array([0.1, 0.05, 0.1, 0.02])
    assert np.flatnonzero(weights(p, generic)).tolist() == [1, 3]
    assert weights(np.full(3, np.nan), np.full(3, 0.1)).tolist() == [0, 0, 0]


def test_a_subject_lists_what_its_weights_say_and_nothing_where_they_say_nothing(lister):
    answer = listing(lister, f"  {QUERY} \n")
    assert set(as_table(answer)) == set(LISTED)
    for word, tokens in LISTED.items():
        weight, p, ids = as_table(answer)[word]
        assert {lister.encode(token)[0] for token in tokens} <= set(ids)
        # e^folds each, over those of all that is planted and 1 for each other token
        whole = sum(map(math.exp, PLANTED.values())) + lister.n_tokens - len(PLANTED)
        assert p == pytest.approx(sum(math.exp(PLANTED[token]) for token in tokens) / whole, rel=0.01)
        assert {lister.vocabulary.text(token).strip().casefold() for token in ids} == {word}
        assert weight == pytest.approx(math.log(p * lister.n_tokens / len(ids)))
    assert [item.weight for item in answer.items] == sorted((i.weight for i in answer.items), reverse=True)
    assert answer.read == 1 + len(lister.encode(f"{SHOTS}{QUERY}:"))
    assert listing(lister, "colors of the sea").items == []


@pytest.mark.parametrize("query", ["months", "🎉 שלום", "a" * 500])
@pytest.mark.parametrize("name", ["lister", "tiny"])
def test_what_is_listed_is_what_whole_prompts_give(request, name, query):
    subject = request.getfixturevalue(name)
    answer, wanted = listing(subject, query), by_hand(subject, query)
    best = sorted(wanted, key=lambda word: -wanted[word][0])[:MOST]
    assert len(answer.items) == len(best)
    for item in answer.items:
        weight, p, tokens = wanted[item.text]
        assert (item.weight, item.probability) == (pytest.approx(weight, abs=1e-5), pytest.approx(p, rel=1e-5))
        assert item.tokens == tokens
        assert item.weight >= wanted[best[-1]][0] - 1e-5


def test_a_subject_that_keeps_a_state_or_nothing_is_read_whole(tiny_folder):
    subject = load_subject(tiny_folder, "tiny", dtype="float32", device="cpu")
    told = as_table(listing(subject, "negation"))
    other = load_subject(tiny_folder, "tiny", dtype="float32", device="cpu")
    other.model._is_stateful = True
    assert module._begin(other) is None
    for word, (weight, p, tokens) in as_table(listing(other, "negation")).items():
        assert told[word] == (pytest.approx(weight, abs=1e-5), pytest.approx(p, rel=1e-5), tokens)


def test_what_cannot_be_asked_is_refused(tiny_folder):
    subject = load_subject(tiny_folder, "tiny", dtype="float32", device="cpu")
    with pytest.raises(EmptyText):
        listing(subject, " ")
    with pytest.raises(TextTooLong):
        listing(subject, "words " * 3000)
    subject.model.config.max_position_embeddings = 20
    with pytest.raises(TextTooLong, match="the limit is 19"):
        listing(subject, "words")


def test_the_engine_asks_the_subject_alone_whatever_it_may_be_sent(lister, tmp_path):
    """The SAE's files are not needed, and the readers' limit is not the list's."""
    engine = Engine(Residents(None, dtype="float32", device="cpu"), max_tokens=8)
    engine.start()

    async def ask(path):
        aim = Target("one", "lister", path, tmp_path / "no SAE")
        return [answer async for answer in engine.run([aim], ListJob(QUERY))]

    assert asyncio.run(ask(lister.path)) == [listing(lister, QUERY)]
    assert (engine.forwards, engine.pending) == (1, 0)
    with pytest.raises(SubjectUnavailable):
        asyncio.run(ask(tmp_path))
    engine.stop()


def test_the_real_subject_lists_months_and_negations(real_folder):
    subject = load_subject(real_folder, "real", dtype="float32", device="cpu")
    months = [item.text for item in listing(subject, "months of the year").items]
    names = {"january", "february", "april", "june", "july", "august", "september", "october", "november", "december"}
    assert len(names & set(months)) >= 4
    assert {"january", "february"} <= set(months[:5])
    assert listing(subject, "negation").items[0].text == "not"


# Latents by what is listed.

MAY = Listed("may", 2.0, 0.2, [3, 5])
NOT = Listed("not", 0.5, 0.1, [8])
SHARES = TokenShares(
    np.array([[3, 5, 1], [8, -1, -1], [2, 1, 0], [5, 8, 3], [-1, -1, -1]], np.int32),
    np.array([[0.5, 0.25, 0.125], [0.5, 0, 0], [1, 0, 0], [0.25, 0.5, 0.5], [0, 0, 0]], np.float32),
)


def test_a_score_is_the_sum_of_weights_times_shares():
    assert scores(SHARES, [MAY, NOT]).tolist() == [1.5, 0.25, 0, 1.75, 0]
    assert scores(SHARES, []).tolist() == [0] * 5
    assert scores(SHARES, [Listed("far", 1.0, 0.1, [900])]).tolist() == [0] * 5


def test_latents_of_several_saes_are_one_list_and_filters_keep_their_order():
    found = scored([(7, SHARES, [MAY, NOT]), (4, SHARES, [NOT])])
    assert found.keys(9) == [(7, 3), (7, 0), (4, 1), (4, 3), (7, 1)]
    assert found.score.tolist() == [1.75, 1.5, 0.25, 0.25, 0.25]
    assert found.keys(2) == [(7, 3), (7, 0)]
    assert found.within({7: [0, 1, 4], 4: {3}}).keys(9) == [(7, 0), (4, 3), (7, 1)]
    assert found.within({}).keys(9) == []
    assert scored([]).within({7: [0]}) is not None
    assert scored([(7, SHARES, [])]).keys(9) == []


def test_the_words_a_latent_fires_on_are_said_once_each():
    assert on_list(SHARES, 0, [MAY, NOT]) == [("may", 0.75)]
    assert on_list(SHARES, 3, [MAY, NOT]) == [("may", 0.75), ("not", 0.5)]
    assert on_list(SHARES, 4, [MAY, NOT]) == []


@given(st.data())
def test_scores_are_those_of_a_sum_token_by_token(data):
    n, k = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 4))
    some = st.integers(-1, 9)
    ids = np.array(data.draw(st.lists(st.lists(some, min_size=k, max_size=k), min_size=n, max_size=n)), np.int32)
    shares = np.where(ids >= 0, np.random.default_rng(0).random(ids.shape), 0).astype(np.float32)
    words = data.draw(st.dictionaries(st.integers(0, 12), st.floats(0.01, 9), max_size=8))
    listed = [Listed(f"w{token}", weight, 0.1, [token]) for token, weight in words.items()]
    wanted = [
        sum(words.get(int(i), 0) * float(s) for i, s in zip(row, share, strict=True))
        for row, share in zip(ids, shares, strict=True)
    ]
    assert scores(TokenShares(ids, shares), listed).tolist() == pytest.approx(wanted)
    best = scored([(1, TokenShares(ids, shares), listed)])
    assert isinstance(best, Scored)
    assert best.latent.tolist() == sorted((i for i in range(n) if wanted[i] > 0), key=lambda i: (-wanted[i], i))


def test_shares_are_what_the_harvest_counted(monkeypatch, harvested, settings, engine):
    monkeypatch.setattr(store, "CHUNK", 7)  # of 40 latents
    with engine.connect() as connection:
        sae = connection.execute(text("SELECT id FROM sae WHERE revision = :r"), {"r": harvested[0]}).scalar_one()
        rows = connection.execute(
            text(
                "SELECT fired, token_probability_ids, token_probability_values, token_probability_seen FROM latent"
                " WHERE sae_id = :s ORDER BY index"
            ),
            {"s": sae},
        ).all()

    async def read(n):
        database = async_engine(database_url(settings))
        async with database.connect() as connection:
            found = await read_token_shares(connection, sae, n), await read_token_shares(connection, -1, 100)
        await database.dispose()
        return found

    found, none = asyncio.run(read(40))
    assert none is None
    assert found.ids.shape == found.shares.shape == (40, max(len(row[1]) for row in rows))
    assert (found.ids.dtype, found.shares.dtype) == (np.int32, np.float32)
    for row, ids, shares in zip(rows, found.ids.tolist(), found.shares.tolist(), strict=True):
        fired, tokens, values, seen = row
        there = len(tokens)
        assert ids[:there] == tokens
        assert set(ids[there:]) <= {-1}
        assert not any(shares[there:])
        counts = [round(p * s) for p, s in zip(values, seen, strict=True)]
        assert shares[:there] == pytest.approx([count / fired for count in counts], rel=1e-6)
    assert any(row[1] for row in rows)
