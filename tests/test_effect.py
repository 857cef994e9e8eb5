"""What edits do to a text's predictions: against two whole forwards, by runs of positions, for tuples of tokens."""

import pytest
import torch

from app.errors import BadRequest, EmptyText, InvalidEdit
from app.live import effect as module
from app.live.editing import edited
from app.live.edits import Edit
from app.live.effect import effect
from tests.conftest import random_sae
from tests.families import make
from tests.test_edits import busiest, hooks_of, logits, read

TEXT = "Paris is a warm cat in the sun of France"


@pytest.fixture(scope="module")
def ids(tiny):
    return [tiny.bos_id, *tiny.encode(TEXT)]


def both(model, saes, edits, ids, **more):
    """Log-probabilities [positions, vocabulary] of two whole forwards, in float64."""
    tokens = torch.tensor([ids])
    with edited(model, saes, edits, **more):
        changed = logits(model, tokens)
    return logits(model, tokens)[0].double().log_softmax(-1), changed[0].double().log_softmax(-1)


@pytest.mark.parametrize("name", ["topk", "crosscoder"])
@pytest.mark.parametrize("width", [1, 3, 100])
def test_kl_losses_and_tokens_are_those_of_two_whole_forwards(tiny, ids, name, width, monkeypatch):
    monkeypatch.setattr(module, "ELEMENTS", width * tiny.model.config.vocab_size)
    sae = make(name)
    j = busiest(sae, read(tiny.model, torch.tensor([ids]), sae.config.reads)[1:])
    edits = [Edit(0, j, "clamp", 2.0)]
    got = effect(tiny.model, [sae], edits, ids, special_ids=tiny.special_ids, position=4, top=5)
    clean, changed = both(tiny.model, [sae], edits, ids, special_ids=tiny.special_ids)
    kl = (changed.exp() * (changed - clean)).sum(-1)
    assert kl[1:].min() > 1e-4
    assert torch.allclose(got.kl.double(), kl, atol=1e-5)
    assert got.kl[0] < 1e-6  # BOS is not edited
    after = torch.tensor(ids[1:])[:, None]
    assert torch.allclose(got.clean_loss.double(), -clean[:-1].gather(1, after)[:, 0], atol=1e-5)
    assert torch.allclose(got.edited_loss.double(), -changed[:-1].gather(1, after)[:, 0], atol=1e-5)
    assert got.mean_loss_change == pytest.approx(float((got.edited_loss - got.clean_loss).mean()), abs=1e-6)
    change = changed[4] - clean[4]
    assert [s.token for s in got.raised] == change.topk(5).indices.tolist()
    assert [s.token for s in got.lowered] == change.topk(5, largest=False).indices.tolist()
    whole = logits(tiny.model, torch.tensor([ids]))[0, 4]
    for shift in got.raised + got.lowered:
        assert shift.clean_logit == pytest.approx(float(whole[shift.token]), abs=1e-4)
        assert shift.clean_probability == pytest.approx(float(clean[4, shift.token].exp()), rel=1e-4)
        assert shift.edited_probability == pytest.approx(float(changed[4, shift.token].exp()), rel=1e-4)
        assert shift.edited_logit != shift.clean_logit
    assert hooks_of(tiny.model) == 0


def test_by_probability_and_at_the_last_position(tiny, ids):
    sae, edits = make("topk"), [Edit(0, 3, "steer", 4.0)]
    got = effect(tiny.model, [sae], edits, ids, special_ids=tiny.special_ids, top=3, by="probability")
    clean, changed = both(tiny.model, [sae], edits, ids, special_ids=tiny.special_ids)
    assert got.position == len(ids) - 1
    assert [s.token for s in got.raised] == (changed.exp() - clean.exp())[-1].topk(3).indices.tolist()
    assert got.raised[0].edited_probability > got.raised[0].clean_probability


def test_without_an_effect_nothing_moves(tiny, ids):
    sae = make("topk")
    x = read(tiny.model, torch.tensor([ids]), sae.config.reads)[1:]
    j = busiest(sae, x)
    own = [
        Edit(0, j, "clamp", float(value), frozenset({place + 1}))
        for place, value in enumerate(sae.encode(x).column(j)) if value
    ]  # fmt: skip
    for edits in ([], own, [Edit(0, 3, "clamp", 9.0, "generated")]):
        got = effect(tiny.model, [sae], edits, ids, special_ids=tiny.special_ids)
        assert got.kl.max() < 1e-6
        assert got.mean_loss_change == pytest.approx(0, abs=1e-6)
        assert all(s.edited_logit == pytest.approx(s.clean_logit, abs=1e-5) for s in got.raised + got.lowered)
    later = effect(tiny.model, [sae], [Edit(0, 3, "clamp", 9.0, "generated")], ids, generated_from=5)
    assert (later.kl > 1e-4).tolist() == [place >= 5 for place in range(len(ids))]


def test_special_tokens_are_not_in_the_mean(tiny, ids):
    sae, edits, special = make("topk"), [Edit(0, 3, "steer", 4.0)], tiny.special_ids
    ids = [*ids[:6], special[-1], *ids[6:]]
    got = effect(tiny.model, [sae], edits, ids, special_ids=special)
    change = got.edited_loss - got.clean_loss
    kept = torch.tensor([token not in special for token in ids[1:]])
    assert not kept.all()
    assert got.mean_loss_change == pytest.approx(float(change[kept].mean()), abs=1e-6)
    assert effect(tiny.model, [sae], edits, ids[:1], special_ids=special).mean_loss_change is None


def test_gpt2(gpt2):
    sae = random_sae(hook="blocks.0.hook_resid_post")
    ids, edits = list(range(2, 14)), [Edit(0, 3, "steer", 2.0, frozenset({4}))]
    got = effect(gpt2, [sae], edits, ids)
    clean, changed = both(gpt2, [sae], edits, ids)
    assert torch.allclose(got.kl.double(), (changed.exp() * (changed - clean)).sum(-1), atol=1e-5)
    assert got.kl[:4].max() < 1e-6 < got.kl[4]


def test_the_text_is_read_in_few_forwards_and_logits_are_never_held_whole(tiny, monkeypatch):
    seen = []
    handle = tiny.model.register_forward_hook(lambda _m, _a, out: seen.append(out.logits.shape[:2]))
    monkeypatch.setattr(module, "ELEMENTS", 40 * tiny.model.config.vocab_size)
    effect(tiny.model, [make("topk")], [Edit(0, 3, "ablate")], [5] * 100)
    handle.remove()
    assert seen == [(2, 40), (2, 40), (2, 20)]


def test_refusals(tiny, ids):
    with pytest.raises(EmptyText):
        effect(tiny.model, [make("topk")], [], [])
    for position in (-1, len(ids)):
        with pytest.raises(BadRequest, match=f"Position {position} is not in the text; it has 0 to {len(ids) - 1}"):
            effect(tiny.model, [make("topk")], [], ids, position=position)
    with pytest.raises(InvalidEdit):
        effect(tiny.model, [make("topk")], [Edit(1, 0, "ablate")], ids)
