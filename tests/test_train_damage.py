"""What a training run meets that somebody or something has damaged, removed or asked wrongly."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from app.corpus.sequences import cut
from app.corpus.sources import Document
from app.errors import BadRequest, DiskFull
from app.train import record
from app.train.ideas.topk import Options as TopKOptions
from app.train.plans import plans, sweep
from app.train.run import Plan
from app.train.stream import Stopped, Watch, train
from tests.test_train import RECIPE, WORDS

PLANS = [Plan("topk", 48, 0, TopKOptions(k=4))]
PLACE = "model.layers.0:out"


@pytest.fixture(scope="module")
def words(tiny):
    picks = [WORDS[i] for i in torch.randint(0, 10, (800,), generator=torch.Generator().manual_seed(3)).tolist()]
    return list(cut([Document("w", " ".join(picks))], tiny.encode, bos_id=1, context=64))


def weights(facts):
    return load_file(Path(facts.sae) / "sae_weights.safetensors")


def same(a, b):
    a, b = weights(a), weights(b)
    return all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="module")
def clean(tiny, words, tmp_path_factory):
    (facts,) = train(tiny, words, RECIPE, PLANS, tmp_path_factory.mktemp("clean"))
    return facts


def cached(home):
    (folder,) = (home / "training" / "activations").iterdir()
    return folder, next(folder.glob("*.bf16"))


def half_gathered(folder, file):
    """As a kill leaves it: some sequences are in, the rest is not."""
    progress = json.loads((folder / "progress.json").read_text())
    sequences, rows = progress[PLACE]
    (folder / "progress.json").write_text(json.dumps({PLACE: [sequences // 2, rows // 2]}))
    with file.open("r+b") as raw:
        raw.truncate(file.stat().st_size // 3)


def cut_short(folder, file):
    with file.open("r+b") as raw:
        raw.truncate(file.stat().st_size - 64)


@pytest.mark.parametrize("damage", [half_gathered, cut_short, '{"model', "[]", '{"model.layers.0:out": 3}', "gone"])
def test_damaged_activations_are_gathered_again(tiny, words, clean, tmp_path, damage):
    first = replace(RECIPE, lr=1e-3)
    train(tiny, words, first, PLANS, tmp_path, tag="first")
    folder, file = cached(tmp_path)
    if callable(damage):
        damage(folder, file)
    elif damage == "gone":
        (folder / "progress.json").unlink()
    else:
        (folder / "progress.json").write_text(damage)
    (facts,) = train(tiny, words, RECIPE, PLANS, tmp_path)
    assert same(facts, clean)


def stopped(tiny, words, home):
    steps = iter(range(1000))
    with pytest.raises(Stopped):
        train(tiny, words, RECIPE, PLANS, home, watch=Watch(stopping=lambda: next(steps) > 20))
    (facts,) = record.runs(home)
    return record.folder_of(home, facts.name) / "checkpoint.pt"


def shorter(data):
    return data[: len(data) // 2]


@pytest.mark.parametrize("damage", [lambda data: b"", shorter, lambda data: b"garbage" * 100])
def test_a_damaged_checkpoint_is_named_and_can_be_removed(tiny, words, clean, tmp_path, damage):
    path = stopped(tiny, words, tmp_path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(BadRequest, match=r"The checkpoint .*checkpoint\.pt is damaged; remove it"):
        train(tiny, words, RECIPE, PLANS, tmp_path)
    path.unlink()
    (facts,) = train(tiny, words, RECIPE, PLANS, tmp_path)
    assert same(facts, clean)


def test_a_checkpoint_with_weights_that_are_no_numbers_is_damaged(tiny, words, tmp_path):
    path = stopped(tiny, words, tmp_path)
    state = torch.load(path, weights_only=True)
    state["idea"]["W_dec"][0, 0] = float("nan")
    torch.save(state, path)
    with pytest.raises(BadRequest, match="is damaged"):
        train(tiny, words, RECIPE, PLANS, tmp_path)


def test_an_sae_goes_where_it_is_asked_for_the_second_time(tiny, words, clean, tmp_path):
    home, out = tmp_path / "home", tmp_path / "deep" / "out"
    (first,) = train(tiny, words, RECIPE, PLANS, home)
    (second,) = train(tiny, words, RECIPE, PLANS, home, out=out)
    assert (second.state, second.sae) == ("finished", str(out))
    assert same(first, second)
    (third,) = train(tiny, words, RECIPE, PLANS, home, out=tmp_path / "another")
    assert same(third, clean)


def test_an_sae_that_is_gone_is_trained_again(tiny, words, clean, tmp_path):
    (facts,) = train(tiny, words, RECIPE, PLANS, tmp_path)
    for file in Path(facts.sae).iterdir():
        file.unlink()
    Path(facts.sae).rmdir()
    (again,) = train(tiny, words, RECIPE, PLANS, tmp_path)
    assert same(again, clean)
    assert len(list(record.read_lines(record.folder_of(tmp_path, again.name)))) > 0


def test_what_cannot_be_written_is_refused_before_the_work(tiny, words, tmp_path):
    def gathered(done, total):
        raise AssertionError("work was done")

    (tmp_path / "file").write_text("")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "cfg.json").write_text("mine")
    refused = {"file": BadRequest, "full": BadRequest, "file/below": DiskFull}
    for name, kind in refused.items():
        with pytest.raises(kind, match=name):
            train(tiny, words, RECIPE, PLANS, tmp_path / "home", out=tmp_path / name, watch=Watch(gathered=gathered))
    assert (tmp_path / "full" / "cfg.json").read_text() == "mine"
    assert record.runs(tmp_path / "home") == []


def test_an_sae_larger_than_memory_leaves_no_run(tiny, words, tmp_path):
    with pytest.raises(BadRequest, match="takes more memory than there is"):
        train(tiny, words, RECIPE, [Plan("topk", 10**12, 0, TopKOptions(k=4))], tmp_path)
    assert record.runs(tmp_path) == []


def test_token_ids_are_no_activations(tiny, words, tmp_path):
    recipe = replace(RECIPE, hook_point="model.embed_tokens:in")
    with pytest.raises(BadRequest, match="no vectors at"):
        train(tiny, words, recipe, PLANS, tmp_path)
    assert not list(tmp_path.rglob("*.bf16"))


@pytest.mark.parametrize(
    ("idea", "seed", "latents", "given", "told"),
    [
        ("topk", 1 << 32, 64, {}, "A seed is 0 or more"),
        ("topk", -1, 64, {}, "A seed is 0 or more"),
        ("gated", 0, 1, {}, "has 2 latents or more"),
        ("topk", 0, 64, {"aux_weight": "nan"}, "wanted a finite number"),
        ("topk", 0, 64, {"aux_weight": "inf"}, "wanted a finite number"),
        ("vsae", 0, 64, {"sigma": "0"}, "it is positive"),
        ("batchtopk", 0, 64, {"memory": "5"}, "it is a share"),
    ],
)
def test_plans_that_cannot_be_are_refused(idea, seed, latents, given, told):
    with pytest.raises(BadRequest, match=told):
        plans([idea], [seed], latents, given)


@pytest.mark.parametrize(
    "text", ["run = []", "[[run]]\nseeds = []", "[[run]]\nlatents = true", "[[run]]\nlatents = -5"]
)
def test_sweeps_of_nothing_are_refused(tmp_path, text):
    (tmp_path / "sweep.toml").write_text(text)
    with pytest.raises(BadRequest):
        sweep(tmp_path / "sweep.toml", 64)
