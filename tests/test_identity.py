"""Subjects are told apart by what they are, not by what their folder is called."""

import hashlib
import json
import os
import shutil
from dataclasses import replace

import pytest
import torch
from fastapi.testclient import TestClient
from sqlalchemy import text

from app.errors import BadRequest
from app.harvest.job import Job, run_job
from app.harvest.run import Watch
from app.main import create_app
from app.store.bulk import SubjectRow, _upsert_subject
from app.store.engine import database_url, sync_engine
from app.store.migrate import migrate
from app.subject.identity import fingerprint, weight_files
from app.subject.load import load_subject
from app.train.run import Plan, Recipe
from app.train.stream import Watch as Looking
from app.train.stream import train
from tests.conftest import database_beside, public_folder


@pytest.fixture(scope="module")
def namesake(tiny_folder):
    """Another model in another folder of the same name: the tokenizer is tiny's, the weights are not."""
    from transformers import AutoModelForCausalLM

    folder = public_folder() / "tiny"
    shutil.copytree(tiny_folder, folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    torch.manual_seed(7)
    for parameter in model.parameters():
        parameter.data = 0.05 * torch.randn_like(parameter)
    model.save_pretrained(folder)
    return load_subject(folder, "tiny", dtype="float32", device="cpu")


@pytest.fixture(scope="module")
def own(settings):
    return database_beside(settings, "subjects")


def subjects(engine):
    with engine.connect() as connection:
        rows = connection.execute(text("SELECT name, path FROM subject ORDER BY id"))
        return [tuple(row) for row in rows]


def test_a_fingerprint_is_of_weights_and_vocabulary_and_not_of_the_folder(tiny, tiny_folder, namesake, tmp_path):
    folder = tmp_path / "elsewhere"
    shutil.copytree(tiny_folder, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"transformers_version": "9", "_name_or_path": "x"}))
    mine = fingerprint(tiny)
    assert fingerprint(load_subject(folder, "other", dtype="bfloat16", device="cpu")) == mine
    assert fingerprint(namesake) != mine
    (folder / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 0.5}))
    assert fingerprint(load_subject(folder, "tiny", device="cpu")) != mine
    shutil.copy(tiny_folder / "config.json", folder)
    told = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(told | {"pad_token": "<|endoftext|>"}))
    other = load_subject(folder, "tiny", device="cpu")
    assert other.special_ids != tiny.special_ids
    assert fingerprint(other) != mine


def test_weights_in_several_files_are_those_of_the_index(tmp_path):
    for name in ("a", "b", "consolidated"):
        (tmp_path / f"{name}.safetensors").write_bytes(b"")
    told = {"weight_map": {"x": "b.safetensors", "y": "a.safetensors", "z": "a.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(told))
    assert weight_files(tmp_path) == [tmp_path / "a.safetensors", tmp_path / "b.safetensors"]


def test_weights_are_read_once_until_the_file_is_another(tiny_folder, tmp_path, monkeypatch):
    folder, known = tmp_path / "model", tmp_path / "home" / "hashes.json"
    shutil.copytree(tiny_folder, folder)
    subject, read, digest = load_subject(folder, "tiny", device="cpu"), [], hashlib.file_digest

    def counting(stream, name):
        read.append(stream.name)
        return digest(stream, name)

    monkeypatch.setattr(hashlib, "file_digest", counting)
    first = fingerprint(subject, known)
    assert fingerprint(subject, known) == first
    assert len(read) == 1
    file = folder / "model.safetensors"
    stat, data = file.stat(), bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # the same size and the same time
    assert fingerprint(subject, known) != first
    known.write_text("{broken")
    assert fingerprint(subject, known) != first
    assert len(read) == 3
    known.write_text('{"x": 3}')
    fingerprint(subject, known)
    assert list(json.loads(known.read_text())) == [str(file)]
    assert list(known.parent.iterdir()) == [known]


def test_another_model_of_the_same_name_is_another_revision_and_another_subject(
    own, database, harvested, tiny, namesake, sequences
):
    _, parameters, folder = harvested
    job = Job("twice", folder, "test text", 64, parameters)
    first = run_job(job, tiny, sequences, database, own.home)
    prompt = {"sae": f"twice@{first}", "text": "The cat sat on the mat", "top": 5}
    with TestClient(create_app(own)) as client:
        before = client.post("/api/inspect", json=prompt).json()["saes"][0]["latents"]
        told = client.get(f"/saes/twice@{first}.json").json()
    second = run_job(job, namesake, sequences, database, own.home)
    assert second != first
    assert run_job(job, tiny, sequences, database, own.home) == first
    distinguished = f"tiny ({fingerprint(namesake)[:8]})"
    assert subjects(database) == [("tiny", str(tiny.path)), (distinguished, str(namesake.path))]
    with TestClient(create_app(own)) as client:
        after = client.post("/api/inspect", json=prompt).json()["saes"][0]["latents"]
        assert {x["index"]: x["activation"] for x in after} == pytest.approx(
            {x["index"]: x["activation"] for x in before}
        )
        other = client.get(f"/saes/twice@{second}.json").json()
        both = client.get("/compare.json", params={"a": f"twice@{first}", "b": f"twice@{second}"}).json()["saes"]
    assert (told["subject"], other["subject"]) == ("tiny", distinguished)
    assert other["metrics"]["fvu"] != told["metrics"]["fvu"]
    assert {"name": "Subject", "a": "tiny", "b": distinguished, "same": False} in both["facts"]


def test_a_subject_stays_where_it_is_and_follows_where_it_went(
    own, database, harvested, tiny, tiny_folder, sequences, tmp_path
):
    _, parameters, folder = harvested
    shutil.copytree(tiny_folder, tmp_path / "copy")
    shutil.copytree(tiny_folder, tmp_path / "again")
    at = [
        run_job(Job(slug, folder, "test text", 64, parameters), model, sequences, database, own.home)
        and dict(subjects(database))["tiny"]
        for slug, model in (
            ("stays", tiny),
            ("stays-too", load_subject(tmp_path / "copy", "copy", "float32", "cpu")),
        )
    ]
    assert at == [str(tiny_folder)] * 2
    with database.begin() as connection:  # as if it had been harvested from a folder that is no more
        connection.execute(text("UPDATE subject SET path = '/nowhere/tiny' WHERE name = 'tiny'"))
    again = load_subject(tmp_path / "again", "again", "float32", "cpu")
    run_job(Job("follows", folder, "test text", 64, parameters), again, sequences, database, own.home)
    assert dict(subjects(database))["tiny"] == str(tmp_path / "again")


def test_a_model_that_was_replaced_in_its_folder_is_not_inspected_for_the_old(
    own, database, harvested, namesake, sequences, tmp_path
):
    _, parameters, folder = harvested
    shutil.copytree(namesake.path, tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    (tmp_path / "model" / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 0.5}))
    revisions = []
    for _ in range(2):
        model = load_subject(tmp_path / "model", "model", "float32", "cpu")
        job = Job("replaced", folder, "test text", 64, parameters)
        revisions.append(run_job(job, model, sequences, database, own.home))
        (tmp_path / "model" / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 0.25}))
    with TestClient(create_app(own)) as client:
        told = [client.post("/api/inspect", json={"sae": f"replaced@{r}", "text": "A cat"}) for r in revisions]
    assert [answer.status_code for answer in told] == [503, 200]
    assert "is no longer the one that model was harvested from" in told[0].json()["message"]


def test_the_dtype_of_the_subject_makes_another_revision(own, database, harvested, tiny_folder, tiny, sequences):
    _, parameters, folder = harvested
    job = Job("twice", folder, "test text", 64, parameters)
    half = load_subject(tiny_folder, "tiny", dtype="bfloat16", device="cpu")
    assert run_job(job, half, sequences, database, own.home) != run_job(job, tiny, sequences, database, own.home)
    assert [name for name, _ in subjects(database)].count("tiny") == 1


def test_a_checkpoint_is_not_continued_with_another_model(own, database, harvested, tiny, namesake, sequences):
    _, parameters, folder = harvested

    class Killed(Exception):
        pass

    def kill():
        raise Killed

    job = Job("killed", folder, "test text", 64, parameters, checkpoint_seconds=0)
    with pytest.raises(Killed):
        run_job(job, tiny, sequences, database, own.home, watch=Watch(between=kill))
    resumed = []
    watch = Watch(progress=lambda step: resumed.append(step.resumed))
    disturbed = run_job(job, namesake, sequences, database, own.home, watch=watch)
    assert resumed[0] == 0
    undisturbed = Job("calm", folder, "test text", 64, parameters)
    assert run_job(undisturbed, namesake, sequences, database, own.home) == disturbed
    with database.connect() as connection:
        query = "SELECT array_agg(fired ORDER BY index) FROM latent JOIN sae ON id = sae_id WHERE slug = :slug"
        one, other = (connection.execute(text(query), {"slug": slug}).scalar() for slug in ("killed", "calm"))
    assert one == other
    run_job(job, tiny, sequences, database, own.home, watch=watch)
    assert resumed[-1] > 0  # tiny's own checkpoint was left for it


def test_rows_of_subjects(settings):
    engine = sync_engine(database_url(database_beside(settings, "subject_rows")))
    migrate(engine)
    with engine.begin() as connection:

        def save(name, path, sha256):
            return _upsert_subject(connection, SubjectRow(name, path, {}, sha256))

        old = "INSERT INTO subject (name, path, facts) VALUES (:name, :path, '{}') RETURNING id"
        there = connection.execute(text(old), {"name": "m", "path": "/a/m"}).scalar_one()
        gone = connection.execute(text(old), {"name": "n", "path": "/a/n"}).scalar_one()
        assert save("m", "/a/m", "1" * 64) == there  # older than hashes, of the same folder
        assert save("n", "/b/n", "2" * 64) != gone  # of another folder: nobody knows what it was
        assert save("m2", "/moved/m", "1" * 64) == there
        other = save("m", "/b/m", "3" * 64)
        assert save("m", "/b/m", "3" * 64) == other != there
        alike = "3" * 8 + "4" * 56
        save("m", "/c/m", alike)
        rows = connection.execute(text("SELECT name, path FROM subject ORDER BY id")).all()
    engine.dispose()
    assert rows == [
        ("m", "/moved/m"),
        ("n", "/a/n"),
        ("n (22222222)", "/b/n"),
        ("m (33333333)", "/b/m"),
        (f"m ({alike})", "/c/m"),
    ]


def test_training_is_not_continued_with_another_model(tiny, namesake, sequences, tmp_path):
    recipe = Recipe(hook_point="model.layers.0:out", batch=64, log_every=1)
    plans = [Plan(n_latents=64)]

    class Killed(Exception):
        pass

    def kill(run):
        raise Killed

    with pytest.raises(Killed):
        train(tiny, sequences, recipe, plans, tmp_path, watch=Looking(stepped=kill))
    with pytest.raises(BadRequest, match="holds a run with another recipe, other text or another subject"):
        train(replace(namesake, name="tiny"), sequences, recipe, plans, tmp_path)
