"""The pages of training runs, from a run's files."""

import shutil

import pytest

from app.train import record
from app.web.curves import curve
from tests.training_runs import NAME, written


@pytest.fixture
def trained(settings):
    yield written(settings.home)
    shutil.rmtree(record.folder_of(settings.home, NAME))


def test_a_run_is_listed_and_shown(client, trained, settings):
    page = client.get("/training").text
    assert f'href="/training/{NAME}"' in page
    assert "30 of 40" in page
    assert 'hx-trigger="every 3s"' in page
    (item,) = [run for run in client.get("/training.json").json()["items"] if run["name"] == NAME]
    assert (item["state"], item["fvu"], item["l0"], item["dead"], item["step"]) == ("running", 0.25, 8.0, 0.25, 30)
    shown = client.get(f"/training/{NAME}.json").json()
    assert [line["fvu"] for line in shown["lines"]] == [0.9, 0.5, 0.25]
    assert shown["harvest"] is None
    page = client.get(f"/training/{NAME}").text
    assert page.count("<polyline") == 4
    assert "FVU by step; now 0.25" in page
    fragment = client.get(f"/training/{NAME}", headers={"hx-request": "true"}).text
    assert "<html" not in fragment
    assert "FVU by step; now 0.25" in fragment
    record.save_facts(record.folder_of(settings.home, NAME), trained_as(trained, "finished"))
    page = client.get(f"/training/{NAME}").text
    assert "hx-trigger" not in page
    assert f"--slug {NAME}" in page
    assert "--corpus pkg:brown " in page


def trained_as(facts, state):
    facts.state = state
    return facts


def test_what_is_no_run_is_not_found(client, trained):
    for name in ("nothing", "..", "activations", "A%20b", "x" * 300):
        answer = client.get(f"/training/{name}.json")
        assert answer.status_code == 404
    assert client.get("/training/nothing.json").json()["code"] == "run_unknown"


def test_curves_are_drawn_to_scale():
    drawn = curve("FVU", [0, 50, 100], [1.0, 0.5, 0.0], 100)
    assert drawn.points == "44.0,8.0 219.0,81.0 394.0,154.0"
    assert [tick.text for tick in drawn.y_ticks] == ["0", "0.5", "1"]
    far = curve("L0", [0, 100], [1000.0, 10.0], 100)
    assert far.logarithmic
    assert [(tick.text, tick.at) for tick in far.y_ticks] == [("10", 154.0), ("100", 81.0), ("1,000", 8.0)]
    assert curve("L0", [1], [8.0], 10).last == "8"
    assert curve("L0", [], [], 10).points == ""
