"""What the demo makes while it is served: real processes, in order, ended with the server."""

import os
import signal
import time
from pathlib import Path

import pytest
from sqlalchemy import text

from app.demo.beside import STEPS, made_beside, missing
from tests.conftest import database_beside
from tests.services import free_port


@pytest.fixture(scope="module")
def own(settings):
    return database_beside(settings, "beside")


def waited(met):
    for _ in range(600):
        if met():
            return
        time.sleep(0.1)
    pytest.fail("it did not come to that within a minute")


def children():
    """Processes of this one, whichever thread started them."""
    told = (task / "children" for task in Path(f"/proc/{os.getpid()}/task").iterdir())
    return {int(one) for task in told for one in task.read_text().split()}


def test_what_fails_is_said_and_the_next_step_is_made_all_the_same(own):
    said = []
    with made_beside(own, {("remove", "nothing"): "a map", ("explain", "nobody"): "explanations"}, said.append):
        waited(lambda: len(said) == 2)
    assert said == [
        "There will be no map yet; 'saescope remove nothing' says why.",
        "There will be no explanations yet; 'saescope explain nobody' says why.",
    ]


def test_a_step_that_is_under_way_ends_with_the_server(own):
    before, said = children(), []
    with made_beside(own, {("serve", "--port", str(free_port())): "a server", ("remove", "it"): "more"}, said.append):
        waited(lambda: children() - before)
        (process,) = children() - before
    with pytest.raises(ProcessLookupError):
        os.kill(process, signal.SIG_DFL)
    assert children() == before
    assert said == []  # neither that it was ended nor anything of the step that never began


def test_what_is_there_is_not_made_again(own, database):
    assert missing(database) == STEPS
    with database.begin() as connection:
        connection.execute(text("INSERT INTO subject (name, path, facts) VALUES ('beside', 'x', '{}')"))
        connection.execute(
            text(
                "INSERT INTO sae (slug, revision, subject_id, reads, writes, architecture, d_in, n_latents, signed,"
                " config, path, sha256) SELECT :slug, 'r', id, '{}', '{}', 'topk', 1, 1, 0, '{}', 'x', 'x' FROM subject"
                " WHERE name = 'beside'"
            ),
            {"slug": next(iter(STEPS))[1]},
        )
        connection.execute(text("INSERT INTO embedding (sae_id, model) SELECT max(id), 'm' FROM sae"))
    assert [step[0] for step in missing(database)] == ["explain", "map"]
