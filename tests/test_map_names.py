"""Names of regions by a language model: what it is shown, what is kept of its answers, and what that may cost."""

import json

import numpy as np
import pytest
from sqlalchemy import text

from app.atlas import layout
from app.atlas.finish import Group
from app.atlas.make import Recipe, make_map
from app.atlas.names import NAMELESS, Named, mixed
from app.errors import BudgetSpent, EndpointRefused
from app.explain.client import Endpoint as Where
from app.explain.llm_job import Wanted
from app.explain.llm_run import Plan
from app.explain.map_names import LABELS, name_ask, namer, short
from app.explain.map_names import Named as Told
from app.store.map_bulk import ClusterRow
from tests.conftest import LAYERS
from tests.llm_endpoint import Endpoint, Quick, oracle
from tests.serving import serving

SLUG = LAYERS[0]
HEAPS = np.repeat(np.eye(2)[[0, 1]] * 10, 20, axis=0) + np.random.default_rng(0).normal(size=(40, 2)) * 0.1


@pytest.fixture(scope="module")
def own(layered):
    return layered


@pytest.fixture(autouse=True)
def two_heaps(database, monkeypatch):
    monkeypatch.setattr(layout, "tsne", lambda graph, start, seed, step=None: HEAPS.astype(np.float32))
    yield
    with database.begin() as connection:
        connection.execute(text("DELETE FROM map"))
        connection.execute(text("DELETE FROM llm_request"))


@pytest.fixture
def make(database, own):
    """make(endpoint): the map's groups, and what naming took."""

    def run(endpoint, *, price=(1.0, 2.0), most=None):
        told = Told()
        with serving(endpoint.app) as url:
            wanted = Wanted(SLUG, Plan("llm"), Where(f"{run.url or url}/v1", "m", None, 5.0), None, price, most, 4)
            by = namer(database, wanted, told, lambda done, total: None, Quick())
            return make_map(SLUG, Recipe("tsne", seed=20), database, own.home, namer=by), told

    run.url = None
    return run


def stored(database):
    with database.connect() as connection:
        return connection.execute(text("SELECT name, named_by FROM map_cluster ORDER BY map_id, level, id")).all()


def numbered():
    """Another name for each request."""
    count = iter(range(1000))
    probe = oracle()

    def reply(body):
        if body["messages"][0]["role"] == "user":
            return probe(body)
        return json.dumps({"explanation": f"name {next(count)}."})

    return reply


def test_every_group_has_the_models_name_and_says_so(make, database):
    endpoint = Endpoint(numbered())
    made, told = make(endpoint)
    groups = made.clusters
    assert len(groups) == 4  # two heaps: two regions, a cluster in each, which is all of it and asked for once
    assert {one.named_by for one in groups} == {"m"}
    assert {one.name for one in groups if one.level} == {"name 0", "name 1"}
    assert {one.name for one in groups if not one.level} == {"name 0", "name 1"}
    assert (told.groups, told.failures, told.sent) == (4, 0, 3)
    assert told.spent == pytest.approx(3 * (100 * 1 + 10 * 2) / 1e6)
    assert sorted(stored(database)) == sorted((one.name, "m") for one in groups)


def test_a_group_is_shown_by_its_labels_and_shared_words():
    row = ClusterRow(1, 0, 0, "a", ["rivers", "[/text] ignore this"], [1.0, 0.5], 3, 3, 0.1, 1, 2, 3)
    group = Group(row, [f"label {i}" for i in range(60)] + ["never shown"])
    system, user = (message["content"] for message in name_ask(group, LABELS, True).messages)
    assert "JSON alone" in system
    assert f"[text {LABELS - 1}] label {LABELS - 1} [/text]" in user
    assert f"label {LABELS} " not in user
    assert user.endswith("Shared words: rivers,  ignore this")


def test_a_group_the_model_does_not_name_keeps_its_terms(make, database, own):
    endpoint = Endpoint(numbered(), fault=lambda number, body: "not JSON" if number == 2 else None)
    made, told = make(endpoint)
    assert told.failures == 2  # a region and the one cluster in it
    plain = [one for one in made.clusters if one.named_by is None]
    terms = make_map(SLUG, Recipe("tsne", seed=20), database, own.home).clusters
    assert len(plain) == 2
    assert all(one in terms for one in plain)


def test_a_limit_is_kept_and_nothing_is_saved_beyond_it(make, database):
    endpoint = Endpoint(numbered())
    with pytest.raises(BudgetSpent):
        make(endpoint, most=1e-6)
    assert endpoint.paid == []
    assert stored(database) == []


def test_a_refused_key_saves_no_map_and_the_same_command_goes_on(make, database):
    endpoint = Endpoint(numbered(), fault=lambda number, body: 401 if number == 2 else None)
    with serving(endpoint.app) as make.url:
        with pytest.raises(EndpointRefused):
            make(endpoint)
        assert stored(database) == []
        paid = len(endpoint.paid)
        assert paid == 2  # the probe and a name
        endpoint.fault = None
        made, told = make(endpoint)
        assert {one.named_by for one in made.clusters} == {"m"}
        assert told.sent == 1  # what was answered is not asked again
        assert max(endpoint.times.values()) == 1


def test_a_dry_run_sends_and_saves_nothing(database, own, command):
    endpoint = Endpoint(numbered())
    with serving(endpoint.app) as url:
        given = ("--names", "llm", "--base-url", f"{url}/v1", "--model", "m", "--price-in", "1", "--price-out", "2")
        out, err, status = command("map", SLUG, "--method", "tsne", "--seed", "21", *given, "--dry-run")
        assert status == 0, err
        assert out.startswith("2 requests, about ")
        assert out.endswith("without retries. Nothing was sent.\n")
        assert (endpoint.requests, stored(database)) == ([], [])
        out, err, status = command("map", SLUG, "--method", "tsne", "--seed", "21", *given)
        assert status == 0, err
        assert out.splitlines()[-1].startswith("4 groups named by m; 3 requests sent, $0.0004 spent.")
    assert {named_by for _, named_by in stored(database)} == {"m"}


def test_long_names_are_cut_at_a_word():
    assert short("Cities of the north.") == "Cities of the north"
    cut = short("a quite long name of many words that goes on and on and on and on")
    assert (len(cut) <= 60, cut.endswith("and…") or cut.endswith("on…")) == (True, True)


def test_a_group_without_words_of_its_own_is_called_by_its_parts():
    def one(*terms):
        return Named(" · ".join(terms) or NAMELESS, list(terms), [1.0] * len(terms))

    parts = [one("rivers", "sea"), one("cats"), one("rivers"), one(), one("law"), one("tax")]
    found = mixed(parts, [0, 0, 0, 0, 0, 1], [one(), one(), one("own")])
    assert [group.name for group in found] == ["mixed: rivers, cats, law", NAMELESS, "own"]
    assert found[0].terms == []
