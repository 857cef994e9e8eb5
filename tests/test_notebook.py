"""docs/inspect.ipynb and docs/client.ipynb run, and show what they printed on the demo.

`python -m tests.test_notebook URL` runs them there and stores what they print.
"""

import contextlib
import io
import json
import os
import re
import sys

import pytest
import torch

from app.harvest.job import Job, run_job
from app.main import create_app
from app.sae.formats import saelens
from app.store.engine import database_url, sync_engine
from app.store.migrate import migrate
from app.web.rendering import ROOT
from tests.conftest import SLUG, database_beside, public_folder, random_sae
from tests.serving import serving

NOTEBOOK, OF_CLIENT = ROOT / "docs" / "inspect.ipynb", ROOT / "docs" / "client.ipynb"
sys.path.append(str(ROOT / "clients" / "python"))  # it is installed by itself


def code_cells(notebook):
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def printed(notebook):
    """What each cell prints, all run in turn in one namespace."""
    names, out = {}, []
    for number, cell in enumerate(code_cells(notebook), 1):
        heard = io.StringIO()
        with contextlib.redirect_stdout(heard):
            exec(compile("".join(cell["source"]), f"cell {number}", "exec"), names)
        out.append(heard.getvalue())
    return out


@pytest.fixture(scope="module")
def site(settings, harvested, tiny, sequences):
    own = database_beside(settings, "notebook")
    engine = sync_engine(database_url(own))
    migrate(engine)
    folder = public_folder() / SLUG
    saelens.write(folder, random_sae(), matrices=torch.float32, metadata={})
    run_job(Job(SLUG, folder, "test text", 64, harvested[1]), tiny, sequences, engine, own.home)
    engine.dispose()
    with serving(create_app(own)) as base:
        yield base


def test_the_notebook_runs_as_it_stands(site, monkeypatch):
    monkeypatch.setenv("SAESCOPE_URL", site)
    told = printed(json.loads(NOTEBOOK.read_text()))
    assert told[0] == f"{SLUG}: 40 features at model.layers.0:out of tiny\n"
    read, bits, again, both, streamed, effect, attributed, refused = told[1:]
    assert len(re.findall(r"^ *\d+  \d\.\d\d  ", read, re.MULTILINE)) == 6
    assert "kept at /inspect/" in read
    assert len(bits.splitlines()) == 2 + len(re.findall(r"^ ?\d", bits, re.MULTILINE))
    assert len(again.splitlines()) == 3
    assert len(both.splitlines()) == 2
    assert "nats a token" in streamed
    assert effect.count("->") == 5
    assert attributed.count("exact") == 6
    assert refused.startswith("422 bad_request - ")


def test_the_clients_notebook_runs_as_it_stands(site, monkeypatch):
    monkeypatch.setenv("SAESCOPE_URL", site)
    told = printed(json.loads(OF_CLIENT.read_text()))
    assert told[0] == f"{SLUG}: 40 features at model.layers.0:out of tiny\n"
    table, feature, hits, read, edited, listed, refused = told[1:]
    assert len(re.findall(r"^ *\d+  +\d+\.\d\d  ", table, re.MULTILINE)) == 5
    assert re.search(r"\n.*\[.+\].*\npromotes \['", feature)
    assert all(line.startswith(f"{SLUG}/") for line in hits.splitlines())  # labels of random weights may fit nothing
    assert len(re.findall(r"^\d\.\d\d  '", read, re.MULTILINE)) == 4
    assert "kept at /inspect/" in read
    assert "nats a token" in edited
    assert listed.startswith("Cats in Paris holds ['")
    assert refused == f"404 latent_out_of_range - {SLUG} has no feature 40; its features are 0 to 39.\n"


@pytest.mark.parametrize("path", [NOTEBOOK, OF_CLIENT], ids=lambda path: path.stem)
def test_what_it_shows_is_a_whole_run_without_a_machines_paths(path):
    notebook = json.loads(path.read_text())
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    assert len({cell["id"] for cell in notebook["cells"]}) == len(notebook["cells"])
    for number, cell in enumerate(code_cells(notebook), 1):
        assert cell["execution_count"] == number
        (shown,) = cell["outputs"]
        assert (shown["output_type"], shown["name"]) == ("stream", "stdout")
        text = "".join(shown["text"])
        assert text.strip()
        assert not re.search(r"/(tmp|root|home|work|var)\b|Traceback", text)


def renew(url):
    os.environ["SAESCOPE_URL"] = url
    for path in (NOTEBOOK, OF_CLIENT):
        notebook = json.loads(path.read_text())
        for number, (cell, text) in enumerate(zip(code_cells(notebook), printed(notebook), strict=True), 1):
            cell["execution_count"] = number
            cell["outputs"] = [{"name": "stdout", "output_type": "stream", "text": text.splitlines(keepends=True)}]
        path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    renew(sys.argv[1])
