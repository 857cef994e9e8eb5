"""A latent by head and source: against values put in one source at a time, which needs no attention weights."""

from dataclasses import replace

import pytest
import torch

from app.errors import AttributionUnsupported, BadRequest, LatentOutOfRange
from app.live.head_split import head_split
from app.sae.normalise import Normalisation
from tests.conftest import random_sae
from tests.families import make
from tests.test_edits import hooks_of, logits, read

NORMALISATIONS = [
    Normalisation(), Normalisation("scale", 3.0, 4.0), Normalisation("unit_norm"), Normalisation("layer_norm"),
]  # fmt: skip


def outputs_with_one_source(model, ids, layer, source):
    """The heads' outputs [positions, 32] where only ``source`` has values; weights do not depend on values."""
    llama = hasattr(model, "model")
    attention = model.model.layers[layer].self_attn if llama else model.transformer.h[layer].attn
    module, first = (attention.v_proj, 0) if llama else (attention.c_attn, 64)

    def only(_m, _a, out):
        mask = torch.ones_like(out)
        mask[:, :, first:] = 0
        mask[:, source, first:] = 1
        return out * mask

    handle = module.register_forward_hook(only)
    try:
        return read(model, ids, [f"blocks.{layer}.attn.hook_z"])
    finally:
        handle.remove()


@pytest.mark.parametrize("subject", ["llama", "gpt2"])
@pytest.mark.parametrize("normalise", NORMALISATIONS, ids=lambda n: n.kind)
@pytest.mark.parametrize("subtract", [True, False])
def test_pieces_are_what_each_source_brings_each_head(tiny, gpt2, subject, normalise, subtract):
    model = tiny.model if subject == "llama" else gpt2
    text = [1, *tiny.encode("Paris is a warm cat in the sun")]
    ids = torch.tensor([text]) if subject == "llama" else torch.arange(2, 12)[None]
    base = random_sae(hook="blocks.1.attn.hook_z")
    sae = replace(
        base, config=replace(base.config, heads=4), b_enc=torch.linspace(-1, 1, 40), b_dec=30 * base.b_dec,
        normalise=normalise, subtract_b_dec=subtract,
    )  # fmt: skip
    position, latent = 6, 9
    got = head_split(model, sae, ids[0].tolist(), position, latent)
    z = read(model, ids, sae.config.reads)[position : position + 1]
    pre_act = float(next(iter(sae.blocks(z))).pre_acts[0, latent])
    assert got.pre_act == pytest.approx(pre_act, abs=1e-5)
    assert got.pieces.shape == (4, position + 1)
    assert float(got.pieces.sum()) == pytest.approx(pre_act - got.bias, abs=1e-5)
    column, std = sae.W_enc[:, latent], float(z.std())
    assert got.bias == pytest.approx(float(sae.b_enc[latent] - subtract * (sae.b_dec @ column)), abs=1e-5)
    factors = {"none": 1.0, "scale": 3.0, "unit_norm": 32**0.5 / float(z.norm()), "layer_norm": 1 / (std + 1e-5)}
    w = (column - (column.mean() if normalise.kind == "layer_norm" else 0)) * factors[normalise.kind]
    for source in range(position + 1):
        part = outputs_with_one_source(model, ids, 1, source)[position] * w
        assert torch.allclose(got.pieces[:, source], part.unflatten(0, (4, 8)).sum(1), atol=1e-5)
    assert got.pieces.abs().min(1).values.max() > 0
    assert model.config._attn_implementation == "sdpa"
    assert hooks_of(model) == 0


def test_in_bf16_all_but_rounding_is_there(tiny_folder, tiny):
    from app.subject.load import load_subject

    half = load_subject(tiny_folder, "tiny", dtype="bfloat16", device="cpu")
    sae = replace(make("attention-output"), config=replace(make("attention-output").config, heads=4))
    ids = [1, *tiny.encode("Paris is a warm cat in the sun")]
    got, wanted = (head_split(s.model, sae, ids, 5, 3) for s in (half, tiny))
    assert got.pieces.dtype == torch.float32
    assert float(got.pieces.sum()) == pytest.approx(got.pre_act - got.bias, abs=0.02)
    assert float((got.pieces - wanted.pieces).norm() / wanted.pieces.norm()) < 0.05


def test_what_cannot_be_split_is_refused_and_leaves_the_subject_as_it_was(tiny):
    sae = make("attention-output")
    heads = replace(sae, config=replace(sae.config, heads=4))
    elsewhere = replace(heads, config=replace(heads.config, reads=("model.layers.1.mlp.gate_proj:in",)))
    pursuit = make("matching-pursuit")
    ids = [1, 5, 6, 7]
    for one, says in (
        (sae, "topk|attention-output on blocks.1.attn.hook_z"),
        (replace(pursuit, config=replace(pursuit.config, heads=4)), "affine encoder"),
        (elsewhere, "neither v_proj nor c_attn"),
    ):
        with pytest.raises(AttributionUnsupported, match=says) as raised:
            head_split(tiny.model, one, ids, 2, 3)
        assert raised.value.code == "attribution_unsupported"
    handle = tiny.model.model.layers[1].self_attn.o_proj.register_forward_pre_hook(lambda _m, args: (2 * args[0],))
    with pytest.raises(AttributionUnsupported, match="not its weights times its values"):
        head_split(tiny.model, heads, ids, 2, 3)
    handle.remove()
    with pytest.raises(BadRequest, match="Position 4 is not in the text; it has 4 tokens"):
        head_split(tiny.model, heads, ids, 4, 3)
    with pytest.raises(LatentOutOfRange, match="no latent 40; the SAE has 0 to 39"):
        head_split(tiny.model, heads, ids, 2, 40)
    with pytest.raises(IndexError):
        head_split(tiny.model, heads, [10**7], 0, 3)
    assert hooks_of(tiny.model) == 0
    assert tiny.model.config._attn_implementation == "sdpa"
    logits(tiny.model, torch.tensor([ids]))
