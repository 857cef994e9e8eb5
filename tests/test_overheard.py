"""What explanations are made from, as a harvest's own pass leaves it, against what a pass of their own reads."""

import shutil
from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from app.corpus.sequences import Held, cut
from app.errors import DiskFull
from app.explain import codes, overheard
from app.explain.codes import read_codes
from app.explain.overheard import Overheard
from app.explain.samples import Codes
from app.harvest.job import Job, run_jobs
from app.harvest.run import Watch
from app.sae.formats import save
from app.store.explain_sources import find_explain_source
from tests.conftest import database_beside, public_folder, random_sae
from tests.families import make
from tests.test_explain_run import documents

TOKENS = 1500


@pytest.fixture(scope="module")
def own(settings):
    return database_beside(settings, "overheard").model_copy(update={"home": public_folder()})


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(codes, "PART", 300)


class Late(Held):
    """Whole, and known to be, once so many of its sequences were asked for."""

    known_at = 0
    asked = 0

    def __getitem__(self, number):
        self.asked = max(self.asked, number)
        return super().__getitem__(number)

    @property
    def complete(self):
        return self.asked >= self.known_at

    def lengths(self):
        assert self.complete
        return super().lengths()


@pytest.fixture
def run(harvested, database, own, tiny, tmp_path):
    """run(corpus, watch, ...): harvest two SAEs, one of them signed, in one pass beside which the sample is kept; their
    addresses."""
    _, parameters, _ = harvested
    numbers = iter(range(1000))

    def call(corpus, watch=None, tokens=TOKENS, seed=0):
        jobs = []
        for slug, sae in zip(("one", "two"), (random_sae(), make("abstopk")), strict=True):
            folder = own.home / "given" / slug
            folder.mkdir(parents=True, exist_ok=True)
            save(folder, sae)
            given = replace(parameters, batch_tokens=256, seed=seed)
            jobs.append(Job(slug, folder, "told text", 64, given, checkpoint_seconds=1e9))
        heard = tmp_path / str(next(numbers))
        heard.mkdir()
        beside = overheard.overheard(watch or Watch(), heard, tokens)
        return [one.address for one in run_jobs(jobs, tiny, corpus, database, own.home, watch=beside)]

    return call


@pytest.fixture
def corpus(tiny):
    return Late(cut(documents(), tiny.encode, bos_id=tiny.bos_id, context=64))


def source_of(database, address):
    with database.connect() as connection:
        return find_explain_source(connection, *address.split("@"))


def passes(monkeypatch):
    """How many batches are read from now on."""
    read, real = [], codes._Pass.__call__
    monkeypatch.setattr(codes._Pass, "__call__", lambda self, ids: read.append(len(ids)) or real(self, ids))
    return read


def same(database, own, address, monkeypatch, tokens=TOKENS):
    """Whether what is kept is what a pass reads; how many parts had to be read before."""
    source = source_of(database, address)
    with monkeypatch.context() as patch:
        read = passes(patch)
        kept = read_codes(database, source, own.home, tokens)
        missing = len(read)
        shutil.rmtree(own.home / source.path / "codes")
        fresh = read_codes(database, source, own.home, tokens)
        assert len(read) > missing
    for name in (field.name for field in fields(Codes)):
        one, other = getattr(kept.codes, name), getattr(fresh.codes, name)
        assert one.dtype == other.dtype, name
        if name == "value":
            assert one == pytest.approx(other, rel=1e-4, abs=1e-5)
        else:
            assert np.array_equal(one, other), name
    return missing, len(read) - missing


@pytest.mark.parametrize("tokens", [TOKENS, 10_000_000])
def test_explaining_needs_no_pass_of_its_own(run, corpus, database, own, monkeypatch, tokens):
    for address in run(corpus, tokens=tokens, seed=tokens):
        missing, parts = same(database, own, address, monkeypatch, tokens)
        assert missing == 0
        assert parts >= 4


def test_what_was_read_before_the_text_was_known_is_kept_as_well(run, corpus, database, own, monkeypatch):
    corpus.known_at = 16
    for address in run(corpus, seed=1):
        assert same(database, own, address, monkeypatch)[0] == 0


def test_more_than_the_sample_is_not_held_until_the_text_is_known(run, corpus, database, own, monkeypatch):
    corpus.known_at = len(corpus) // 2
    for address in run(corpus, seed=2):
        missing, parts = same(database, own, address, monkeypatch)
        assert 0 < missing < parts


def test_what_an_earlier_run_read_is_read_again_and_nothing_else(run, corpus, database, own, monkeypatch):
    seen = []

    def stop(progress):
        seen.append(progress.tokens)
        return len(seen) == 6

    with pytest.raises(KeyboardInterrupt):
        run(corpus, Watch(progress=stop), seed=3)
    for address in run(corpus, seed=3):
        missing, parts = same(database, own, address, monkeypatch)
        assert 0 < missing < parts


def test_halves_of_a_batch_are_kept_like_a_whole_one(run, corpus, database, own, monkeypatch):
    from app.harvest.reader import Reader

    real = Reader._read

    def tight(self, first, rows):
        if len(rows) > 2:
            raise torch.OutOfMemoryError
        return real(self, first, rows)

    with monkeypatch.context() as patch:
        patch.setattr(Reader, "_read", tight)
        patch.setattr(Reader, "l0", lambda self, corpus: [4.0] * len(self.saes))
        addresses = run(corpus, seed=4)
    for address in addresses:
        assert same(database, own, address, monkeypatch)[0] == 0


def test_a_disk_that_is_full_in_the_end_takes_nothing_of_the_harvest(run, corpus, database, own, monkeypatch):
    def full(*_):
        raise DiskFull("What latents do on the sample cannot be written.")

    notes = []
    with monkeypatch.context() as patch:
        patch.setattr("app.atlas.kept._save", full)
        [one, _] = run(corpus, Watch(note=notes.append), seed=5)
    assert [note for note in notes if "explaining reads the text again" in note]
    assert same(database, own, one, monkeypatch)[0] > 0


def test_of_a_text_of_very_many_sequences_nothing_is_kept(run, corpus, database, own, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(overheard, "SEQUENCES", 3)
        [one, _] = run(corpus, seed=6)
    missing, parts = same(database, own, one, monkeypatch)
    assert missing == parts
    assert isinstance(overheard.overheard(Watch(), own.home).read.__self__, Overheard)
