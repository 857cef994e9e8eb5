"""Backups are restored into an empty database and home, and what is damaged or means harm is refused."""

import hashlib
import io
import itertools
import json
import tarfile

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import text

from app.atlas.make import Recipe, make_map
from app.backup.archive import opened
from app.backup.make import back_up
from app.backup.manifest import DUMP, MANIFEST
from app.backup.restore import restore
from app.backup.tools import connection, tool
from app.errors import BackupFailed, BackupInvalid, DiskFull
from app.main import create_app
from app.store.engine import database_url, sync_engine
from app.store.migrate import newest
from tests.conftest import SLUG, database_beside, public_folder
from tests.test_disk import no_file_above

NUMBERS = itertools.count()
PAGES = (
    "/saes.json", f"/saes/{SLUG}.json", f"/saes/{SLUG}/features.json", f"/saes/{SLUG}/features/3.json",
    f"/saes/{SLUG}/maps.json", "/harvests.json", f"/saes/{SLUG}/features.csv",
)  # fmt: skip
MADE = ("circuits/ours.json", "training/ours/run.json", "training/ours/sae/sae_weights.safetensors")
AGAIN = ("training/ours/checkpoint.pt", "training/activations/0123/rows.bin", "training/ours/run.json.partial")


@pytest.fixture(scope="module")
def own(harvested, settings, engine):
    make_map(SLUG, Recipe("pca"), engine, settings.home)
    made = [settings.home / name for name in (*MADE, *AGAIN)]
    for path in made:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(path.name)
    with engine.begin() as connection:  # runs that other tests killed are lost before they are looked at, not meanwhile
        connection.execute(
            text("UPDATE run SET beat = beat - interval '1 hour' WHERE state IN ('running', 'stopping')")
        )
    yield settings
    for path in made:  # which other tests share, like the database
        path.unlink()
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM map"))


@pytest.fixture(scope="module")
def file(own, tmp_path_factory):
    path = tmp_path_factory.mktemp("backups") / "monday.tar"
    with TestClient(create_app(own)) as client:
        kept = client.post("/api/inspect", json={"text": "Paris", "sae": SLUG, "keep": True}).json()["run"]
    back_up(database_url(own), own.home, path)
    return path, kept


@pytest.fixture
def empty(settings):
    given = database_beside(settings, f"empty_{next(NUMBERS)}")
    return given.model_copy(update={"home": public_folder() / "new"})


def untouched(settings):
    engine = sync_engine(database_url(settings))
    with engine.connect() as connection:
        tables = connection.execute(text("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'")).scalar()
    engine.dispose()
    home = settings.home
    return tables == 0 and (not home.exists() or not any(home.iterdir()))


def test_what_is_restored_shows_the_same_pages(own, file, empty):
    path, kept = file
    made = restore(database_url(empty), empty.home, path)
    assert made.schema_revision == newest()
    shown = []
    for settings in (own, empty):
        with TestClient(create_app(settings)) as client:
            told = {page: client.get(page) for page in (*PAGES, f"/inspect/{kept}.json")}
            assert {answer.status_code for answer in told.values()} == {200}
            assert client.post("/api/inspect", json={"text": "read anew", "sae": SLUG}).status_code == 200
            shown.append({page: answer.text for page, answer in told.items()})
    assert shown[0] == shown[1]
    assert not list(empty.home.glob("restore-*"))
    assert all((empty.home / name).read_text() == (own.home / name).read_text() for name in MADE)
    assert not any((empty.home / name).exists() for name in AGAIN)


def test_nothing_is_written_over(own, file, empty):
    path, _ = file
    with pytest.raises(BackupFailed, match="exists already"):
        back_up(database_url(own), own.home, path)
    with pytest.raises(BackupFailed, match=r"holds \d+ tables and indexes already"):
        restore(database_url(own), empty.home, path)
    (empty.home / "saes" / "mine").mkdir(parents=True)
    with pytest.raises(BackupFailed, match="is not empty"):
        restore(database_url(empty), empty.home, path)
    assert [one.name for one in empty.home.iterdir()] == ["saes"]


def test_an_empty_database_and_a_folder_that_is_not_there_are_refused(own, empty, tmp_path):
    with pytest.raises(BackupFailed, match="nothing to back up"):
        back_up(database_url(empty), empty.home, tmp_path / "x.tar")
    with pytest.raises(BackupFailed, match="There is no folder"):
        back_up(database_url(own), own.home, tmp_path / "none" / "x.tar")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_no_half_backup(own, tmp_path, monkeypatch):
    with no_file_above(4096), pytest.raises((DiskFull, BackupFailed)):
        back_up(database_url(own), own.home, tmp_path / "x.tar")
    assert list(tmp_path.iterdir()) == []


def damaged(path, tmp_path, where, change):
    bad = tmp_path / "bad.tar"
    content = bytearray(path.read_bytes())
    if change is None:
        del content[where(content) :]
    else:
        content[where(content)] ^= change
    bad.write_bytes(content)
    return bad


@pytest.mark.parametrize(
    ("where", "change", "says"),
    [
        (lambda content: 3000, 1, "is damaged"),
        (lambda content: content.index(b"safetensors") + 5000, 1, "is damaged"),
        (lambda content: len(content) // 2, None, "manifest|cannot be read|damaged"),
        (lambda content: 0, None, "cannot be read|no manifest"),
    ],
)
def test_a_damaged_backup_is_refused_and_nothing_is_restored(file, empty, tmp_path, where, change, says):
    bad = damaged(file[0], tmp_path, where, change)
    with pytest.raises(BackupInvalid, match=says):
        restore(database_url(empty), empty.home, bad)
    assert untouched(empty)


def archive(tmp_path, files, *, manifest=None, kinds=None, compress="w:", **changes):
    """A backup by hand: ``files`` are names and bytes; ``kinds`` change members into links and the like."""
    entries = [
        {"name": name, "size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        for name, content in files.items()
    ]
    told = {
        "format": 1, "saescope": "0.1.0", "made": "2026-01-01T00:00:00Z", "schema_revision": newest(),
        "postgres": "18", "database_bytes": 1000, "left_out": [], "entries": entries,
    } | changes  # fmt: skip
    path = tmp_path / "hand.tar"
    with tarfile.open(path, compress) as tar:
        for name, content in [*files.items(), (MANIFEST, json.dumps(told).encode() if manifest is None else manifest)]:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            for field, value in (kinds or {}).get(name, {}).items():
                setattr(member, field, value)
            tar.addfile(member, io.BytesIO(content))
    return path


@pytest.mark.parametrize(
    "name",
    ["../evil", "/etc/evil", "home/saes/../../../evil", "home/postgres/evil/x", "home/saes", "home/saes/a\\..\\b/c",
     "home//saes/a/b", "home/saes/./x/y", "home/saes/a\nb/c", "elsewhere/saes/a/b"],
)  # fmt: skip
def test_no_name_leads_out_of_the_homes_folders(empty, tmp_path, name):
    path = archive(tmp_path, {DUMP: b"x", name: b"evil"})
    with pytest.raises(BackupInvalid, match=r"no place in a home|no plain file"):
        restore(database_url(empty), empty.home, path)
    assert untouched(empty)
    assert not list(tmp_path.parent.glob("**/evil"))


LINK = {"type": tarfile.SYMTYPE, "linkname": "/etc", "size": 0}
HARD = {"type": tarfile.LNKTYPE, "linkname": DUMP, "size": 0}
SPARSE = {"pax_headers": {"GNU.sparse.major": "0", "GNU.sparse.minor": "1", "GNU.sparse.size": str(1 << 40),
                          "GNU.sparse.realsize": str(1 << 40), "GNU.sparse.map": "0,1"}}  # fmt: skip


@pytest.mark.parametrize("kind", [LINK, HARD, {"type": tarfile.DIRTYPE}, {"type": tarfile.FIFOTYPE}, SPARSE])
def test_links_devices_and_sparse_files_are_refused(empty, tmp_path, kind):
    path = archive(tmp_path, {DUMP: b"x", "home/saes/a/b": b"x"}, kinds={"home/saes/a/b": kind})
    with pytest.raises(BackupInvalid, match=r"no plain file|not those"):
        restore(database_url(empty), empty.home, path)
    assert untouched(empty)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"manifest": b"{}"}, "does not fit"),
        ({"manifest": b"no JSON"}, "does not fit"),
        ({"format": 2}, "does not fit at format"),
        ({"entries": []}, "not those that its manifest names"),
        ({"database_bytes": -1}, "does not fit"),
        ({"schema_revision": "9999"}, "update saescope"),
        ({"compress": "w:gz"}, "cannot be read as a backup"),
    ],
)
def test_manifests_that_do_not_fit_are_refused_by_what_is_wrong(empty, tmp_path, given, says):
    path = archive(tmp_path, {DUMP: b"x"}, **given)
    with pytest.raises(BackupInvalid, match=says):
        restore(database_url(empty), empty.home, path)
    assert untouched(empty)


def test_what_is_larger_than_the_disk_is_refused_before_anything_is_written(empty, tmp_path):
    path = archive(tmp_path, {DUMP: b"x"}, database_bytes=1 << 60)
    with pytest.raises(DiskFull, match="GiB are needed"):
        restore(database_url(empty), empty.home, path)
    assert untouched(empty)


def test_a_dump_that_makes_more_than_was_said_is_ended(own, file, empty, monkeypatch):
    monkeypatch.setattr("app.backup.restore.SLACK", 0)
    with opened(file[0]) as there:
        monkeypatch.setattr(type(there.manifest), "model_validate_json", classmethod(
            lambda kind, told: kind.model_validate(json.loads(told) | {"database_bytes": 1})))  # fmt: skip
    with pytest.raises(BackupInvalid, match="far more than its manifest says"):
        restore(database_url(empty), empty.home, file[0])
    assert untouched(empty)


def test_a_dump_that_is_none_leaves_nothing(empty, tmp_path):
    path = archive(tmp_path, {DUMP: b"PGDMP and then nothing", "home/saes/a/b": b"x"})
    with pytest.raises(BackupFailed, match="The dump cannot be read"):
        restore(database_url(empty), empty.home, path)
    assert untouched(empty)


def test_the_password_is_in_no_argument(settings):
    url = database_url(settings).set(username="somebody", password="hunter2", host="127.0.0.1")
    place, environment = connection(url)
    assert "hunter2" not in place
    assert environment["PGPASSWORD"] == "hunter2"


def test_a_server_newer_than_every_tool_is_refused():
    assert tool("pg_dump", 15).is_file()
    with pytest.raises(BackupFailed, match="no pg_dump of that version"):
        tool("pg_dump", 99)


def test_the_commands_say_what_was_done(own, file, empty, command, monkeypatch, tmp_path):
    told = command("backup", str(tmp_path / "b.tar"))
    assert told[2] == 0
    assert "GB, schema" in told[0]
    assert "Not in it: the model at" in told[1]
    assert (tmp_path / "b.tar").stat().st_mode & 0o77 == 0
    out, _, status = command("restore", str(tmp_path / "b.tar"), "--check")
    assert (status, "is whole" in out) == (0, True)
    out, err, status = command("restore", str(tmp_path / "b.tar"))
    assert status == 1
    assert err.strip().splitlines()[-1].startswith("saescope: ")
