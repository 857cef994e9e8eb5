"""The ideas: what each trains is what its SAE computes, planted directions are found, shortcuts are plain sums."""

import re
from dataclasses import replace

import pytest
import torch

from app.harvest.job import read_sae
from app.sae.base import SAEConfig
from app.train import sparse
from app.train.idea import Batch, Shape, Units
from app.train.ideas import IDEAS
from app.train.ideas.batchtopk import largest
from app.train.ideas.jumprelu import _Jump
from app.train.ideas.matching_pursuit import RESIDUALS, pursued, residual
from app.train.ideas.relu_l1 import Led
from app.train.ideas.top_afa import matched
from app.train.plans import plans
from app.train.planted import hierarchical, planted, recovery, trained
from app.train.run import Plan, Recipe, write
from app.web.rendering import ROOT

SHORT = Recipe(epochs=4, batch=256, lr=3e-3, warmup=0, dead_after=3000)


def batch_of(x, **more):
    variance = (x - x.mean(0)).pow(2).sum()
    dead = more.pop("dead", torch.zeros(48, dtype=torch.bool))
    return Batch(x=x, y=x, variance=variance, size=len(x), step=3, steps=9, dead=dead, **more)


def small(name, **options):
    idea = IDEAS[name]
    made = idea(Shape(16, 16, 48), idea.Options(**options), torch.Generator().manual_seed(0))
    g = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=g)
        made.normalise()
        if name == "jumprelu":
            made.threshold.clamp_(min=0)
    return made


@pytest.mark.parametrize("name", [name for name in IDEAS if name != "transcoder"])
def test_the_sae_computes_what_was_trained(name, tmp_path):
    """On raw activations, read back from disk: FVU and L0 of the loss, of a batch that was not normalised."""
    raw = 3 * torch.randn(400, 16, generator=torch.Generator().manual_seed(2)) + torch.arange(16.0)
    mean = raw.mean(0)
    scale = float((16 / (raw - mean).pow(2).sum(1).mean()) ** 0.5)
    x = (raw - mean) * scale
    options = {"sigma": 1e-6} if name == "vsae" else {}
    if hasattr(IDEAS[name].Options(), "k"):
        options["k"] = 4
    idea = small(name, **options)
    batch = batch_of(x, gradient=torch.zeros_like(x))
    loss = idea.loss(batch)
    if name in ("batchtopk", "matryoshka"):
        idea.theta = idea.edge - 1e-6
    config = SAEConfig(idea.architecture or name, 16, 48, ("a:out",), ("a:out",), "x", signed=idea.signed)
    write(tmp_path, idea.finished(config, Units(mean, scale, mean, scale)), {"seed": 0})
    sae = read_sae(tmp_path)
    acts = sae.encode(raw)
    fvu = float((raw - sae.decode(acts, raw)).pow(2).sum() / (raw - mean).pow(2).sum())
    assert fvu == pytest.approx(float(loss.fvu.detach()), rel=1e-3)
    assert len(acts.value) / 400 == pytest.approx(float(loss.l0), rel=1e-3)
    fired = torch.zeros(48, dtype=torch.bool)
    fired[acts.latent] = True
    assert torch.equal(fired, loss.fired)
    assert sae.config.architecture == (idea.architecture or name)


@pytest.mark.parametrize("name", ["topk", "matching-pursuit", "abstopk"])
def test_planted_directions_are_found(name, tmp_path):
    """With the seed that the directions have too: training must not start where it is to end."""
    made = planted(20_480)
    (plan,) = plans([name], [0], 192, {"k": "4"})
    start = IDEAS[name](Shape(64, 64, 192), plan.chosen, torch.Generator().manual_seed(0)).W_dec.detach()
    assert recovery(start, made.atoms, signed=True).found == 0
    sae = trained(plan, made, replace(SHORT, epochs=6), tmp_path)
    found = recovery(read_sae(tmp_path / "sae").W_dec, made.atoms, signed=sae.config.signed)
    assert found.cosine >= 0.95
    assert found.found >= 0.9


def test_a_hierarchy_is_what_it_says():
    made = hierarchical(500, d=32, parents=6, children=3)
    tops, below = made.atoms[:6], made.atoms[6:].view(6, 3, 32)
    torch.testing.assert_close((below @ tops[:, :, None]).abs().max(), torch.tensor(0.0), atol=1e-5, rtol=0)
    parents, children = made.codes[:, :6] > 0, made.codes[:, 6:].view(-1, 6, 3) > 0
    assert torch.equal(children.sum(2), parents.long())
    torch.testing.assert_close(made.codes @ made.atoms, made.x)


def test_pursuit_by_the_gram_matrix_is_pursuit():
    g = torch.Generator().manual_seed(0)
    rows = 2 * RESIDUALS + 30  # the last part is not whole
    x = torch.randn(rows, 16, generator=g, requires_grad=True)
    W = torch.nn.functional.normalize(torch.randn(40, 16, generator=g), dim=1).requires_grad_()
    left, latents, values = x, [], []
    for _ in range(6):
        value, latent = (left @ W.T).max(1)
        left = left - value.relu()[:, None] * W[latent]
        latents.append(latent)
        values.append(value.relu())
    assert torch.equal(pursued(x.detach(), W.detach(), 6), torch.stack(latents, 1))
    weights = torch.randn(rows, 16, generator=g)
    wanted = torch.autograd.grad((left.pow(2) * weights).sum(), (x, W))
    ours, found = residual(x, W, torch.stack(latents, 1))
    torch.testing.assert_close(found, torch.stack(values, 1))
    given = torch.autograd.grad((ours.pow(2) * weights).sum(), (x, W))
    for one, other in zip(given, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_sparse_gradients_are_dense_ones():
    idea = small("topk", k=5)
    x = torch.randn(30, 16, generator=torch.Generator().manual_seed(3))
    pre_acts = idea.pre_acts(x)
    cell = sparse.strongest(pre_acts.detach(), 5)
    weights = torch.randn(30, 16)
    mask = torch.zeros(30 * 48).index_fill(0, cell, 1.0).view(30, 48)
    wanted = torch.autograd.grad((((pre_acts * mask) @ idea.W_dec) * weights).sum(), list(idea.parameters())[:3])
    codes = sparse.picked(idea, x, pre_acts.detach(), cell)
    given = torch.autograd.grad((codes.decoded(idea.W_dec) * weights).sum(), list(idea.parameters())[:3])
    for one, other in zip(given, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_aux_k_is_the_strongest_dead_latents_guess_at_the_error():
    idea = small("topk", k=5)
    x = torch.randn(30, 16, generator=torch.Generator().manual_seed(3))
    dead = torch.arange(48) % 3 == 0
    error = torch.randn(30, 16)
    a = ((x - idea.b_dec) @ idea.W_enc + idea.b_enc).masked_fill(~dead, -torch.inf)
    kept = torch.where(a >= a.topk(4, dim=1).values[:, -1:], a, 0).relu()
    wanted = (error - kept @ idea.W_dec).pow(2).sum() / error.pow(2).sum()
    torch.testing.assert_close(sparse.aux_k(idea, batch_of(x, dead=dead), error, 4), wanted)
    assert sparse.aux_k(idea, batch_of(x), error, 4) == 0


def test_the_largest_of_a_batch_do_not_hang_on_the_guess():
    acts = torch.randn(20, 48, generator=torch.Generator().manual_seed(0)).relu()
    wanted = acts.flatten().sort(descending=True).values[39]
    for guess in (0.0, 0.5, 1.5, 100.0):
        assert largest(acts, 40, torch.tensor(guess), batch_of(torch.randn(20, 16))) == wanted


def test_norms_are_matched_by_as_many_as_a_plain_search_finds():
    s = torch.rand(50, 700, generator=torch.Generator().manual_seed(0))
    target = torch.linspace(0.1, 14, 50)
    cells = matched(s, target)
    for row in range(50):
        ordered = s[row].sort(descending=True).values.double()
        gaps = [(float(ordered[: k + 1].pow(2).sum() ** 0.5) - float(target[row])) for k in range(699)]
        k = min(range(699), key=lambda i: abs(gaps[i])) + 1
        assert int((cells // 700 == row).sum()) == k


def test_jumprelu_has_the_papers_pseudo_derivatives():
    a = torch.tensor([[0.9, 1.04, 1.2, 3.0]], requires_grad=True)
    t = torch.full((4,), 1.0, requires_grad=True)
    f, counts = _Jump.apply(a, t, 0.3)
    assert f.tolist() == [[0, pytest.approx(1.04), pytest.approx(1.2), 3]]
    assert counts.tolist() == [0, 1, 1, 1]
    (f * torch.tensor([2.0, 3.0, 5.0, 7.0])).sum().add(counts.sum() * 0.5).backward()
    assert a.grad.tolist() == [[0, 3, 5, 7]]
    wanted = [-(2 * 1 + 0.5) / 0.3, -(3 * 1 + 0.5) / 0.3, 0, 0]  # within 0.15 of the threshold, on either side
    assert t.grad.tolist() == pytest.approx(wanted)


def test_gba_lowers_what_fires_too_often_and_raises_what_never_does():
    idea = small("gba", groups=2, frequency=0.2, every=4)
    idea.b_enc = torch.full((48,), -0.5)
    idea.fires, idea.seen = torch.full((48,), 150.0), torch.tensor(1000.0)  # 0.15: below 0.2, above the second's 0.1
    idea.peak = torch.full((48,), 2.0)
    idea.fires[:3], idea.peak[:3] = 0, 0
    idea.after_step(batch_of(torch.randn(8, 16)), None)  # step 3 of every 4: due
    assert idea.b_enc[:3].tolist() == pytest.approx([-0.5 + 0.01 * 2.0] * 3)
    assert idea.b_enc[3:24].tolist() == pytest.approx([-0.5] * 21)
    assert idea.b_enc[24:].tolist() == pytest.approx([-0.5 - 0.01 * 2.0] * 24)
    assert idea.seen == 0


def test_relu_starts_without_writing_more_than_it_reads():
    """Half of its latents fire at first; with rows of norm 1 they would write several times x."""
    idea = IDEAS["relu-l1"](Shape(64, 64, 512), IDEAS["relu-l1"].Options(), torch.Generator().manual_seed(0))
    told = idea.loss(batch_of(torch.randn(256, 64)))
    assert 200 < float(told.l0) < 312
    assert float(told.fvu.detach()) < 1


def test_a_penalty_is_led_to_the_wanted_l0():
    """Against a plant whose L0 follows the weight slowly: L0 moves a hundredth of the way to 1000 / weight a step."""
    led, l0, weights = Led(1.0, 32.0), torch.tensor(2000.0), []
    for _ in range(2000):
        l0 = l0 + 0.01 * (1000 / led.weight - l0)
        led.step(l0, 2000)
        weights.append(float(led.weight))
    assert float(l0) == pytest.approx(32, rel=0.05)
    assert max(weights) < 1.5 * 1000 / 32  # so that it silences no more than it must
    still = Led(3.0, 0.0)
    still.step(torch.tensor(500.0), 2000)
    assert still.weight == 3


def test_vsae_draws_the_same_noise_in_shares():
    from app.train.world import World

    x = torch.randn(10, 16)
    whole = batch_of(x, seed=4).noise(6)
    parts = [replace(batch_of(x, seed=4), world=World(rank, 3)).noise(6) for rank in range(3)]
    assert torch.equal(torch.cat(parts), whole)
    assert not torch.equal(batch_of(x, seed=5).noise(6), whole)


def test_gsae_weighs_by_what_a_latent_does():
    idea = small("gsae", k=1, beta=1.0)
    pre_acts = torch.zeros(1, 48)
    pre_acts[0, :2] = torch.tensor([2.0, 1.5])
    gradient = torch.linalg.lstsq(idea.W_dec[:2].detach(), torch.tensor([0.0, -1.0])).solution[None]
    score = idea.score(pre_acts, batch_of(torch.zeros(1, 16), gradient=gradient))
    assert score[0, :2].tolist() == pytest.approx([2.0, 3.0], abs=1e-4)


def test_matryoshka_sums_prefixes():
    idea = small("matryoshka", k=4)
    x = torch.randn(30, 16, generator=torch.Generator().manual_seed(3))
    loss = idea.loss(batch_of(x))
    a = ((x - idea.b_dec) @ idea.W_enc + idea.b_enc).relu()
    f = a * (a >= a.flatten().topk(120).values[-1])
    levels = [(x - f[:, :m] @ idea.W_dec[:m] - idea.b_dec).pow(2).sum() for m in (2, 4, 10, 22, 48)]
    wanted = torch.stack(levels).mean() / (x - x.mean(0)).pow(2).sum()
    torch.testing.assert_close(loss.total, wanted)


def test_the_documented_example_trains(tmp_path):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "new-architecture.md").read_text(), re.DOTALL)
    assert len(blocks[0].splitlines()) < 80
    names = {"__name__": "app.train.ideas.root", "folder": tmp_path, "Recipe": Recipe, "Plan": Plan}
    exec(blocks[0], names)
    IDEAS["root"] = names["Root"]
    try:
        exec(blocks[1].replace("print", "found ="), names)
    finally:
        del IDEAS["root"]
    assert names["found"].cosine > 0.95
