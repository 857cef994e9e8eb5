"""A new harvest takes the place of an old one under the eyes of readers."""

import threading
from dataclasses import replace

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import insert, text

from app.harvest.job import Job, run_job
from app.main import create_app
from app.store import tables as t
from app.store.bulk import CorpusRows, _upsert_corpus
from app.store.replace import drop_older, sweep
from tests.conftest import database_beside
from tests.counting import counted_queries


@pytest.fixture(scope="module")
def own(settings):
    return database_beside(settings, "replacing")


def partitions(engine):
    query = "SELECT inhrelid::regclass::text FROM pg_inherits JOIN pg_class ON oid = inhparent WHERE relkind = 'p'"
    with engine.connect() as connection:
        names = connection.execute(text(query)).scalars().all()
        return sorted(name for name in names if name.startswith(("latent_", "example_", "context_", "posting_")))


def test_readers_see_one_revision_or_the_other_and_never_neither(database, own, harvested, tiny, sequences):
    _, parameters, folder = harvested
    slug = "replaced"
    jobs = [Job(slug, folder, "test text", 64, replace(parameters, seed=seed)) for seed in range(4)]
    first = run_job(jobs[0], tiny, sequences, database, own.home)
    faults, revisions, done = [], set(), threading.Event()
    with TestClient(create_app(own)) as client:

        def read():
            while not done.is_set():
                for path in (f"/saes/{slug}/features/7.json", f"/saes/{slug}.json", f"/saes/{slug}/features.json"):
                    answer = client.get(path)
                    if answer.status_code != 200:
                        faults.append((path, answer.text))
                    elif "revision" in answer.json():
                        revisions.add(answer.json()["revision"])
                        if "examples" in answer.json() and not answer.json()["examples"]:
                            faults.append((path, "no examples"))

        reader = threading.Thread(target=read)
        reader.start()
        made = [run_job(job, tiny, sequences, database, own.home, replace_older=True) for job in jobs[1:]]
        done.set()
        reader.join()
        assert faults == []
        assert len(revisions) >= 2
        assert revisions <= {first, *made}
        assert client.get(f"/saes/{slug}@{first}").status_code == 404
        assert client.get(f"/saes/{slug}@{made[-1]}").status_code == 200
    assert len(partitions(database)) == 4


def test_a_page_that_was_being_read_is_waited_for(database, own, harvested, tiny, sequences):
    """The old rows stay as long as a transaction that began before the change is open."""
    _, parameters, folder = harvested
    old = run_job(Job("waited", folder, "test text", 64, parameters), tiny, sequences, database, own.home)
    with database.connect() as reader:
        number = reader.execute(text("SELECT id FROM sae WHERE revision = :r"), {"r": old}).scalar_one()
        new = run_job(
            Job("waited", folder, "test text", 64, replace(parameters, seed=9)), tiny, sequences, database, own.home
        )
        dropping = threading.Thread(target=drop_older, args=(database, own.home, "waited", new))
        dropping.start()
        dropping.join(1.0)
        assert dropping.is_alive()
        query = text("SELECT count(*) FROM latent WHERE sae_id = :id")
        assert reader.execute(query, {"id": number}).scalar_one() == 40
    dropping.join(300)
    assert not dropping.is_alive()
    assert f"latent_{number}" not in partitions(database)


def test_a_corpus_that_a_harvest_is_being_saved_over_is_not_swept(database, own, harvested, tiny, sequences):
    """It has been found, and nothing refers to it yet."""
    _, parameters, folder = harvested
    run_job(Job("using", folder, "test text", 64, parameters), tiny, sequences, database, own.home)
    corpus = CorpusRows("test text", sequences.sha256(), 64, 0, lambda: iter(()), lambda: iter(()))
    with database.begin() as connection:
        held = connection.execute(text("SELECT * FROM sae WHERE slug = 'using'")).mappings().one()
        kept = connection.execute(text("SELECT * FROM harvest WHERE sae_id = :id"), held).mappings().one()
        connection.execute(text("DELETE FROM sae"))
    with database.connect() as saving:
        number = _upsert_corpus(saving, corpus)
        sweeping = threading.Thread(target=sweep, args=(database,))
        sweeping.start()
        sweeping.join(1.0)
        assert sweeping.is_alive()
        saving.execute(insert(t.sae).values(**held))
        saving.execute(insert(t.harvest).values(**{**kept, "corpus_id": number}))
        saving.commit()
    sweeping.join(300)
    assert not sweeping.is_alive()
    with database.begin() as connection:
        assert connection.execute(text("SELECT count(*) FROM corpus")).scalar_one() == 1
        connection.execute(text("DELETE FROM sae"))


def test_what_a_killed_replacement_left_is_swept(database, own, harvested, tiny, sequences):
    _, parameters, folder = harvested
    sweep(database)
    before = partitions(database)
    run_job(Job("swept", folder, "test text", 64, parameters), tiny, sequences, database, own.home)
    assert len(partitions(database)) == len(before) + 4
    with database.begin() as connection:  # as far as drop_older had come
        connection.execute(text("DELETE FROM sae WHERE slug = 'swept'"))
    sweep(database)
    assert partitions(database) == before


def test_a_prompt_is_read_with_what_took_the_place_at_once(database, own, harvested, tiny, sequences):
    """The model begins with the SAE as it was when it was last asked for."""
    _, parameters, folder = harvested
    made, read = [], []
    with TestClient(create_app(own)) as client:
        for seed in (20, 21):
            job = Job("again", folder, "test text", 64, replace(parameters, seed=seed))
            made.append(run_job(job, tiny, sequences, database, own.home, replace_older=True))
            for body in ({"sae": "again"}, {"sae": ["again"]}, {"sae": "again", "predict": True}):
                answer = client.post("/api/inspect", json={**body, "text": f"The old harbour of {seed}"})
                read.append(answer.json()["saes"][0]["revision"])
        gone = client.post("/api/inspect", json={"sae": f"again@{made[0]}", "text": "The old harbour"})
        state = client.app.state.saescope
        for scales in (state._scales, {}):  # those of the SAE that went were read before, or were not
            with database.begin() as connection:
                connection.execute(text("DELETE FROM sae WHERE slug = 'again'"))
            state._scales = scales
            left = client.post("/api/inspect", json={"sae": "again", "text": f"The new harbour {len(scales)}"})
            assert (left.status_code, "no SAE" in left.json()["message"]) == (404, True)
    assert read == [made[0]] * 3 + [made[1]] * 3
    assert gone.status_code == 404
    sweep(database)


def test_a_page_shows_what_took_the_place_at_once_and_says_when_it_is_gone(database, own, harvested, tiny, sequences):
    """What a feature's page is made from is asked for as of the SAE that its address last stood for."""
    _, parameters, folder = harvested
    made, read, asked = [], [], []
    path = "/saes/paged/features/7"
    with TestClient(create_app(own)) as client:
        for seed in (30, 31):
            job = Job("paged", folder, "test text", 64, replace(parameters, seed=seed))
            made.append(run_job(job, tiny, sequences, database, own.home, replace_older=True))
            for address in ("paged", "paged", f"paged@{made[-1]}"):
                with counted_queries(client) as statements:
                    page = client.get(f"/saes/{address}/features/7.json").json()
                asked.append(len(statements))
                read.append((page["revision"], page["address"], len(page["examples"])))
        tag = client.get(path).headers["etag"]
        with counted_queries(client) as statements:
            assert client.get(path, headers={"if-none-match": tag}).status_code == 304
        assert len(statements) == 1
        assert client.get(f"/saes/paged@{made[0]}/features/7").status_code == 404
        beyond = client.get("/saes/paged/features/100000.json")
        far = client.get(f"/saes/paged/features/{10**12}.json")
        with database.begin() as connection:
            connection.execute(text("DELETE FROM sae WHERE slug = 'paged'"))
        gone = client.get(f"{path}.json")
    assert [revision for revision, _, _ in read] == [made[0]] * 3 + [made[1]] * 3
    assert [address for _, address, _ in read] == [a for r in made for a in ("paged", "paged", f"paged@{r}")]
    assert all(examples for _, _, examples in read)
    assert max(asked) == asked[3] > asked[1] == asked[0] == asked[2] == asked[4]
    assert beyond.status_code == 404
    assert far.status_code == 404
    assert beyond.json()["detail"] == {"index": 100000, "first": 0, "last": 39}
    assert gone.status_code == 404
    assert "There is no SAE 'paged' here" in gone.text
    sweep(database)
