"""Documents into sequences, and the store on disk that a thread fills ahead of the harvest."""

import threading

import numpy as np
import pytest

from app.corpus.sequences import Held, Sequence, cut
from app.corpus.sources import Document
from app.corpus.store import TokenStore
from app.errors import CorpusUnavailable

BOS, EOS = 1, 2


def encode(text):
    """One id a word: ``a3`` is three of them."""
    return [10 + ord(word[0]) - ord("a") for word in text.split() for _ in range(int(word[1:]))]


def made(documents, **options):
    options = {"bos_id": BOS, "context": 9, "shortest": 2, **options}
    found = cut([Document(name, text) for name, text in documents], encode, **options)
    return [(s.token_ids.tolist(), s.document, s.number, s.joins) for s in found]


def test_each_document_on_its_own():
    assert made([("x", "a10"), ("y", "b1"), ("z", "c3")]) == [
        ([BOS] + [10] * 8, "x", 0, ()),
        ([BOS, 10, 10], "x", 0, ()),
        ([BOS, 12, 12, 12], "z", 2, ()),
    ]


def test_packed_documents_follow_one_another():
    documents = [("x", "a10"), ("empty", ""), ("y", "b2"), ("z", "c3"), ("w", "d9")]
    assert made(documents, separator=EOS) == [
        ([BOS] + [10] * 8, "x", 0, ()),
        ([BOS, 10, 10, EOS, 11, 11, EOS, 12, 12], "x", 0, ((4, "y"), (7, "z"))),
        ([BOS, 12, EOS] + [13] * 6, "z", 2, ((3, "w"),)),
        ([BOS, 13, 13, 13], "w", 3, ()),
    ]


def test_a_document_that_begins_a_packed_row_is_its_first():
    assert made([("x", "a7"), ("y", "b8"), ("z", "c2")], separator=EOS) == [
        ([BOS] + [10] * 7 + [EOS], "x", 0, ()),
        ([BOS] + [11] * 8, "y", 1, ()),
        ([BOS, 12, 12], "z", 2, ()),
    ]


def test_the_limit_counts_tokens_and_bos_is_not_doubled():
    assert made([("x", "a10")], tokens=9) == [([BOS] + [10] * 8, "x", 0, ())]
    assert made([("x", "a10")], tokens=5) == [([BOS] + [10] * 5, "x", 0, ())]
    read = []

    def documents():
        for name in "xyz":
            read.append(name)
            yield Document(name, "a10")

    found = cut(documents(), encode, bos_id=BOS, context=9, shortest=2, tokens=9)
    assert [len(s.token_ids) for s in found] == [9]
    assert read == ["x"]  # the one token that is still wanted makes no sequence
    with_bos = cut([Document("x", "")], lambda text: [BOS, 7, 8, 9], bos_id=BOS, context=9, shortest=2)
    assert [s.token_ids.tolist() for s in with_bos] == [[BOS, 7, 8, 9]]


def some(count=300):
    random = np.random.default_rng(0)
    return [
        Sequence(random.integers(0, 99, random.integers(3, 40)).astype(np.int32), f"d{i // 3} é", i // 3)
        for i in range(count)
    ]


def same(a, b):
    return a.token_ids.tolist() == b.token_ids.tolist() and a[1:] == b[1:]


def test_what_was_written_is_read_in_any_order(tmp_path):
    rows = some()
    rows[5] = rows[5]._replace(joins=((2, "d2 é"),))
    with TokenStore(tmp_path) as store:
        store.fill(lambda: iter(rows))
        assert all(same(a, b) for a, b in zip(store, rows, strict=True))
        assert all(same(store[i], rows[i]) for i in (299, 0, 150, 5))
        assert len(store) == 300
        assert store.complete
        assert store.sha256() == Held(rows).sha256()
        assert store.lengths().tolist() == Held(rows).lengths().tolist()
        assert list(store.names()) == list(Held(rows).names())
        with pytest.raises(IndexError):
            store[300]


def test_a_reader_waits_for_what_is_still_to_come(tmp_path):
    rows, go = some(200), threading.Event()

    def slowly():
        yield from rows[:100]
        assert go.wait(300)
        yield from rows[100:]

    with TokenStore(tmp_path) as store:
        store.fill(slowly)
        assert same(store[50], rows[50])
        assert not store.complete
        threading.Timer(0.2, go.set).start()
        assert same(store[199], rows[199])


def test_the_reader_gets_what_stopped_the_source_after_all_that_came_before(tmp_path):
    rows = some(128)

    def broken():
        yield from rows
        raise CorpusUnavailable("The corpus ended.")

    with TokenStore(tmp_path) as store:
        store.fill(broken)
        assert same(store[127], rows[127])
        with pytest.raises(CorpusUnavailable, match="ended"):
            store[128]
        with pytest.raises(CorpusUnavailable, match="ended"):
            len(store)
        assert not store.complete


def test_ctrl_c_as_the_thread_is_being_started_is_ctrl_c(tmp_path, monkeypatch):
    def start(thread):
        raise KeyboardInterrupt

    monkeypatch.setattr(threading.Thread, "start", start)
    with pytest.raises(KeyboardInterrupt), TokenStore(tmp_path) as store:
        store.fill(lambda: iter(some()))


def test_closing_stops_the_thread(tmp_path):
    def endless():
        while True:
            yield from some(10)

    store = TokenStore(tmp_path)
    store.fill(endless)
    store[0]
    store.close()
    assert not store._thread.is_alive()


def test_tokens_are_counted_without_the_special_ones(tmp_path, monkeypatch):
    rows = [Sequence(np.array([BOS, 7, 8, EOS, 9], dtype=np.int32), "a"), Sequence(np.array([BOS, 7]), "b", 1)]
    monkeypatch.setattr("app.corpus.store.READ", 8)
    with TokenStore(tmp_path) as store:
        store.fill(lambda: iter(rows))
        for corpus in (Held(rows), store):
            assert (corpus.counted([BOS, EOS]), corpus.counted([BOS]), corpus.counted([])) == (4, 5, 7)
