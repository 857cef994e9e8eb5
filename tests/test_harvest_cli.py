"""The harvest command from its options to the database: several SAEs, chats, what is skipped, packing, a cluster."""

import json
import os
import subprocess
import sys

import pytest
from sqlalchemy import text

from app.sae.formats import save
from app.store.engine import database_url, sync_engine
from tests.conftest import database_beside, public_folder
from tests.families import make


@pytest.fixture(scope="module")
def own(settings):
    return database_beside(settings, "harvest_cli")


@pytest.fixture(scope="module")
def saes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saes")
    for name in ("topk", "abstopk"):
        save(folder / name, make(name))
    return folder


@pytest.fixture(scope="module")
def saescope(own, tiny_folder):
    environment = {**os.environ, "SAESCOPE_DATABASE_URL": own.database_url, "SAESCOPE_DTYPE": "float32",
                   "SAESCOPE_BATCH_TOKENS": "512", "SAESCOPE_DEVICE": "cpu"}  # fmt: skip
    home = public_folder()

    def run(*options, model=("--model", tiny_folder)):
        command = [sys.executable, "-m", "app.cli", "harvest", *model, "--context", "32"]
        command += ["--home", home, *options]
        return subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=600, env=environment)

    run.home = home
    return run


def rows(own, query):
    engine = sync_engine(database_url(own))
    with engine.connect() as connection:
        found = [row._mapping for row in connection.execute(text(query))]
    engine.dispose()
    return found


@pytest.fixture(scope="module")
def chats(tmp_path_factory):
    file = tmp_path_factory.mktemp("text") / "chats.jsonl"
    told = "The river Seine runs through Paris to the sea. Every cat sleeps a lot in the sun. "
    chat = [{"role": "user", "content": told * 2}, {"role": "assistant", "content": told}]
    lines = [json.dumps({"id": f"d{n}", "messages": chat}) for n in range(12)]
    file.write_text("\n".join([*lines[:4], '{"id": "broken", "messages"', *lines[4:]]))
    return file


def test_two_saes_over_chats_in_one_pass(saescope, own, saes, chats):
    done = saescope("--sae", saes / "topk", "--sae", saes / "abstopk", "--slug", "a", "--slug", "b",
                    "--corpus", f"jsonl:{chats}")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert [line.split("@")[0] for line in done.stdout.splitlines()] == ["a", "b"]
    assert "1 document was skipped: chats.jsonl:5" in done.stderr
    for slug in "ab":
        assert f"This harvest makes a new SAE named {slug}." in done.stderr
    stages = [line for line in done.stderr.splitlines() if line.endswith(" ...")]
    measured = [
        "measuring loss recovered",
        "finding neighbours, promoted tokens and labels",
        "copying into the database",
    ]
    assert stages == ["loading the subject ...", *(f"{slug}: {stage} ..." for slug in "ab" for stage in measured)]
    assert " 0 s left" not in done.stderr
    found = rows(own, "SELECT slug, tokens, facts FROM harvest JOIN sae ON sae.id = sae_id ORDER BY slug")
    assert [row["slug"] for row in found] == ["a", "b"]
    assert found[0]["tokens"] == found[1]["tokens"]
    assert found[0]["facts"]["skipped"]["count"] == 1
    assert found[0]["facts"]["sequences"] > 12
    names = rows(own, "SELECT name FROM document ORDER BY id")
    assert [row["name"] for row in names] == [f"d{n}" for n in range(12)]
    runs = rows(own, "SELECT state, slugs, tokens, total, revisions FROM run")
    assert [(run["state"], run["slugs"], len(run["revisions"])) for run in runs] == [("done", ["a", "b"], 2)]
    assert runs[0]["tokens"] == runs[0]["total"] > 0
    ids = rows(own, "SELECT token_ids FROM sequence ORDER BY corpus_id, id LIMIT 1")[0]["token_ids"]
    assert ids[0] == 1  # the template's own BOS, once
    assert ids[1] != 1


def test_a_harvested_sae_is_named_and_brings_its_weights_hook_and_subject(saescope, own, chats, tiny_folder):
    """The revision would be another one if any of them was."""
    before = rows(own, "SELECT id, revision FROM sae WHERE slug = 'a'")
    for name in ("a", f"a@{before[0]['revision']}"):
        done = saescope("--sae", name, "--corpus", f"jsonl:{chats}", model=())
        assert done.returncode == 0, done.stderr
        assert rows(own, "SELECT id, revision FROM sae WHERE slug = 'a'") == before
        run = rows(own, "SELECT command, message, state FROM run ORDER BY id DESC LIMIT 1")[0]
        assert (run["command"]["model"], run["command"]["slug"]) == (str(tiny_folder), ["a"])
        told = f"Already harvested as a@{before[0]['revision']}; nothing was done."
        assert (done.stdout, run["state"], run["message"]) == (f"{told}\n", "done", told)
        assert "loss recovered" not in done.stderr
    assert "no revision '0'" in saescope("--sae", "a@0", "--corpus", f"jsonl:{chats}", model=()).stderr


def test_the_same_again_is_there_already_and_another_seed_of_text_replaces_it(saescope, own, saes, chats, tmp_path):
    options = ("--sae", saes / "topk", "--slug", "a", "--corpus")
    before = rows(own, "SELECT id, revision FROM sae WHERE slug = 'a'")
    (tmp_path / "other.txt").write_text("Another text about cats and rivers and the sea in the sun. " * 40)
    copied = saescope("--sae", saes / "topk", "--corpus", f"jsonl:{chats}")
    assert "This harvest makes a new SAE named " in copied.stderr
    assert "The same weights are here as a; --slug a would make this a revision of that." in copied.stderr
    done = saescope(*options, f"text:{tmp_path / 'other.txt'}", "--pack", "--replace")
    assert done.returncode == 0, done.stderr
    after = rows(own, "SELECT id, revision FROM sae WHERE slug = 'a'")
    assert len(after) == 1
    assert after[0]["revision"] != before[0]["revision"]
    goes = f"these, but for the one it makes itself: {before[0]['revision']} (jsonl:{chats},"
    assert goes in done.stderr
    assert done.stderr.index(goes) < done.stderr.index("measuring")
    assert f"Dropped a@{before[0]['revision']}." in done.stdout
    made = f"'{before[0]['revision']}' = ANY(revisions) AND 'a' = ANY(slugs)"
    facts = rows(own, f"SELECT facts FROM run WHERE {made}")
    assert facts
    assert all(run["facts"]["gone"] == {f"a@{before[0]['revision']}": "replaced"} for run in facts)
    assert len(list((saescope.home / "saes").glob("a-*"))) == 1
    assert rows(own, "SELECT name FROM corpus ORDER BY id")[-1]["name"].endswith("(packed)")


def test_a_cluster_makes_the_revision_one_machine_makes(saescope, own, saes, chats):
    pytest.importorskip("ray")
    options = ("--sae", saes / "topk", "--corpus", f"jsonl:{chats}")
    assert saescope(*options, "--slug", "alone").returncode == 0
    done = saescope(*options, "--slug", "many", "--ray", "auto")
    assert done.returncode == 0, done.stderr
    query = "SELECT fired, maximum, place_counts, documents FROM latent JOIN sae ON sae.id = sae_id WHERE slug = '{}'"
    one, other = (rows(own, query.format(slug) + " ORDER BY index") for slug in ("alone", "many"))
    assert [row["fired"] for row in one] == [row["fired"] for row in other]
    assert [row["place_counts"] for row in one] == [row["place_counts"] for row in other]
    assert [row["documents"] for row in one] == [row["documents"] for row in other]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--slug", "a", "--slug", "b"), "There are 1 --sae but 2 --slug"),
        (("--context", "100000"), "reads at most"),
        (("--slug", "nowhere", "--ray", "127.0.0.1:9"), "There is no Ray cluster at '127.0.0.1:9'"),
    ],
)
def test_refusals_are_one_sentence_and_leave_a_run_that_says_so(saescope, own, saes, chats, options, told):
    count = len(rows(own, "SELECT id FROM sae"))
    done = saescope("--sae", saes / "topk", "--corpus", f"jsonl:{chats}", *options)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("saescope: ")
    assert told in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert len(rows(own, "SELECT id FROM sae")) == count
    states = {row["state"] for row in rows(own, "SELECT state FROM run")}
    assert states <= {"done", "failed"}
