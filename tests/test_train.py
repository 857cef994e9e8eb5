"""Training: runs on one stream, resumed after a kill, in several processes; refusals."""

import json
import multiprocessing
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from app.corpus.sequences import cut
from app.corpus.sources import Document
from app.errors import BadRequest
from app.harvest.job import read_sae
from app.train import activations, record
from app.train.idea import Options
from app.train.ideas import IDEAS
from app.train.ideas.topk import Options as TopKOptions
from app.train.plans import plans, sweep
from app.train.planted import planted, trained
from app.train.run import Plan, Recipe, Run
from app.train.stream import Stopped, Watch, train
from app.train.world import joined
from tests.services import free_port

WORDS = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa"]
RECIPE = Recipe(
    hook_point="model.layers.0:out", epochs=4, batch=128, warmup=5, log_every=5, checkpoint_every=10, lr=3e-3
)  # fmt: skip
K = TopKOptions(k=8)


class Killed(Exception):
    pass


@pytest.fixture(scope="module")
def words(tiny):
    g = torch.Generator().manual_seed(0)
    picks = [WORDS[i] for i in torch.randint(0, 10, (1500,), generator=g).tolist()]
    return list(cut([Document("w", " ".join(picks))], tiny.encode, bos_id=1, context=64))


def test_runs_on_one_stream_resume_and_end_as_they_would_alone(tiny, words, tmp_path):
    recipe = replace(RECIPE, log_every=3, dead_after=1000)  # stopped between two lines, with latents asleep
    wanted = [Plan("topk", 64, 0, K), Plan("vsae", 64, 1), Plan("gba", 64, 0), Plan("gsae", 64, 0)]
    made = train(tiny, words, recipe, wanted, tmp_path / "a")
    assert [facts.state for facts in made] == ["finished"] * 4

    def kill(run):
        if run.step >= 25:
            raise Killed

    with pytest.raises(Killed):
        train(tiny, words, recipe, wanted[:3], tmp_path / "b", watch=Watch(stepped=kill))
    assert {facts.state for facts in record.runs(tmp_path / "b")} == {"stopped"}
    for plan in wanted[:3]:
        train(tiny, words, recipe, [plan], tmp_path / "b")
    for facts in made[:3]:
        lines = list(record.read_lines(tmp_path / "a" / "training" / facts.name))
        again = list(record.read_lines(tmp_path / "b" / "training" / facts.name))
        assert [line.step for line in again] == [line.step for line in lines]
        assert [line.fvu for line in again] == [line.fvu for line in lines]
        first, second = (read_sae(tmp_path / home / "training" / facts.name / "sae") for home in "ab")
        assert torch.equal(first.W_dec, second.W_dec)
        assert torch.equal(first.b_enc, second.b_enc)
    lines = list(record.read_lines(tmp_path / "a" / "training" / made[0].name))
    assert lines[-1].fvu < 0.5 * lines[0].fvu
    first = read_sae(Path(made[0].sae))
    torch.testing.assert_close(first.W_dec.norm(dim=1), torch.ones(64), rtol=0, atol=4e-3)  # rounded to bf16
    assert first.config.context == 128
    assert len(list((tmp_path / "a" / "training" / "activations").glob("*/*.bf16"))) == 2  # one hook, one gradient
    assert not list(tmp_path.glob("*/training/*/checkpoint.pt"))
    stamp = (tmp_path / "a" / "training" / made[0].name / "run.json").stat().st_mtime_ns
    assert train(tiny, words, recipe, wanted, tmp_path / "a")[0].state == "finished"
    assert (tmp_path / "a" / "training" / made[0].name / "run.json").stat().st_mtime_ns == stamp


def naive(tiny, words, steps):
    """TopK without AuxK as the paper has it, step by step, dense: W_enc, b_enc, W_dec, b_dec after ``steps``."""
    gathered = activations.gather(tiny, [RECIPE.hook_point], words, naive.folder)
    file = gathered.files[RECIPE.hook_point]
    mean, scale = activations.normalisation(file, gathered.rows)
    g = torch.Generator().manual_seed(0)
    W_dec = torch.nn.functional.normalize(torch.randn(64, 32, generator=g), dim=1).requires_grad_()
    W_enc = W_dec.detach().T.contiguous().requires_grad_()
    b_enc, b_dec = torch.zeros(64, requires_grad=True), torch.zeros(32, requires_grad=True)
    adam = torch.optim.Adam([W_enc, b_enc, W_dec, b_dec], lr=RECIPE.lr)
    order = torch.randperm(gathered.rows, generator=torch.Generator().manual_seed(1))
    total = gathered.rows // 128 * 4
    for step in range(steps):
        adam.param_groups[0]["lr"] = RECIPE.lr * min(1, (step + 1) / 5, (total - step) / (0.25 * total))
        x = (file.read(order[step * 128 : (step + 1) * 128]) - mean) * scale
        a = (x - b_dec) @ W_enc + b_enc
        f = a * (a >= a.topk(8, dim=1).values[:, -1:]) * (a > 0)
        loss = (x - f @ W_dec - b_dec).pow(2).sum() / (x - x.mean(0)).pow(2).sum()
        adam.zero_grad()
        loss.backward()
        with torch.no_grad():
            W_dec.grad -= (W_dec.grad * W_dec).sum(1, keepdim=True) * W_dec
            adam.step()
            W_dec /= W_dec.norm(dim=1, keepdim=True)
    return {"W_enc": W_enc, "b_enc": b_enc, "W_dec": W_dec, "b_dec": b_dec}


def test_a_step_is_what_a_plain_loop_does(tiny, words, tmp_path):
    naive.folder = tmp_path / "plain"
    seen = {}

    def look(run):
        if run.step == 12:
            seen.update({name: p.detach().clone() for name, p in run.idea.named_parameters()})
            raise Killed

    with pytest.raises(Killed):
        train(tiny, words, RECIPE, [Plan("topk", 64, 0, K)], tmp_path, watch=Watch(stepped=look))
    for name, value in naive(tiny, words, 12).items():
        torch.testing.assert_close(seen[name], value.detach(), rtol=1e-4, atol=1e-5)


SHARED = Recipe(epochs=1, batch=128, lr=3e-3, warmup=5, log_every=5)
SHARING = {"topk": "4", "batchtopk": "4", "vsae": "4", "gba": None, "jumprelu": None}


def planned(name):
    return plans([name], [0], 64, {"k": SHARING[name]} if SHARING[name] else {})[0]


def one_of_two(rank, port, folder):
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    with joined() as world:
        for name in SHARING:
            trained(planned(name), planted(2600, 32, 40), SHARED, folder / name, world)


def test_two_processes_train_what_one_does(tmp_path):
    for name in SHARING:
        trained(planned(name), planted(2600, 32, 40), SHARED, tmp_path / "one" / name)
    spawn, port = multiprocessing.get_context("spawn"), free_port()
    both = [spawn.Process(target=one_of_two, args=(rank, port, tmp_path / "two")) for rank in (0, 1)]
    for process in both:
        process.start()
    for process in both:
        process.join(300)
        assert process.exitcode == 0
    for name in SHARING:
        first, second = (read_sae(tmp_path / count / name / "sae") for count in ("one", "two"))
        torch.testing.assert_close(second.W_dec, first.W_dec, rtol=0, atol=6e-3)  # a step of bf16
        ours, theirs = (list(record.read_lines(tmp_path / count / name)) for count in ("one", "two"))
        assert len(ours) == len(theirs) == 4
        for mine, other in zip(ours, theirs, strict=True):
            assert other.loss == pytest.approx(mine.loss, rel=1e-3)
            assert other.l0 == pytest.approx(mine.l0, rel=1e-2)
            assert other.dead == mine.dead


MORTAL = replace(SHARED, epochs=3, checkpoint_every=10)


def dying(folder):
    torch.set_num_threads(1)
    update = Run.update

    def until_25(run, batch):
        update(run, batch)
        if run.step == 25:
            os.kill(os.getpid(), signal.SIGKILL)

    Run.update = until_25
    trained(planned("topk"), planted(2600, 32, 40), MORTAL, folder)


def test_killed_without_a_word_it_ends_with_the_same_weights(tmp_path):
    process = multiprocessing.get_context("spawn").Process(target=dying, args=(tmp_path / "killed",))
    process.start()
    process.join(300)
    assert process.exitcode == -signal.SIGKILL
    assert (tmp_path / "killed" / "checkpoint.pt").is_file()
    assert record.read_facts(tmp_path / "killed").state == "running"
    again = trained(planned("topk"), planted(2600, 32, 40), MORTAL, tmp_path / "killed")
    whole = trained(planned("topk"), planted(2600, 32, 40), MORTAL, tmp_path / "whole")
    assert torch.equal(again.W_dec, whole.W_dec)
    assert torch.equal(again.b_enc, whole.b_enc)
    assert list(record.read_lines(tmp_path / "killed"))[-1].step == 60


def test_asked_to_stop_it_keeps_every_step(tiny, words, tmp_path):
    steps = []
    watch = Watch(stepped=lambda run: steps.append(run.step), stopping=lambda: len(steps) == 7)
    with pytest.raises(Stopped):
        train(tiny, words, RECIPE, [Plan("topk", 64, 0, K)], tmp_path, watch=watch)
    train(
        tiny, words, RECIPE, [Plan("topk", 64, 0, K)], tmp_path, watch=Watch(stepped=lambda run: steps.append(run.step))
    )
    assert steps[:9] == list(range(1, 10))


def test_a_loss_that_is_no_number_stops_its_run_alone(tiny, words, tmp_path):
    def spoil(run):
        if run.plan.seed == 1 and run.step == 7:
            run.idea.b_dec.data[0] = float("nan")

    wanted = [Plan("topk", 64, 0, K), Plan("topk", 64, 1, K)]
    good, bad = train(tiny, words, RECIPE, wanted, tmp_path, watch=Watch(stepped=spoil))
    assert (good.state, bad.state) == ("finished", "failed")
    assert bad.message.startswith("Its loss was no number any more by step 10 (at 6 or later)")
    assert not (tmp_path / "training" / bad.name / "sae").exists()


def test_gradients_are_those_of_the_subjects_loss(tiny):
    from app.subject.hooks import HookPoint

    ids = torch.tensor([[1, 20, 30, 40, 50], [1, 60, 70, 2, 2]])
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
    point = HookPoint.parse("model.layers.0:out")
    found = activations.gradient_at(tiny, point, ids, mask)
    assert found[1, 3:].abs().max() == 0  # padding

    def loss(push):
        from app.subject.hooks import tap

        handle = tap(tiny.model, point, lambda value: value + push)
        with torch.inference_mode():
            logits = tiny.model(input_ids=ids, attention_mask=mask).logits.double().log_softmax(-1)
        handle.remove()
        pairs = [(s, i) for s in (0, 1) for i in range(4) if mask[s, i + 1]]
        return -float(sum(logits[s, i, ids[s, i + 1]] for s, i in pairs))

    direction = torch.randn(32, generator=torch.Generator().manual_seed(0))
    push = torch.zeros(2, 5, 32)
    push[0, 2] = direction
    slope = (loss(1e-3 * push) - loss(-1e-3 * push)) / 2e-3
    assert slope == pytest.approx(float((found[0, 2] * direction).sum()), rel=0.02, abs=1e-3)


def test_a_transcoder_predicts_another_place_and_an_attention_sae_knows_its_heads(tiny, words, tmp_path):
    recipe = replace(RECIPE, hook_point="model.layers.0.mlp:in", writes="model.layers.0.mlp:out", epochs=12)
    (facts,) = train(tiny, words, recipe, [Plan("transcoder", 64)], tmp_path)
    sae = read_sae(Path(facts.sae))
    assert (sae.config.reads, sae.config.writes) == (("model.layers.0.mlp:in",), ("model.layers.0.mlp:out",))
    gathered = activations.gather(tiny, [recipe.hook_point, recipe.writes], words, tmp_path / "again")
    x, y = (gathered.files[place].read(torch.arange(1000)) for place in (recipe.hook_point, recipe.writes))
    fvu = float((y - sae.decode(sae.encode(x), x)).pow(2).sum() / (y - y.mean(0)).pow(2).sum())
    logged = list(record.read_lines(tmp_path / "training" / facts.name))[-1].fvu
    assert fvu == pytest.approx(logged, abs=0.05)  # on raw activations what was logged on normalised ones
    (facts,) = train(tiny, words, replace(RECIPE, hook_point="blocks.1.attn.hook_z", epochs=1),
                     [Plan("attention-output", 64)], tmp_path)  # fmt: skip
    assert facts.reads == "model.layers.1.self_attn.o_proj:in"
    assert read_sae(Path(facts.sae)).config.heads == 4


def test_order_is_of_the_text_where_it_is_sequential():
    from app.train.stream import batches

    taken = [index.tolist() for _, index in batches(10, Recipe(batch=4, order="sequential"), 0, 4)]
    assert taken == [[0, 1, 2, 3], [4, 5, 6, 7], [0, 1, 2, 3], [4, 5, 6, 7]]
    mixed = [index for _, index in batches(10, Recipe(batch=4), 0, 4)]
    assert sorted(torch.cat(mixed[:2]).tolist()) != list(range(8))
    assert [i.tolist() for _, i in batches(10, Recipe(batch=4), 3, 4)] == [mixed[3].tolist()]


@pytest.mark.parametrize(
    ("recipe", "plan", "says"),
    [
        (RECIPE, Plan("topk", 16, 0, TopKOptions(k=32)), "k is 32, more than the 16 latents."),
        (replace(RECIPE, batch=10**6), Plan(), "fewer than one batch of 1,000,000; give more text."),
        (replace(RECIPE, writes="model.layers.1:out"), Plan(), "topk writes where it reads"),
        (RECIPE, Plan("transcoder"), "transcoder needs --writes"),
        (RECIPE, Plan("attention-output"), "output projection, such as blocks.0.attn.hook_z, not model.layers.0:out"),
        (replace(RECIPE, hook_point="model.layers.7:out"), Plan(), "no module 'model.layers.7'"),
        (RECIPE, Plan("nonsense"), "There is no idea 'nonsense'; there are: topk, batchtopk"),
    ],
)
def test_refusals_leave_nothing(tiny, words, tmp_path, recipe, plan, says):
    from app.errors import SaescopeError

    with pytest.raises(SaescopeError, match=r"^[^\n]+$") as refused:
        train(tiny, words, recipe, [plan], tmp_path)
    assert says in refused.value.message
    assert not (tmp_path / "training").exists()


def test_plans_from_options_and_files(tmp_path):
    made = plans(["topk", "jumprelu"], [0, 1], 64, {"k": "8", "l0": "9.5"})
    assert [plan.label for plan in made] == [
        "topk-64-k8-s0",
        "jumprelu-64-l0-9.5-s0",
        "topk-64-k8-s1",
        "jumprelu-64-l0-9.5-s1",
    ]
    with pytest.raises(BadRequest, match=r"No idea here has an option 'beta'; there are: topk: k, aux_weight\."):
        plans(["topk"], [0], 64, {"beta": "1"})
    with pytest.raises(BadRequest, match=r"topk's k is '1\.5'; wanted a whole number\."):
        plans(["topk"], [0], 64, {"k": "1.5"})
    file = tmp_path / "s.toml"
    file.write_text('[[run]]\nidea = "gsae"\nseeds = [3]\nbeta = 2\n[[run]]\nlatents = 32\nk = 4\n')
    assert [plan.label for plan in sweep(file, 64)] == ["gsae-64-beta2-s3", "topk-32-k4-s0"]
    file.write_text("runs = 3")
    with pytest.raises(BadRequest, match="is to hold tables"):
        sweep(file, 64)
    assert all(idea.Options.__mro__[-2] is Options for idea in IDEAS.values())


def test_a_run_without_a_sign_of_life_is_lost(tmp_path, tiny, words):
    (facts,) = train(tiny, words, replace(RECIPE, epochs=1), [Plan("topk", 64, 0, K)], tmp_path)
    folder = tmp_path / "training" / facts.name
    record.save_facts(folder, replace(facts, state="running"))
    assert record.read_facts(folder).state == "running"
    os.utime(folder / "run.json", (1, 1))
    assert record.read_facts(folder).state == "lost"
    with (folder / "log.jsonl").open("a") as log:
        log.write('{"step": 9')
    assert list(record.read_lines(folder))[-1].step == facts.steps
    (folder / "run.json").write_text("{")
    assert record.runs(tmp_path) == []
    assert json.loads((tmp_path / "training" / facts.name / "sae" / "cfg.json").read_text())["k"] == 8


def test_the_command_trains_a_sweep_and_carries_on(tiny_folder, monkeypatch, capsys, tmp_path):
    from app import cli

    (tmp_path / "text.txt").write_text("The cat sat on the mat. Paris is the capital of France. " * 120)
    (tmp_path / "sweep.toml").write_text('[[run]]\nk = 4\n[[run]]\nidea = "gated"\nl0 = 4\n')
    monkeypatch.setenv("SAESCOPE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("SAESCOPE_DTYPE", "float32")

    def run(*more):
        text, file = f"text:{tmp_path / 'text.txt'}", str(tmp_path / "sweep.toml")
        asked = ["--model", str(tiny_folder), "--corpus", text, "--hook", "blocks.0.hook_resid_post", "--latents", "48"]
        monkeypatch.setattr("sys.argv", ["saescope", "train", *asked, "--batch", "128", "--sweep", file, *more])
        status = 0
        try:
            cli.main()
        except SystemExit as stop:
            status = stop.code
        told = capsys.readouterr()
        return status, told.out, told.err

    _, told, _ = run("--dry-run", "--chat", "--tokens", "1000")
    assert "tiny-l0-out-topk-48-k4-s0\ntiny-l0-out-gated-48-l0-4-s0" in told
    assert not (tmp_path / "home" / "training").exists()
    _, _, told = run("--minutes", "0")
    assert "The time is up" in told
    status, told, _ = run("--out", str(tmp_path / "saes"), "--drop-activations")
    assert status in (0, None)
    assert told.endswith(
        f"The SAE is in {tmp_path}/saes/tiny-l0-out-topk-48-k4-s0.\n"
        f"The SAE is in {tmp_path}/saes/tiny-l0-out-gated-48-l0-4-s0.\n"
    )
    assert read_sae(tmp_path / "saes" / "tiny-l0-out-topk-48-k4-s0").config.reads == ("model.layers.0:out",)
    assert list((tmp_path / "home" / "training" / "activations").iterdir()) == []
    status, _, told = run("--k", "3")
    assert (status, told) == (1, "saescope: --sweep says what to train; leave out --idea, --seed, --k and --set.\n")


def test_activations_without_variance_are_refused(tmp_path):
    (plan,) = plans(["topk"], [0], 64, {"k": "4"})
    for value in (1.0, float("nan")):
        made = planted(300, 32, 40)
        with pytest.raises(BadRequest, match="nothing to train on"):
            trained(plan, made._replace(x=torch.full_like(made.x, value)), SHARED, tmp_path / str(value))
