"""A short run of what benchmarks/fuzz.py does for longer: no request and no file makes anything crash."""

import random

import pytest
import requests

from app.main import create_app
from app.sae.base import SAEFormatError
from benchmarks import fuzz_files
from benchmarks.fuzz_api import fuzz
from tests.serving import serving
from tests.test_oracles import REFUSED


@pytest.fixture(scope="module")
def app(layered):
    return create_app(layered.model_copy(update={"allowed_hosts": "", "max_new_tokens": 4, "max_prompt_tokens": 32}))


def test_no_request_made_from_the_schema_fails(app):
    with serving(app) as url:
        told = fuzz(url, 160, 1)
    assert told.faults == []
    assert sum(told.statuses.values()) >= 110  # nothing fails to fit an operation that takes nothing
    assert told.statuses[200] >= 30
    assert len(told.operations) >= 50


def test_a_route_that_fails_is_found(layered):
    app = create_app(layered.model_copy(update={"allowed_hosts": ""}))

    def broken(number: int) -> float:
        return 1 / 0

    app.get("/api/broken")(broken)
    app.router.routes.insert(0, app.router.routes.pop())  # before what takes every other path
    with serving(app) as url:
        assert requests.get(url + "/api/broken?number=1", timeout=300).status_code == 500
        told = fuzz(url, 8, 1, only="/api/broken")
    assert told.faults
    assert all("/api/broken" in fault for fault in told.faults)


def test_no_damaged_file_crashes_its_reader():
    told = fuzz_files.fuzz(0, 3, least=8)
    assert told.faults == []
    assert set(told.refused) >= {
        "graph",
        "backup",
        "dashboards batch",
        "dashboards export",
        "list json",
        "explanations",
    }
    assert told.read.total() > 20


@pytest.mark.parametrize("reader", fuzz_files.readers(), ids=lambda reader: reader.name.replace(" ", "-"))
def test_a_file_that_is_fine_is_read(reader, tmp_path):
    reader.make(tmp_path)
    if reader.name.rpartition("/")[2] in REFUSED:
        with pytest.raises(SAEFormatError):
            reader.read(tmp_path)
    else:
        reader.read(tmp_path)


def test_a_reader_that_crashes_is_found():
    told, drawn = fuzz_files.Told(), random.Random(0)
    crashing = fuzz_files.Reader("broken", fuzz_files.readers()[-1].make, lambda folder: {}["no such key"])
    leaving = fuzz_files.Reader("leaving", crashing.make, lambda folder: (folder.parent / "mark").touch())
    for reader in (crashing, leaving):
        fuzz_files.one(reader, drawn, told)
    assert len(told.faults) == 2
    assert "KeyError" in told.faults[0]
    assert "a file appeared" in told.faults[1]
