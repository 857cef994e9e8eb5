"""Loss recovered: 1 for a perfect reconstruction, 0 for none, and by hand on the tiny subject."""

from dataclasses import replace

import pytest
import torch

from app.harvest.batches import counted, pad
from app.harvest.recovery import recovered
from app.sae.relu import ReLU
from app.subject.edits import logits_with
from app.subject.hook_names import hook_point
from app.subject.hooks import HookPoint
from tests.families import config, make


def identity(hook="model.layers.0:out", scale=1.0):
    eye = torch.eye(32)
    return ReLU(
        config("relu", [hook], n=64), torch.cat([eye, -eye], 1), torch.zeros(64), scale * torch.cat([eye, -eye]),
        torch.zeros(32),
    )  # fmt: skip


@pytest.mark.parametrize("hook", ["model.layers.0:out", "model.layers.1:in", "model.layers.1.mlp:out"])
def test_a_perfect_reconstruction_recovers_all_and_none_recovers_nothing(tiny, sequences, hook):
    perfect = recovered(tiny, identity(hook), sequences, 6)
    assert perfect["ce_sae"] == pytest.approx(perfect["ce_original"], abs=1e-5)
    assert perfect["ce_recovered"] == pytest.approx(1, abs=1e-3)
    assert perfect["kl_recovered"] == pytest.approx(1, abs=1e-3)
    nothing = recovered(tiny, identity(hook, scale=0.0), sequences, 6)
    assert nothing["ce_sae"] == pytest.approx(nothing["ce_zero"], abs=1e-6)
    assert nothing["ce_recovered"] == pytest.approx(0, abs=1e-3)


def test_by_hand_one_sequence_at_a_time(tiny, sequences):
    sae, point = make("topk"), HookPoint.parse("model.layers.0:out")
    got = recovered(tiny, sae, sequences[:3], 3)
    sums, tokens = {"ce_original": 0.0, "ce_sae": 0.0, "ce_zero": 0.0}, 0
    for sequence in sequences[:3]:
        padded = pad([sequence], torch.device("cpu"))
        mask = counted(padded, torch.tensor(tiny.special_ids))
        kept = {}
        handle = tiny.model.model.layers[0].register_forward_hook(
            lambda m, a, out, kept=kept: kept.setdefault("x", out[0] if isinstance(out, tuple) else out)
        )
        original = tiny.model(input_ids=padded.token_ids).logits
        handle.remove()
        x = kept["x"][mask]
        hat = torch.zeros_like(kept["x"])
        hat[mask] = sae.decode(sae.encode(x), x)
        for name, logits in {
            "ce_original": original,
            "ce_sae": logits_with(tiny.model, padded.token_ids, None, {point: hat}, mask),
            "ce_zero": logits_with(tiny.model, padded.token_ids, None, {point: torch.zeros_like(hat)}, mask),
        }.items():
            sums[name] += float(
                torch.nn.functional.cross_entropy(logits[0, :-1], padded.token_ids[0, 1:], reduction="sum")
            )
        tokens += len(sequence.token_ids) - 1
    assert got["recovery_tokens"] == tokens
    for name, total in sums.items():
        assert got[name] == pytest.approx(total / tokens, rel=1e-5)


def test_what_cannot_be_replaced_has_no_loss_recovered(tiny, sequences):
    sae = identity()
    norm = "model.layers.1.post_attention_layernorm:unit"
    assert recovered(tiny, replace(sae, config=replace(sae.config, writes=(norm,))), sequences, 4) == {}


@pytest.mark.parametrize("zero", [False, True])
def test_the_stream_between_attention_and_mlp_is_replaced_as_a_whole(tiny, sequences, zero):
    """In the MLP's input and in what the block passes on: by hand from the block's parts."""
    ids = torch.from_numpy(sequences[0].token_ids).long()[None]
    block, kept = tiny.model.model.layers[1], {}
    handle = block.post_attention_layernorm.register_forward_pre_hook(lambda _m, args: kept.update(x=args[0]))
    tiny.model(input_ids=ids)
    handle.remove()
    value = torch.zeros_like(kept["x"]) if zero else 3 * kept["x"]
    out = value + block.mlp(block.post_attention_layernorm(value))
    wanted = tiny.model.lm_head(tiny.model.model.norm(out))
    point = hook_point("blocks.1.hook_resid_mid", tiny.model)
    got = logits_with(tiny.model, ids, None, {point: value}, torch.ones_like(ids, dtype=torch.bool))
    assert torch.allclose(got, wanted, atol=1e-4)
