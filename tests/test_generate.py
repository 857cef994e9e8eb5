"""Baseline and edited text side by side: transformers' own greedy text, whole forwards, and common random numbers."""

import pytest
import torch

from app.errors import BadRequest, EmptyText, InvalidEdit, TextTooLong
from app.live.editing import edited
from app.live.edits import Edit
from app.live.generate import generate, nucleus
from tests.conftest import random_sae
from tests.families import make
from tests.test_edits import hooks_of, logits

CLAMP = [Edit(0, 3, "clamp", 3.0)]


@pytest.fixture(scope="module")
def prompt(tiny):
    return [tiny.bos_id, *tiny.encode("Paris is a warm cat in the sun")]


@pytest.fixture(params=["llama", "gpt2"])
def case(request, tiny, gpt2, prompt):
    """model, prompt, an SAE of it, special ids"""
    if request.param == "llama":
        return tiny.model, prompt, random_sae(), tiny.special_ids
    return gpt2, [0, 7, 30, 12, 5], random_sae(hook="blocks.0.hook_resid_post"), [0]


def counted(model, steps):
    """The steps as a list, and how many forwards they took."""
    seen = []
    handle = model.register_forward_pre_hook(
        lambda _m, _a, kwargs: seen.append(kwargs["input_ids"].shape), with_kwargs=True
    )
    try:
        return list(steps), seen
    finally:
        handle.remove()


def test_without_edits_both_sides_are_one_text(case):
    model, prompt, sae, special = case
    steps = list(generate(model, [sae], [], prompt, special_ids=special, max_new=12, seed=5))
    assert len(steps) == 12
    for step in steps:
        assert step.baseline == step.edited
        assert step.baseline_logprob == pytest.approx(step.edited_logprob, abs=1e-5)
        assert step.kl < 1e-6
    assert len({step.baseline for step in steps}) > 6  # drawn, not one token again and again


def test_a_seed_repeats_and_another_does_not(case):
    model, prompt, sae, special = case
    one, again, other = (
        list(generate(model, [sae], CLAMP, prompt, special_ids=special, max_new=8, seed=seed)) for seed in (5, 5, 6)
    )
    assert one == again
    assert [s.baseline for s in one] != [s.baseline for s in other]


def test_temperature_0_is_the_text_transformers_itself_generates(case):
    model, prompt, sae, special = case
    more = {"max_new_tokens": 12, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    ids = torch.tensor([prompt])
    plain = model.generate(ids, attention_mask=torch.ones_like(ids), **more)[0, len(prompt) :].tolist()
    with edited(model, [sae], CLAMP, special_ids=special, generated_from=len(prompt)):
        changed = model.generate(ids, attention_mask=torch.ones_like(ids), **more)[0, len(prompt) :].tolist()
    steps = list(generate(model, [sae], CLAMP, prompt, special_ids=special, max_new=12, temperature=0))
    assert [s.baseline for s in steps] == plain
    assert [s.edited for s in steps] == changed
    assert plain != changed


@pytest.mark.parametrize("scope", ["all", "generated"])
@pytest.mark.parametrize("name", ["topk", "transcoder", "crosscoder", "attention-output"])
def test_every_number_is_that_of_whole_forwards(tiny, prompt, name, scope):
    """Log-probabilities and KL read off whole forwards of the texts that came out."""
    sae, edits = make(name), [Edit(0, 3, "clamp", 3.0, scope)]
    steps = list(generate(tiny.model, [sae], edits, prompt, special_ids=tiny.special_ids, max_new=6, seed=1))
    texts = [torch.tensor([prompt + tokens]) for tokens in ([s.baseline for s in steps], [s.edited for s in steps])]
    baseline, unedited = (logits(tiny.model, text)[0].double().log_softmax(-1) for text in texts)
    with edited(tiny.model, [sae], edits, special_ids=tiny.special_ids, generated_from=len(prompt)):
        changed = logits(tiny.model, texts[1])[0].double().log_softmax(-1)
    kl = (changed.exp() * (changed - unedited)).sum(-1)
    for step in steps:
        at = len(prompt) - 1 + step.number
        assert step.baseline_logprob == pytest.approx(float(baseline[at, step.baseline]), abs=1e-4)
        assert step.edited_logprob == pytest.approx(float(changed[at, step.edited]), abs=1e-4)
        assert step.kl == pytest.approx(float(kl[at]), abs=1e-5)
        assert (step.kl > 1e-4) == (scope == "all" or step.number > 0)


def test_one_forward_a_step(case):
    model, prompt, sae, special = case
    steps, seen = counted(model, generate(model, [sae], CLAMP, prompt, special_ids=special, max_new=5))
    assert len(steps) == 5
    assert seen == [(3, len(prompt)), *[(3, 1)] * 4]


def test_a_crosscoder_takes_a_second_forward_a_step(tiny, prompt):
    _, seen = counted(tiny.model, generate(tiny.model, [make("crosscoder")], CLAMP, prompt, max_new=3))
    assert seen == [(3, len(prompt)), (3, len(prompt)), *[(3, 1)] * 4]


def test_between_steps_and_after_the_last_the_subject_is_as_it_was(tiny, prompt):
    clean = logits(tiny.model, torch.tensor([prompt]))
    steps = generate(tiny.model, [make("clt")], CLAMP, prompt, special_ids=tiny.special_ids, max_new=20, seed=2)
    alone = list(generate(tiny.model, [make("clt")], CLAMP, prompt, special_ids=tiny.special_ids, max_new=4, seed=2))
    for wanted in alone:
        assert next(steps) == wanted
        assert hooks_of(tiny.model) == 0
        assert not torch.is_inference_mode_enabled()
        assert torch.equal(logits(tiny.model, torch.tensor([prompt])), clean)  # other work
        torch.manual_seed(0)
    steps.close()
    assert hooks_of(tiny.model) == 0


def test_each_side_ends_by_itself(case):
    model, prompt, sae, special = case
    free = list(generate(model, [sae], CLAMP, prompt, special_ids=special, max_new=10, seed=3))
    baseline, changed = [s.baseline for s in free], [s.edited for s in free]
    early = next(token for token in baseline[1:] if token not in changed and token != baseline[0])
    late = next(token for token in changed[changed.index(changed[4]) :] if token not in baseline)
    steps = list(generate(model, [sae], CLAMP, prompt, special_ids=special, max_new=10, seed=3, eos_ids=[early, late]))
    end, last = baseline.index(early), changed.index(late)
    assert [s.baseline for s in steps] == [*baseline[: end + 1], *[None] * (len(steps) - end - 1)]
    assert [s.edited for s in steps] == [*changed[: last + 1], *[None] * (len(steps) - last - 1)]
    assert len(steps) == max(end, last) + 1 < 10
    for step, one in zip(steps, free, strict=False):
        assert step.kl == (one.kl if step.edited is not None else None)
        assert step.baseline_logprob == (one.baseline_logprob if step.baseline is not None else None)
        assert step.edited_logprob == (one.edited_logprob if step.edited is not None else None)


def test_draws_follow_the_distribution_at_its_temperature(gpt2):
    """The first token over many seeds: frequencies against the softmax, within 4 standard errors."""
    prompt, n, temperature = [0, 7, 30], 600, 1.5
    p = (logits(gpt2, torch.tensor([prompt]))[0, -1].double() / temperature).softmax(-1)
    drawn = [
        next(generate(gpt2, [], [], prompt, temperature=temperature, seed=seed, max_new=1)).baseline
        for seed in range(n)
    ]
    share = torch.bincount(torch.tensor(drawn), minlength=50) / n
    assert ((share - p).abs() < 4 * (p * (1 - p) / n).sqrt() + 1e-9).all()
    assert p.max() < 0.5


def test_both_sides_are_drawn_with_the_same_noise(gpt2):
    """A slight edit parts the texts in few steps; with noise of their own they would part at once."""
    sae = random_sae(hook="blocks.0.hook_resid_post")
    same = []
    for seed in range(40):
        step = next(
            generate(gpt2, [sae], [Edit(0, 3, "steer", 0.05)], [0, 7, 30], seed=seed, max_new=1, temperature=2.0)
        )
        same.append(step.baseline == step.edited)
    assert sum(same) >= 36


def test_the_nucleus_by_hand():
    p = torch.tensor([[0.1, 0.5, 0.15, 0.25]]).log()
    for top_p, kept in ((0.5, [1]), (0.51, [1, 3]), (0.75, [1, 3]), (0.76, [1, 2, 3]), (1.0, [0, 1, 2, 3])):
        assert nucleus(p, top_p)[0].isfinite().nonzero()[:, 0].tolist() == kept
    assert nucleus(p, 1e-9)[0].isfinite().sum() == 1


def test_top_p_draws_from_the_nucleus_alone(gpt2):
    prompt = [0, 7, 30]
    p = logits(gpt2, torch.tensor([prompt]))[0, -1].double().log_softmax(-1)
    kept = set(nucleus(p[None], 0.3)[0].isfinite().nonzero()[:, 0].tolist())
    drawn = {next(generate(gpt2, [], [], prompt, top_p=0.3, seed=seed, max_new=1)).baseline for seed in range(60)}
    assert 1 < len(drawn) <= len(kept) < 25
    assert drawn <= kept


@pytest.mark.parametrize(("changed", "error", "says"), [
    ({"prompt": []}, EmptyText, "no prompt"),
    ({"max_new": 0}, BadRequest, "max_new is 0; it must be at least 1"),
    ({"temperature": -0.1}, BadRequest, "temperature is -0.1; it must be 0 or more"),
    ({"temperature": float("nan")}, BadRequest, "temperature is nan"),
    ({"temperature": float("inf")}, BadRequest, "temperature is inf"),
    ({"top_p": 0.0}, BadRequest, "top_p is 0.0; it must be above 0"),
    ({"top_p": 1.1}, BadRequest, "top_p is 1.1"),
    ({"seed": -1}, BadRequest, "seed is -1"),
    ({"max_new": 62}, TextTooLong, "has 3 tokens and 62 more are asked for; the subject reads 64"),
    ({"edits": [Edit(0, 99, "ablate")], "max_new": 5}, InvalidEdit, "there are 0"),
])  # fmt: skip
def test_refusals_come_before_the_first_step(gpt2, changed, error, says):
    given = {"prompt": [0, 7, 30], "edits": []} | changed
    with pytest.raises(error, match=says):
        generate(gpt2, [], **given)


def test_to_the_very_end_of_the_context(gpt2):
    assert len(list(generate(gpt2, [], [], [0, 7, 30], max_new=61))) == 61
