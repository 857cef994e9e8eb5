"""The doctor finds what is wrong, and says what to do: real databases, real files that are moved and changed."""

import itertools
import json
import shutil
import socket

import pytest
from sqlalchemy import text

from app.doctor.configuration import configuration
from app.doctor.examination import examination
from app.doctor.packages import packages
from app.settings import Settings
from app.store.engine import database_url, sync_engine
from app.store.migrate import migrate, newest
from tests.conftest import SLUG, database_beside, public_folder
from tests.services import free_port

NUMBERS = itertools.count()


@pytest.fixture
def own(settings):
    """Of a database in which nothing has been made."""
    name = f"doctor_{next(NUMBERS)}"
    return database_beside(settings, name).model_copy(update={"port": free_port()})


def found(settings, what, **given):
    """The one finding about ``what``."""
    (one,) = [finding for finding in examination(settings, **given) if finding.what == what]
    return one


def test_a_sound_instance_has_no_faults(harvested, settings):
    told = list(examination(settings.model_copy(update={"port": free_port()}), full=True))
    assert [one for one in told if one.state == "fault"] == []
    assert {"python", "packages", "settings", "device", "home", "assets", "port", "database", "pgvector", "schema",
            "subject tiny", "SAEs"} <= {one.what for one in told}  # fmt: skip
    assert all(one.remedy.endswith(".") for one in told if one.state == "note")


def test_files_that_are_missing_or_changed_are_faults(harvested, settings):
    engine = sync_engine(database_url(settings))
    with engine.connect() as connection:
        path = connection.execute(text("SELECT path FROM sae WHERE slug = :s"), {"s": SLUG}).scalar_one()
    engine.dispose()
    folder = settings.home / path
    kept = public_folder() / "kept"
    shutil.copytree(folder, kept)
    try:
        weights = folder / "sae_weights.safetensors"
        weights.write_bytes(weights.read_bytes()[:-1] + b"\xff")
        changed = found(settings, f"SAE {SLUG}")
        assert (changed.state, "not those that were harvested with" in changed.told) == ("fault", True)
        shutil.rmtree(folder)
        gone = found(settings, f"SAE {SLUG}")
        assert gone.state == "fault"
        assert str(folder) in gone.told
        assert str(folder) in gone.remedy
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(kept, folder)


def test_a_subjects_files_that_are_gone_or_another_models(harvested, settings, tiny_folder):
    assert found(settings, "subject tiny").state == "ok"
    config = tiny_folder / "config.json"
    before = config.read_text()
    try:
        config.write_text(before.replace('"num_hidden_layers": 2', '"num_hidden_layers": 1'))
        assert "another model" in found(settings, "subject tiny", full=True).told
        config.unlink()
        assert "are not at" in found(settings, "subject tiny").told
    finally:
        config.write_text(before)


def test_a_schema_that_is_missing_behind_or_of_a_newer_version(own):
    assert found(own, "schema").state == "note"
    engine = sync_engine(database_url(own))
    migrate(engine)
    assert found(own, "schema").told == f"revision {newest()}, the newest"
    for revision, state, says in (("0003", "note", "behind"), ("9999", "fault", "newer saescope")):
        with engine.begin() as connection:
            connection.execute(text("UPDATE alembic_version SET version_num = :r"), {"r": revision})
        told = found(own, "schema")
        assert told.state == state
        assert says in told.told
    engine.dispose()


def test_a_database_that_is_away_is_a_fault_and_the_rest_is_looked_at(own):
    away = own.model_copy(update={"database_url": "postgresql://nobody@127.0.0.1:9/none"})
    told = list(examination(away))
    assert [one.what for one in told if one.state == "fault"] == ["database"]
    assert "home" in {one.what for one in told}


def test_of_an_embedded_database_that_is_not_there_nothing_is_made(tmp_path):
    home = tmp_path / "none"
    assert found(Settings(home=home, port=free_port()), "database").state == "note"
    assert not home.exists()


def test_a_port_that_something_else_has_is_a_fault(own):
    with socket.socket() as other:
        other.bind(("127.0.0.1", own.port))
        other.listen()
        assert "choose another" in found(own, "port").remedy


def test_an_inference_service_that_is_away_is_a_fault(own):
    away = own.model_copy(update={"infer_url": f"http://127.0.0.1:{free_port()}"})
    assert found(away, "inference service 1").state == "fault"


@pytest.mark.parametrize(
    ("changes", "environment", "state", "says"),
    [
        ({}, {"SAESCOPE_PROT": "1"}, "fault", "Is SAESCOPE_PORT meant?"),
        ({}, {"SAESCOPE_ZZZZZ": "1"}, "fault", "SAESCOPE_ZZZZZ is no setting."),
        ({"proxies": "10.0.0.0/99"}, {}, "fault", "no IP address and no network"),
        ({"proxies": "127.0.0.1"}, {}, "fault", "no name that a proxy would ask for"),
        ({"host": "0.0.0.0"}, {}, "note", "answers to any name"),
        ({"host": "0.0.0.0", "allowed_hosts": "x"}, {}, "note", "local mode has no accounts"),
        ({"oidc_issuer": "https://login.lab"}, {}, "fault", "called there"),
        ({"host": "0.0.0.0", "allowed_hosts": "x", "client_tokens": 0}, {}, "note", "take the model for itself"),
        ({"infer_url": "http://gpu:8100"}, {}, "fault", "wants a token"),
        ({"infer_url": "http://gpu:8100", "infer_token": "x", "engine_gb": 3}, {}, "note", "has its own"),
        ({"max_prompt_chars": 100}, {}, "note", "no text reaches the latter"),
    ],
)
def test_settings_that_contradict_each_other(changes, environment, state, says):
    told = list(configuration(Settings(**changes), environment))
    assert any(one.state == state and says in one.told and one.remedy for one in told)


def test_settings_that_do_not_contradict_each_other():
    assert [one.state for one in configuration(Settings(), {"SAESCOPE_DEBUG": "1", "HOME": "/"})] == ["ok"]


def test_packages_that_are_missing_or_too_old_are_named(monkeypatch, tmp_path):
    (tmp_path / "pyproject.toml").write_text(
        '[project]\ndependencies = ["numpy>=99", "nosuchpackage>=1", "uvloop; sys_platform == \'none\'"]\n'
        '[project.optional-dependencies]\nmap = ["umap-learn>=999"]\nray = ["typer"]\n'
    )
    monkeypatch.setattr("app.doctor.packages.ROOT", tmp_path)
    needed, maps, ray = packages()
    assert needed.state == "fault"
    assert "nosuchpackage is missing" in needed.told
    assert "not numpy>=99" in needed.told
    assert maps.state == "note"
    assert "it would give maps" in maps.told
    assert ray.state == "ok"


def test_the_command_says_it_in_lines_and_in_json_and_ends_with_status_1(own, command, monkeypatch):
    monkeypatch.setenv("SAESCOPE_PORT", str(own.port))
    out, _, status = command("doctor")
    assert status == 0
    assert out.rstrip().endswith("No faults.")
    monkeypatch.setenv("SAESCOPE_PROT", "1")
    out, _, status = command("doctor", "--json")
    told = json.loads(out)
    assert (status, told["faults"]) == (1, 1)
    assert {"what", "state", "told", "remedy"} == set(told["findings"][0])
    out, _, status = command("doctor")
    assert (status, "1 fault." in out, "-> Rename" in out) == (1, True, True)
