"""`saescope explain`: from a harvest to the database and its pages, what carries on, and what goes with the SAE."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from fastapi.testclient import TestClient
from sqlalchemy import select, text

from app.corpus.sequences import Held, cut
from app.corpus.sources import Document
from app.errors import ExplainRunning
from app.explain import codes
from app.explain.sample import choose
from app.harvest.job import Job, run_job
from app.harvest.reader import Reader
from app.main import create_app
from app.sae.formats import saelens
from app.store import tables as t
from app.store.explanation_bulk import explain_lock
from app.store.labels import relabel
from app.store.replace import remove
from tests.conftest import database_beside, public_folder, random_sae
from tests.counting import counted_queries

SLUG = "told"
NOUNS = ("cat", "dog", "river", "city", "Paris", "Seine", "sun", "warm", "mat", "lot", "king", "queen", "film", "word",
         "temple", "island")  # fmt: skip


def documents():
    """Thirty, no two alike."""
    for number in range(30):
        a, b, c = NOUNS[number % 16], NOUNS[(3 * number + 1) % 16], NOUNS[(7 * number + 5) % 16]
        yield Document(
            f"document {number}",
            f"The {a} sat near the {b}. Every {c} of the {a} likes a warm {b}, and the {c} knows it. " * 14,
        )


@pytest.fixture(scope="module")
def own(settings):
    return database_beside(settings, "explaining").model_copy(update={"home": public_folder()})


@pytest.fixture(scope="module")
def harvest(harvested, database, own, tiny):
    _, parameters, _ = harvested
    sequences = Held(cut(documents(), tiny.encode, bos_id=tiny.bos_id, context=64))

    def run(slug, sae=None):
        folder = own.home / "given" / slug
        saelens.write(folder, sae or random_sae(), matrices=torch.float32, metadata={})
        return run_job(Job(slug, folder, "told text", 64, replace(parameters, batch_tokens=512)), tiny, sequences,
                       database, own.home)  # fmt: skip

    return run


@pytest.fixture(scope="module")
def sae(harvest):
    return harvest(SLUG)


def rows(database, query, **values):
    with database.connect() as connection:
        return connection.execute(text(query) if isinstance(query, str) else query, values).all()


def told(database):
    """Everything that is written, without numbers that a second run takes anew."""
    e = rows(database, "SELECT latent, sign, method, text, label, rule, parameters FROM explanation ORDER BY 3, 1, 2")
    s = rows(database, "SELECT e.method, s.latent, s.scorer, s.headline, s.n_pos, s.f1, s.auprc, s.ci_low, s.control "
             "FROM score s JOIN explanation e ON e.id = s.explanation_id ORDER BY 1, 2, 3")  # fmt: skip
    x = rows(database, "SELECT latent, hash, split, width, sequences FROM example_set ORDER BY 1")
    return e, s, x


@pytest.fixture
def explained_(database, sae, command):
    out, err, status = command("explain", SLUG)
    assert status == 0, err
    return out, err


def test_every_latent_is_explained_scored_and_labelled(database, sae, explained_):
    out, err = explained_
    assert "learning tokens and what comes before them ...\n" in err
    first, *methods, last = out.splitlines()
    assert first.startswith(f"told@{sae}: ")
    assert first.endswith(" tokens looked at, documents kept apart.")
    assert [line.partition(":")[0] for line in methods] == ["token-rules", "vocab-projection"]
    assert "learning and scoring" in last
    found = rows(database, "SELECT e.*, count(s.id) AS n FROM explanation e LEFT JOIN score s "
                 "ON s.explanation_id = e.id AND s.sae_id = e.sae_id GROUP BY e.sae_id, e.id")  # fmt: skip
    alive = {row.index for row in rows(database, select(t.latent.c.index).where(t.latent.c.fired > 100))}
    assert alive <= {row.latent for row in found if row.method == "token-rules"}
    assert {row.latent for row in found if row.method == "vocab-projection"} == set(range(40))
    assert all(row.n == 2 for row in found if row.method == "token-rules")
    latents = rows(database, select(t.latent).order_by(t.latent.c.index))
    by_id = {row.id: row for row in found}
    labelled = [row for row in latents if row.explanation_id is not None]
    assert labelled
    for row in labelled:
        mine = by_id[row.explanation_id]
        assert (row.label, row.label_source) == (mine.label, mine.method)
        scores = rows(database, "SELECT e.id, s.headline, s.ci_low FROM score s JOIN explanation e ON e.id = "
                      "s.explanation_id WHERE s.scorer = 'windows' AND s.latent = :i", i=row.index)  # fmt: skip
        assert row.label_score == max(score.headline for score in scores if score.headline and score.ci_low > 0.5)
        assert row.harvest_label
    for row in latents:
        if row.explanation_id is None:
            assert row.label_source in ("top-tokens", "position", "vocab-projection")
            assert row.label_score is None


def test_the_documents_of_a_scores_examples_are_none_that_taught_it(database, sae, explained_, own):
    taught = set()
    found = rows(database, "SELECT id, document, cardinality(token_ids) - 1 AS counted FROM sequence ORDER BY id")
    names = [row.document for row in found]
    sampled = choose(names, np.array([row.counted for row in found]), 1 << 20, packed=False)
    for sequence, split in zip(sampled.sequence, sampled.split, strict=True):
        if split < 2:
            taught.add(names[int(sequence)])
    asked = {names[i] for row in rows(database, "SELECT sequences FROM example_set") for i in row.sequences}
    assert asked
    assert not asked & taught


def test_the_same_command_again_writes_the_same_and_reads_nothing_twice(
    database, sae, command, explained_, monkeypatch
):
    before = told(database)

    def never(*_):
        raise AssertionError("read again")

    monkeypatch.setattr(Reader, "read", never)
    assert command("explain", SLUG)[2] == 0
    assert told(database) == before
    assert command("explain", SLUG, "--method", "rules")[2] == 0
    assert told(database) == before


def test_a_pass_that_was_cut_short_carries_on_and_leaves_nothing_half_written(database, harvest, command, monkeypatch):
    harvest("short", random_sae(seed=5))
    monkeypatch.setattr(codes, "PART", 512)
    real, seen = Reader.read, []

    def cut_short(self, first, some):
        if len(seen) == 3:
            raise KeyboardInterrupt
        seen.append(len(some))
        return real(self, first, some)

    monkeypatch.setattr(Reader, "read", cut_short)
    _, err, status = command("explain", "short")
    assert status == 130
    assert err.endswith("Stopped. The same command carries on from here.\n")
    assert not rows(database, "SELECT 1 FROM explanation e JOIN sae s ON s.id = e.sae_id WHERE s.slug = 'short'")
    again = []
    monkeypatch.setattr(Reader, "read", lambda self, first, some: again.append(len(some)) or real(self, first, some))
    assert command("explain", "short")[2] == 0
    monkeypatch.setattr(Reader, "read", real)
    monkeypatch.setattr(codes, "PART", 1 << 14)
    total = rows(database, "SELECT sequences FROM corpus")[0].sequences
    assert sum(seen) + sum(again) == total
    assert sum(again) < total
    assert rows(database, "SELECT 1 FROM explanation e JOIN sae s ON s.id = e.sae_id WHERE s.slug = 'short' LIMIT 1")


def test_explanations_go_with_the_sae(database, own, harvest, command):
    harvest("gone", random_sae(seed=6))
    assert command("explain", "gone")[2] == 0
    [(number,)] = rows(database, "SELECT id FROM sae WHERE slug = 'gone'")
    with database.begin() as connection:
        connection.execute(text("INSERT INTO explanation_vote VALUES (:sae, 1, 'me', 1)"), {"sae": number})
    remove(database, own.home, "gone")
    for table in ("explanation", "example_set", "score", "score_example", "score_summary", "explanation_vote"):
        assert not rows(database, f"SELECT 1 FROM {table} WHERE sae_id = :sae", sae=number)
    assert not rows(database, "SELECT 1 FROM pg_class WHERE relname = :name", name=f"explanation_{number}")


def test_one_explains_an_sae_at_a_time(database, sae, command):
    with explain_lock(database, SLUG):
        _, err, status = command("explain", SLUG)
        assert (status, err) == (1, f"saescope: Features of {SLUG} are being explained already; wait for that or stop "
                                 "it first.\n")  # fmt: skip
        with pytest.raises(ExplainRunning), explain_lock(database, SLUG):
            pass
    assert command("explain", "nothing")[1].startswith("saescope: There is no harvested SAE 'nothing' here;")


def test_the_label_is_a_persons_else_the_best_scored_else_the_harvests(database, sae, explained_):
    [(number,)] = rows(database, "SELECT id FROM sae WHERE slug = :slug", slug=SLUG)
    latent = rows(database, "SELECT * FROM latent WHERE sae_id = :sae AND explanation_id IS NOT NULL LIMIT 1",
                  sae=number)[0]  # fmt: skip

    def now():
        return rows(database, "SELECT label, label_source, label_score, explanation_id FROM latent WHERE sae_id = :sae "
                    "AND index = :i", sae=number, i=latent.index)[0]  # fmt: skip

    before = tuple(now())
    with database.begin() as connection:
        edition = connection.execute(text("SELECT edition FROM sae WHERE id = :i"), {"i": number}).scalar()
        added = connection.execute(
            text("INSERT INTO explanation (sae_id, latent, method, author, text, label) VALUES (:sae, :i, 'person', "
                 "'Ada', 'all about mats', 'mats') RETURNING id"), {"sae": number, "i": latent.index}
        ).scalar()  # fmt: skip
        assert relabel(connection, number, [latent.index]) == 1
    assert tuple(now()) == ("mats", "person", None, added)
    with database.begin() as connection:
        assert connection.execute(text("SELECT edition FROM sae WHERE id = :i"), {"i": number}).scalar() > edition
        connection.execute(text("DELETE FROM explanation WHERE id = :id"), {"id": added})
        relabel(connection, number)
    assert tuple(now()) == before
    with database.connect() as connection:
        connection.execute(text("UPDATE score SET ci_low = 0.4 WHERE sae_id = :sae AND latent = :i"),
                           {"sae": number, "i": latent.index})  # fmt: skip
        relabel(connection, number)
        row = connection.execute(text("SELECT label, label_source, label_score FROM latent WHERE sae_id = :sae AND "
                                      "index = :i"), {"sae": number, "i": latent.index}).one()  # fmt: skip
        assert tuple(row) == (latent.harvest_label, latent.harvest_label_source, None)
        connection.rollback()


@pytest.fixture(scope="module")
def site(own, sae):
    with TestClient(create_app(own)) as client:
        yield client


def test_a_features_page_has_its_explanations_and_a_score_its_examples(database, site, explained_):
    latent = rows(database, "SELECT index FROM latent l JOIN sae s ON s.id = l.sae_id WHERE s.slug = :slug AND "
                  "explanation_id IS NOT NULL LIMIT 1", slug=SLUG)[0].index  # fmt: skip
    with counted_queries(site) as statements:
        page = site.get(f"/saes/{SLUG}/features/{latent}.json").json()
    assert len(statements) <= 6
    rules, vocab = page["explanations"]
    assert (rules["method"], vocab["method"]) == ("token-rules", "vocab-projection")
    assert [rules["chosen"], vocab["chosen"]].count(True) == 1
    windows, tokens = rules["scores"]
    assert (windows["scorer"], tokens["scorer"]) == ("windows", "tokens")
    assert tokens["url"] is None
    shown = site.get(f"/saes/{SLUG}/features/{latent}")
    assert shown.status_code == 200
    assert rules["text"].split("“")[1].split("”")[0] in shown.text
    assert windows["url"] in shown.text
    with counted_queries(site) as statements:
        score = site.get(windows["url"] + ".json").json()
    assert len(statements) <= 6
    examples = score["examples"]
    assert len(examples) == windows["n_pos"] + windows["n_neg"]
    assert sum(e["active"] for e in examples) == windows["n_pos"]
    assert all(e["right"] == (e["predicted"] == e["active"]) for e in examples)
    right = [sum(e["right"] for e in examples if e["active"] == kind) / n for kind, n in
             ((True, windows["n_pos"]), (False, windows["n_neg"]))]  # fmt: skip
    assert windows["balanced_accuracy"] == pytest.approx(sum(right) / 2)
    for e in examples:  # what is marked on the page is what was said
        assert e["predicted"] == any(run["said"] for run in e["runs"])
        assert e["active"] == any(run["peak"] for run in e["runs"])
    html = site.get(windows["url"])
    assert html.status_code == 200
    assert html.text.count('class="wrong"') == sum(not e["right"] for e in examples)
    assert html.text.count('class="right"') == sum(e["right"] for e in examples)


def test_an_saes_page_shows_how_scores_are_spread(database, site, explained_):
    page = site.get(f"/saes/{SLUG}.json").json()["scores"]
    assert sum(page["labels"].values()) == 40
    spread = {(m["method"], m["scorer"]): m for m in page["methods"]}
    assert set(spread) == {(m, s) for m in ("token-rules", "vocab-projection") for s in ("windows", "tokens")}
    mine = spread["token-rules", "windows"]
    headlines = [row.headline for row in rows(
        database, "SELECT s.headline FROM score s JOIN explanation e ON e.id = s.explanation_id JOIN sae a ON a.id = "
        "s.sae_id WHERE a.slug = :slug AND e.method = 'token-rules' AND s.scorer = 'windows' AND headline IS NOT NULL",
        slug=SLUG,
    )]  # fmt: skip
    assert mine["headlines"] == len(headlines) == sum(mine["counts"])
    assert mine["mean"] == pytest.approx(sum(headlines) / len(headlines))
    shown = site.get(f"/saes/{SLUG}")
    assert "Scores on documents the explanations were not made from" in shown.text


def test_what_is_no_score_is_refused(site):
    for name in ("x", "999999999"):
        answer = site.get(f"/saes/{SLUG}/features/1/scores/{name}.json")
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


def test_an_saes_page_without_explanations_says_nothing_of_them(harvest, site):
    harvest("silent", random_sae(seed=8))
    assert site.get("/saes/silent.json").json()["scores"] is None
    assert site.get("/saes/silent").status_code == 200
    feature = site.get("/saes/silent/features/1")
    assert "saescope explain silent" in feature.text
