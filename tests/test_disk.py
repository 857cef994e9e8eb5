"""Writes that fail: one sentence with the path and the remedy, and nothing half-written."""

import errno
import os
import resource
from contextlib import contextmanager

import pytest
import torch

from app.corpus.sources import Skipped
from app.disk import room
from app.errors import DiskFull
from app.harvest.artefact import artefact, kept
from app.harvest.imports import keep
from app.harvest.job import Job, run_job
from app.harvest.parameters import Parameters
from app.harvest.run import harvest
from app.harvest.text import Text, sequences
from app.sae.formats import save
from app.train.run import Plan, Recipe
from app.train.stream import train
from tests.conftest import random_sae

TOLD = (
    r"could not be written to .*: file too large; raise the limit on the size of files \(ulimit -f\) and start again\.$"
)


@contextmanager
def no_file_above(size):
    """As under ``ulimit -f``."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def below(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (OSError(errno.ENOSPC, "x"), "no space left on device; free some space there and start again."),
        (OSError(errno.EDQUOT, "x"), "disk quota exceeded; free some space there and start again."),
        (PermissionError(errno.EACCES, "x"), "permission denied; see that the folder can be written and start again."),
        (ValueError("Error while serializing: I/O error: No space (os error 28)"), "no space left on device; free"),
    ],
)
def test_a_write_that_fails_is_told_with_the_path_and_the_remedy(tmp_path, error, says):
    with pytest.raises(DiskFull) as caught, room(tmp_path / "x.pt", "The checkpoint"):
        raise error
    assert caught.value.message.startswith(f"The checkpoint could not be written to {tmp_path}/x.pt: {says}")


def test_what_torch_makes_of_a_full_disk_is_told_and_other_faults_are_not_hidden(tmp_path):
    if not os.path.exists("/dev/full"):  # noqa: PTH110
        pytest.skip("there is no /dev/full")
    with (
        pytest.raises(DiskFull, match="no space left on device"),
        room(tmp_path, "It"),
        open("/dev/full", "wb", buffering=0) as file,  # noqa: PTH123
    ):
        torch.save({"a": torch.zeros(1000, 1000)}, file)
    with pytest.raises(RuntimeError, match="another fault"), room(tmp_path, "It"):
        raise RuntimeError("another fault")


def test_a_checkpoint_that_fails_leaves_the_last_one(tiny, sequences, tmp_path):
    parameters = Parameters(top=5, per_interval=2, width=16, batch_tokens=128)
    file = tmp_path / "work" / "checkpoint.pt"

    def run():
        harvest(tiny, [random_sae()], sequences, parameters, context=64, checkpoint=file, checkpoint_seconds=0)

    with no_file_above(4096), pytest.raises(DiskFull, match=f"^The harvest's checkpoint {TOLD}"):
        run()
    assert below(tmp_path) == ["work"]
    run()
    last = file.read_bytes()
    other = [*sequences[:-1], sequences[-1]._replace(document="another")]
    with no_file_above(4096), pytest.raises(DiskFull):
        harvest(tiny, [random_sae(seed=1)], type(sequences)(other), parameters, context=64,
                checkpoint=file, checkpoint_seconds=0)  # fmt: skip
    assert below(tmp_path / "work") == ["checkpoint.outdated"]  # set aside since the corpus is another
    assert (tmp_path / "work" / "checkpoint.outdated").read_bytes() == last


def test_an_sae_that_cannot_be_copied_leaves_nothing(engine, harvested, tiny, sequences, tmp_path):
    _, parameters, folder = harvested
    job = Job("full-disk", folder, "test text", 64, parameters)
    with no_file_above(1024), pytest.raises(DiskFull, match=f"^A copy of the SAE {TOLD}"):
        run_job(job, tiny, sequences, engine, tmp_path)
    assert below(tmp_path) == ["hashes.json", "work"]
    with artefact(random_sae(), tmp_path) as (stored, _):
        with no_file_above(1024), pytest.raises(DiskFull, match=f"^The SAE's files {TOLD}"), \
             kept(stored, tmp_path / "saes" / "x"):  # fmt: skip
            pass
        assert below(tmp_path / "saes") == []


def test_tokens_that_cannot_be_written_are_one_sentence(tiny, tmp_path):
    (tmp_path / "long.txt").write_text("The cat sat on the mat. " * 2000)
    text = Text(f"text:{tmp_path / 'long.txt'}", 64)
    with (
        no_file_above(1024),
        pytest.raises(DiskFull, match=f"^The tokens of the corpus {TOLD}"),
        sequences(text, tiny, tmp_path / "home", Skipped()) as store,
    ):
        len(store)
    assert below(tmp_path / "home") == ["work"]


def test_an_import_and_a_training_that_cannot_be_written_leave_nothing_half(tiny, sequences, tmp_path):
    with no_file_above(1024), pytest.raises(DiskFull, match=f"^The import {TOLD}"):
        keep(random_sae(), "x", tmp_path, {})
    assert below(tmp_path) == ["imports"]
    save(tmp_path / "sae", random_sae())
    recipe = Recipe(hook_point="model.layers.0:out", batch=64, checkpoint_every=1)
    with no_file_above(100_000), pytest.raises(DiskFull, match=f"^The training's checkpoint {TOLD}"):
        train(tiny, sequences, recipe, [Plan(n_latents=512)], tmp_path)
    assert "checkpoint.partial" not in below(tmp_path / "training" / "tiny-l0-out-topk-512-s0")
