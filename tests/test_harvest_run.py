"""The pass itself, the demo SAE, training and the schema."""

import pytest
import torch

from app.corpus.sequences import Held, cut
from app.corpus.sources import Document
from app.demo.run import CONTEXT, SAE_FOLDER, SUBJECT
from app.errors import OutOfMemory
from app.harvest.job import Job, read_sae, run_job
from app.harvest.parameters import Parameters
from app.harvest.run import Watch, harvest
from app.store.embedded import closed_parent, start_embedded
from app.store.replace import remove
from app.subject.load import load_subject
from tests.conftest import public_folder, random_sae
from tests.families import make


def run(subject, corpus, parameters, checkpoint=None, progress=lambda p: None, saes=None, **options):
    """A pass with a checkpoint at Ctrl-C only, unless told otherwise."""
    options = {"context": 64, "checkpoint_seconds": 1e9, "watch": Watch(progress=progress), **options}
    return harvest(subject, saes or [random_sae()], corpus, parameters, checkpoint=checkpoint, **options)


def test_ctrl_c_keeps_every_batch_that_was_done_and_a_damaged_checkpoint_starts_over(tiny, sequences, tmp_path):
    import os
    import signal

    parameters = Parameters(top=5, per_interval=2, width=16, batch_tokens=128)
    file, seen = tmp_path / "checkpoint.pt", []

    def interrupt(progress):
        seen.append(progress.tokens)
        if len(seen) == 3:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        run(tiny, sequences, parameters, file, interrupt)
    resumed = []
    run(tiny, sequences, parameters, file, lambda p: resumed.append(p.resumed))
    assert resumed[0] == seen[-1]
    file.write_bytes(file.read_bytes()[:1000])
    resumed.clear()
    run(tiny, sequences, parameters, file, lambda p: resumed.append(p.resumed))
    assert resumed[0] == 0
    assert file.with_suffix(".damaged").is_file()


def cut_top(saved):
    for column in ("magnitude", "sequence", "place", "key", "token", "window"):
        saved["harvesters"][0]["top 1"][column] = saved["harvesters"][0]["top 1"][column][:, :3]
    return saved


NO_CHECKPOINTS = {
    "nothing": lambda saved: {},
    "a list": lambda saved: [1],
    "a tensor": lambda saved: torch.zeros(3),
    "no SAE": lambda saved: saved | {"harvesters": []},
    "a text for a number": lambda saved: saved | {"sequences": "3"},
    "a key too few": lambda saved: {key: value for key, value in saved.items() if key != "sha256"},
    "an accumulator too few": lambda saved: saved | {"harvesters": [dict(list(saved["harvesters"][0].items())[1:])]},
    "tables of another width": cut_top,
    "counts of another type": lambda saved: saved["harvesters"][0]["stats"].update(count=torch.zeros(40)) or saved,
}


@pytest.mark.parametrize("name", NO_CHECKPOINTS)
def test_a_file_that_loads_but_is_no_checkpoint_is_set_aside(tiny, sequences, tmp_path, name):
    parameters = Parameters(top=5, per_interval=2, width=16, batch_tokens=128)
    file, notes, resumed = tmp_path / "checkpoint.pt", [], []
    run(tiny, sequences, parameters, file, checkpoint_seconds=0)
    torch.save(NO_CHECKPOINTS[name](torch.load(file, weights_only=True)), file)
    watch = Watch(progress=lambda p: resumed.append(p.resumed), note=notes.append)
    again = run(tiny, sequences, parameters, file, watch=watch).harvesters[0]
    assert resumed[0] == 0
    assert notes == ["The checkpoint is damaged and was set aside; the harvest starts over."]
    assert file.with_suffix(".damaged").is_file()
    assert torch.equal(again.stats.count, run(tiny, sequences, parameters).harvesters[0].stats.count)


def test_nothing_is_left_of_a_harvest_that_is_saved(tiny, sequences, engine, harvested, tmp_path):
    """Neither by its own pass nor by another's, and nothing that was set aside on the way."""
    _, parameters, folder = harvested
    job = Job("swept-up", folder, "test text", 64, parameters, checkpoint_seconds=0)

    def kill():
        raise Killed

    def left():
        return sorted(path.suffix for path in (tmp_path / "work").iterdir())

    with pytest.raises(Killed):
        run_job(job, tiny, sequences, engine, tmp_path, watch=Watch(between=kill))
    (checkpoint,) = (tmp_path / "work").iterdir()
    checkpoint.write_bytes(b"damaged")
    with pytest.raises(Killed):
        run_job(job, tiny, sequences, engine, tmp_path, watch=Watch(between=kill))
    with pytest.raises(Killed):
        run_job(job, tiny, Held(sequences[1:]), engine, tmp_path, watch=Watch(between=kill))
    assert left() == [".damaged", ".outdated", ".pt"]
    # Of the same corpus, asked for as its first million tokens: the revision is the same, the checkpoint is another.
    run_job(job, tiny, sequences, engine, tmp_path, total=1_000_000)
    assert left() == [".damaged", ".outdated", ".pt"]
    run_job(job, tiny, sequences, engine, tmp_path)
    assert left() == []
    remove(engine, tmp_path, "swept-up")


def test_ctrl_c_at_the_very_end_of_the_pass_is_not_lost(tiny, sequences, tmp_path):
    import os
    import signal

    parameters = Parameters(top=5, per_interval=2, width=16, batch_tokens=128)
    file = tmp_path / "checkpoint.pt"

    def interrupt(progress):
        if progress.tokens == progress.total:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        run(tiny, sequences, parameters, file, interrupt)
    again = []
    run(tiny, sequences, parameters, file, again.append)
    assert again == []  # every batch was kept


def test_progress_counts_the_tokens_that_the_sae_does(tiny, sequences, tmp_path):
    """BOS is read with every sequence and counts nowhere; what was asked for stands until the corpus is known."""
    parameters = Parameters(top=5, per_interval=2, width=16, batch_tokens=128)
    file, told = tmp_path / "checkpoint.pt", []

    def interrupt(progress):
        told.append(progress)
        return len(told) == 3

    with pytest.raises(KeyboardInterrupt):
        run(tiny, sequences, parameters, file, interrupt, total=7)
    counted = [sum(int(i) not in tiny.special_ids for i in s.token_ids) for s in sequences]
    done = run(tiny, sequences, parameters, file, told.append, total=7).harvesters[0]
    assert told[3].resumed == told[2].tokens
    assert told[-1].tokens == told[-1].total == done.stats.positions == sum(counted) < sum(sequences.lengths())


class Killed(Exception):
    pass


def test_a_killed_harvest_carries_on_to_the_same_end(tiny, sequences, tmp_path):
    parameters = Parameters(top=5, per_interval=2, width=16, batch_tokens=128, reconstruct_every=2)
    whole = run(tiny, sequences, parameters).harvesters[0]
    file = tmp_path / "checkpoint.pt"

    def kill(progress):
        if progress.tokens > sum(sequences.lengths()) // 2:
            raise Killed

    with pytest.raises(Killed):
        run(tiny, sequences, parameters, file, kill, checkpoint_seconds=0)
    assert file.is_file()
    starts = []
    again = run(tiny, sequences, parameters, file, lambda p: starts.append(p.resumed)).harvesters[0]
    assert starts[0] > 0
    assert again.reconstruction.result() == whole.reconstruction.result()
    assert torch.equal(again.stats.histogram, whole.stats.histogram)
    for name in ("magnitude", "sequence", "place"):
        assert torch.equal(getattr(again.top[1], name), getattr(whole.top[1], name))
        assert torch.equal(getattr(again.samples[1], name), getattr(whole.samples[1], name))


def test_a_corpus_that_changed_or_shrank_starts_over_and_says_so(tiny, sequences, tmp_path):
    parameters = Parameters(top=5, per_interval=2, width=16, batch_tokens=128)
    file = tmp_path / "checkpoint.pt"
    run(tiny, sequences, parameters, file, checkpoint_seconds=0)
    for other in (Held(sequences[:2]), Held([sequences[1], *sequences[1:]])):
        kept = file.read_bytes()
        notes, first = [], []
        watch = Watch(progress=lambda p, first=first: first.append(p.resumed), note=notes.append)
        done = run(tiny, other, parameters, file, watch=watch).harvesters[0]
        assert first[0] == 0
        assert notes == [
            "The corpus is not what it was at the checkpoint, which was set aside; the harvest starts over."
        ]
        assert torch.equal(done.stats.count, run(tiny, other, parameters).harvesters[0].stats.count)
        file.write_bytes(kept)


@pytest.fixture
def forwards(tiny):
    """Rows of every forward pass of the subject, as they happen."""
    seen = []
    handle = tiny.model.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    yield seen
    handle.remove()


def test_several_saes_share_each_forward_and_end_as_alone(tiny, sequences, forwards):
    parameters = Parameters(top=5, per_interval=2, width=16, batch_tokens=512)
    saes = [random_sae(), random_sae(hook="model.layers.1:in", seed=1), make("abstopk"), make("crosscoder")]
    alone = [run(tiny, sequences, parameters, saes=[sae]).harvesters[0] for sae in saes]
    once = len(forwards) // len(saes)
    forwards.clear()
    together = run(tiny, sequences, parameters, saes=saes).harvesters
    assert len(forwards) == once
    for a, b in zip(alone, together, strict=True):
        assert torch.equal(a.stats.histogram, b.stats.histogram)
        assert a.reconstruction.result() == b.reconstruction.result()
        for sign in a.signs:
            assert torch.equal(a.top[sign].sequence, b.top[sign].sequence)


def test_a_batch_too_large_for_memory_is_halved_once(tiny, sequences, tmp_path):
    parameters = Parameters(top=5, per_interval=2, width=16, batch_tokens=512)
    whole = run(tiny, sequences, parameters)
    assert not whole.halved
    most = 4

    def short_of_memory(module, args, kwargs):
        if len(kwargs["input_ids"]) > most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    handle = tiny.model.register_forward_pre_hook(short_of_memory, with_kwargs=True)
    try:
        halves = run(tiny, sequences, parameters)
        assert halves.halved
        a, b = whole.harvesters[0], halves.harvesters[0]
        assert torch.equal(a.stats.count, b.stats.count)
        assert torch.equal(a.top[1].sequence, b.top[1].sequence)
        assert a.reconstruction.positions == b.reconstruction.positions
        most = 1
        file = tmp_path / "checkpoint.pt"
        with pytest.raises(OutOfMemory, match="SAESCOPE_BATCH_TOKENS"):
            run(tiny, sequences, parameters, file)
        assert not file.exists()
    finally:
        handle.remove()


def test_the_bundled_sae_explains_the_real_subject(real_folder):
    """Held-out prose: FVU as the demo states it, every token with its k active latents."""
    subject = load_subject(real_folder, SUBJECT)
    text = (
        "The lighthouse was built in 1811 on a low reef off the coast of Scotland. Its light was visible from "
        "thirty miles away, and three keepers lived in it for six weeks at a time. Storms often cut them off. "
    )
    sequences = Held(cut([Document("light", text)], subject.encode, bos_id=subject.bos_id, context=CONTEXT))
    sae = read_sae(SAE_FOLDER)
    done = harvest(subject, [sae], sequences, Parameters(reconstruct_every=1), context=CONTEXT)
    metrics = done.harvesters[0].reconstruction.result()
    assert metrics["fvu"] < 0.3
    assert metrics["l0"] == 32


def test_migrations_make_the_tables_that_queries_expect(engine):
    from sqlalchemy import inspect

    from app.store.tables import metadata

    found = inspect(engine)
    for table in metadata.tables.values():
        columns = {c["name"]: c["nullable"] for c in found.get_columns(table.name)}
        assert columns == {c.name: c.nullable for c in table.columns}


def test_the_database_opens_no_folder_to_others():
    home = public_folder()
    before = {parent: parent.stat().st_mode for parent in home.parents}
    start_embedded(home)
    assert {parent: parent.stat().st_mode for parent in home.parents} == before
    assert closed_parent(home / "postgres") is None
