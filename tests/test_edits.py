"""Edits against plain PyTorch hooks, for every kind, scope and family; padding, caches, composition and refusals."""

import math
from dataclasses import replace

import pytest
import torch
from transformers import DynamicCache

from app.errors import BadRequest, EditUnsupported, InvalidEdit, LatentOutOfRange, SubjectUnavailable
from app.live.editing import Editing, edited
from app.live.edits import MAX_EDITS, Edit, check
from app.sae.normalise import Normalisation
from app.sae.unit_rows import unit_row
from app.subject.hook_names import hook_point
from app.subject.hooks import read_activations
from tests.conftest import random_sae
from tests.families import FAMILIES, make

HOOK = "model.layers.0:out"
KINDS = ["ablate", "clamp", "scale", "add", "steer", "project"]


@pytest.fixture(scope="module")
def ids(tiny):
    return torch.tensor([[tiny.bos_id, *tiny.encode("Paris is a warm cat in the sun of France")]])


@torch.inference_mode()
def logits(model, ids, **more):
    return model(input_ids=ids, **more).logits


def editing(tiny, saes, edits, **more):
    return edited(tiny.model, saes, edits, special_ids=tiny.special_ids, **more)


def hooks_of(model):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def read(model, ids, names):
    """[positions, d of all] of one row."""
    points = [hook_point(name, model) for name in names]
    found = read_activations(model, ids, list(dict.fromkeys(points)))
    return torch.cat([found[p][0] for p in points], dim=1)


@torch.inference_mode()
def with_plain_hook(model, ids, name, change):
    """Logits with ``change`` [length, d] -> [length, d] done to the activation at ``name`` by PyTorch's own hooks."""
    path, _, side = str(hook_point(name, model)).rpartition(":")
    module = model.get_submodule(path)

    def after(_module, _args, out):
        return (change(out[0][0])[None], *out[1:]) if isinstance(out, tuple) else change(out[0])[None]

    def before(_module, args):
        return (change(args[0][0])[None], *args[1:])

    handle = module.register_forward_hook(after) if side == "out" else module.register_forward_pre_hook(before)
    try:
        return model(input_ids=ids).logits
    finally:
        handle.remove()


def busiest(sae, x):
    """The latent that fires at most positions."""
    return int((sae.encode(x).dense(sae.config.n_latents) != 0).sum(0).argmax())


def topk_by_hand(sae, x):
    """[positions, n]"""
    pre_acts = (x - sae.b_dec) @ sae.W_enc + sae.b_enc
    kth = pre_acts.topk(sae.k, dim=1).values[:, -1:]
    return torch.where(pre_acts >= kth, pre_acts, 0).relu()


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_is_what_a_plain_hook_does(tiny, ids, kind):
    sae, amount = make("topk"), 1.7
    j = busiest(sae, read(tiny.model, ids, [HOOK])[1:])
    d = sae.W_dec[j]

    def change(x):
        a = topk_by_hand(sae, x)[:, j]
        unit = d / d.norm()
        match kind:
            case "ablate":
                moved = -a[:, None] * d
            case "clamp":
                moved = (amount - a)[:, None] * d
            case "scale":
                moved = ((amount - 1) * a)[:, None] * d
            case "add" | "steer":
                moved = (amount * d).expand(x.shape)
            case "project":
                moved = -(x @ unit)[:, None] * unit
        return x + torch.cat([torch.zeros(1, 32), moved[1:]])  # position 0 is BOS

    wanted = with_plain_hook(tiny.model, ids, HOOK, change)
    with editing(tiny, [sae], [Edit(0, j, kind, amount)]):
        got = logits(tiny.model, ids)
    assert torch.allclose(got, wanted, atol=1e-5)
    assert (got - logits(tiny.model, ids)).abs().max() > 1e-3


@pytest.mark.parametrize("name", FAMILIES)
def test_ablating_a_latent_of_any_family_takes_its_share_alone(tiny, ids, name):
    """What the family's decode gives with and without the latent is the difference, at each place it writes."""
    sae = make(name)
    x = read(tiny.model, ids, sae.config.reads)
    acts = sae.encode(x[1:])
    j = busiest(sae, x[1:])
    assert (acts.latent == j).sum() >= 2
    delta = sae.decode(acts.keep(acts.latent != j), x[1:]) - sae.decode(acts, x[1:])
    delta = torch.cat([torch.zeros(1, delta.shape[1]), delta]).tensor_split(len(sae.config.writes), dim=1)
    handles = []
    for point, part in zip((hook_point(w, tiny.model) for w in sae.config.writes), delta, strict=True):
        module = tiny.model.get_submodule(point.module)
        if point.side == "out":
            handles.append(module.register_forward_hook(lambda _m, _a, out, part=part: out + part))
        else:
            handles.append(module.register_forward_pre_hook(lambda _m, args, part=part: (args[0] + part, *args[1:])))
    wanted = logits(tiny.model, ids)
    for handle in handles:
        handle.remove()
    with editing(tiny, [sae], [Edit(0, j, "ablate")]):
        got = logits(tiny.model, ids)
    assert torch.allclose(got, wanted, atol=1e-5)
    assert (got - logits(tiny.model, ids)).abs().max() > 1e-5


@pytest.mark.parametrize("name", FAMILIES)
def test_what_leaves_a_latent_as_it_is_leaves_the_logits_as_they_are(tiny, ids, name):
    sae = make(name)
    clean = logits(tiny.model, ids)
    acts = sae.encode(read(tiny.model, ids, sae.config.reads)[1:])
    dense = acts.dense(sae.config.n_latents)
    j, (place, idle) = busiest(sae, read(tiny.model, ids, sae.config.reads)[1:]), (dense == 0).nonzero()[0].tolist()
    there = frozenset({place + 1})
    fires = int(dense[:, j].nonzero()[0])
    own = Edit(0, j, "clamp", float(dense[fires, j]), frozenset({fires + 1}))
    nothing = [Edit(0, idle, "ablate", 0.0, there), Edit(0, idle, "scale", 9.0, there)]
    nothing += [Edit(0, j, kind, float(kind == "scale")) for kind in ("scale", "add", "steer")]
    for edits in ([], nothing, *([edit] for edit in nothing)):
        with editing(tiny, [sae], edits):
            assert torch.equal(logits(tiny.model, ids), clean), edits
    with editing(tiny, [sae], [own]):  # encoded at one position, its value is another in the last bits
        assert torch.allclose(logits(tiny.model, ids), clean, atol=1e-6)


@pytest.mark.parametrize("name", [name for name in FAMILIES if name not in ("crosscoder", "clt")])
def test_steering_adds_what_decoding_so_much_more_adds(tiny, ids, name):
    sae, amount = make(name), 0.8
    x = read(tiny.model, ids, sae.config.reads)[1:]
    j = busiest(sae, x)
    acts = sae.encode(x)
    more = acts.with_column(j, acts.column(j) + amount)
    delta = torch.cat([torch.zeros(1, 32), sae.decode(more, x) - sae.decode(acts, x)])
    wanted = with_plain_hook(tiny.model, ids, sae.config.writes[0], lambda y: y + delta)
    for kind in ("steer", "add"):
        with editing(tiny, [sae], [Edit(0, j, kind, amount)]):
            assert torch.allclose(logits(tiny.model, ids), wanted, atol=1e-5)


@pytest.mark.parametrize("normalise", [
    Normalisation("scale", 3.0, 4.0), Normalisation("unit_norm"), Normalisation("layer_norm"),
])  # fmt: skip
def test_steering_is_in_the_subjects_units(tiny, ids, normalise):
    sae = replace(make("relu"), normalise=normalise)
    x = read(tiny.model, ids, [HOOK])
    length = {"scale": torch.tensor(0.25), "unit_norm": x.norm(dim=1) / 32**0.5, "layer_norm": x.std(dim=1)}
    delta = 2.0 * length[normalise.kind].expand(len(x))[:, None] * sae.W_dec[5]
    delta[0] = 0
    wanted = with_plain_hook(tiny.model, ids, HOOK, lambda y: y + delta)
    with editing(tiny, [sae], [Edit(0, 5, "steer", 2.0)]):
        assert torch.allclose(logits(tiny.model, ids), wanted, atol=1e-5)


def test_a_crosscoder_is_steered_at_both_places_and_projected_out_of_each(tiny, ids):
    sae = make("crosscoder")
    row = unit_row(sae, 3, torch.zeros(1, 64))[0].tensor_split(2)
    values = {}

    def at(kind, layer, y):
        values[kind, layer] = y
        if kind == "steer":
            return y + 0.5 * row[layer]
        unit = row[layer] / row[layer].norm()
        return y - (y @ unit)[:, None] * unit

    for kind in ("steer", "project"):
        handles = [
            tiny.model.model.layers[layer].register_forward_hook(
                lambda _m, _a, out, kind=kind, layer=layer: torch.cat(
                    [out[:, :1], at(kind, layer, out[0, 1:])[None]], 1
                )
            )
            for layer in (0, 1)
        ]
        wanted = logits(tiny.model, ids)
        for handle in handles:
            handle.remove()
        with editing(tiny, [sae], [Edit(0, 3, kind, 0.5)]):
            assert torch.allclose(logits(tiny.model, ids), wanted, atol=1e-5)


def test_editing_between_attention_and_mlp_moves_the_stream_itself(tiny, gpt2, ids):
    """What is added to the stream there is what is added to the attention's output."""
    for model, tokens, attention in (
        (tiny.model, ids, "model.layers.1.self_attn:out"),
        (gpt2, torch.arange(2, 12)[None], "transformer.h.1.attn:out"),
    ):
        sae = random_sae(hook="blocks.1.hook_resid_mid")
        x = read(model, tokens, sae.config.reads)
        j = busiest(sae, x)
        a = topk_by_hand(sae, x)[:, j]
        wanted = with_plain_hook(model, tokens, attention, lambda y, a=a, j=j, sae=sae: y - a[:, None] * sae.W_dec[j])
        with edited(model, [sae], [Edit(0, j, "ablate")]):
            assert torch.allclose(logits(model, tokens), wanted, atol=1e-5)
        assert (wanted - logits(model, tokens)).abs().max() > 1e-4


def test_a_hook_whose_module_takes_keywords_or_returns_a_tuple(tiny, gpt2, ids):
    for model, tokens, name in (
        (tiny.model, ids, "model.layers.1.self_attn:in"),
        (tiny.model, ids, "model.layers.1.self_attn:out"),
        (gpt2, torch.arange(2, 12)[None], "transformer.h.1.attn:out"),
    ):
        with edited(model, [random_sae(hook=name)], [Edit(0, 3, "steer", 5.0)]):
            changed = read(model, tokens, [name])
        assert torch.allclose(changed - read(model, tokens, [name]), 5 * random_sae().W_dec[3], atol=1e-5)


def moved(model, ids, name, **more):
    """Which positions of the activation at ``name`` an editing moves, one list a row."""
    clean = read_activations(model, ids, [hook_point(name, model)], more.get("attention_mask"))
    editing = more.pop("editing")
    with editing:
        got = read_activations(model, ids, [hook_point(name, model)], more.get("attention_mask"))
    different = (got[hook_point(name, model)] != clean[hook_point(name, model)]).any(-1)
    return [row.nonzero()[:, 0].tolist() for row in different]


def test_scopes(tiny, ids):
    sae, n = random_sae(), ids.shape[1]
    special = ids.clone()
    special[0, 4] = tiny.special_ids[-1]

    def places(edit, tokens=ids, **more):
        editing = Editing(tiny.model, [sae], [edit], special_ids=tiny.special_ids, **more)
        return moved(tiny.model, tokens, HOOK, editing=editing)[0]

    for kind in ("clamp", "steer"):
        assert places(Edit(0, 3, kind, 5.0)) == list(range(1, n))
        assert places(Edit(0, 3, kind, 5.0), special) == [p for p in range(1, n) if p != 4]
        assert places(Edit(0, 3, kind, 5.0, "generated")) == []
        assert places(Edit(0, 3, kind, 5.0, "generated"), generated_from=6) == list(range(6, n))
        assert places(Edit(0, 3, kind, 5.0, frozenset({2, 4, 400})), special) == ([2] if kind == "clamp" else [2, 4])
    assert places(Edit(0, 3, "clamp", 5.0, frozenset({0}))) == []  # nothing is encoded at BOS
    assert places(Edit(0, 3, "project", 0.0, frozenset({0, 1}))) == [0, 1]
    assert places(Edit(0, 3, "steer", 5.0), rows=[1]) == []


def padded(ids, side, by=3):
    pad, tokens = torch.full((1, by), 7), [ids, ids[:, :-2]]
    rows = [torch.cat([pad, ids], 1) if side == "left" else torch.cat([ids, pad], 1)]
    short = torch.cat([pad, torch.full((1, 2), 7)], 1)
    rows.append(torch.cat([short, tokens[1]], 1) if side == "left" else torch.cat([tokens[1], short], 1))
    both = torch.cat(rows)
    lengths = torch.tensor([t.shape[1] for t in tokens])[:, None]
    column = torch.arange(both.shape[1])
    mask = (column >= both.shape[1] - lengths) if side == "left" else (column < lengths)
    return both, mask.long(), tokens


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("name", ["topk", "relu-layer-norm", "transcoder", "crosscoder", "clt", "attention-output"])
@pytest.mark.parametrize("scope", ["all", "generated", frozenset({2, 5})])
def test_in_a_padded_batch_as_alone(tiny, ids, side, name, scope):
    sae = make(name)
    j = busiest(sae, read(tiny.model, ids, sae.config.reads)[1:])
    edits = [Edit(0, j, "clamp", 1.0, scope), Edit(0, j + 1, "steer", 1.0, scope)]
    both, mask, tokens = padded(ids, side)
    position_ids = (mask.cumsum(1) - 1).clamp_min(0)
    with editing(tiny, [sae], edits, generated_from=[4, 6]):
        together = logits(tiny.model, both, attention_mask=mask, position_ids=position_ids)
    for row, (one, start) in enumerate(zip(tokens, (4, 6), strict=True)):
        with editing(tiny, [sae], edits, generated_from=start):
            alone = logits(tiny.model, one)
        assert torch.allclose(together[row][mask[row].bool()], alone[0], atol=1e-4)
        assert (alone - logits(tiny.model, one)).abs().max() > 1e-3


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("name", ["topk", "skip-transcoder", "crosscoder", "clt"])
@pytest.mark.parametrize("scope", ["all", "generated", frozenset({3, 8})])
def test_in_chunks_with_a_cache_as_whole(tiny, ids, name, scope, masked):
    sae = make(name)
    j = busiest(sae, read(tiny.model, ids, sae.config.reads)[1:])
    edits = [Edit(0, j, "clamp", 1.0, scope), Edit(0, j, "project", 0.0, scope)]
    with editing(tiny, [sae], edits, generated_from=7):
        whole = logits(tiny.model, ids)
    assert (whole - logits(tiny.model, ids)).abs().max() > 1e-3
    editor = Editing(tiny.model, [sae], edits, special_ids=tiny.special_ids, generated_from=7)
    cache, parts = DynamicCache(config=tiny.model.config), []
    for begin, end in ((0, 4), (4, 8), (8, 9), (9, ids.shape[1])):
        mask = torch.ones(1, end, dtype=torch.int64) if masked else None
        with editor:
            parts.append(logits(tiny.model, ids[:, begin:end], past_key_values=cache, attention_mask=mask))
        assert hooks_of(tiny.model) == 0
        logits(tiny.model, ids[:, :: -1 * -1][:, :3])  # other work in between
    assert torch.allclose(torch.cat(parts, 1), whole, atol=1e-4)


def test_only_the_rows_named_are_edited(tiny, ids):
    for name in ("topk", "crosscoder"):
        sae = make(name)
        j = busiest(sae, read(tiny.model, ids, sae.config.reads)[1:])
        two = ids.repeat(2, 1)
        with editing(tiny, [sae], [Edit(0, j, "clamp", 2.0)], rows=[1]):
            got = logits(tiny.model, two)
        assert torch.allclose(got[0], logits(tiny.model, ids)[0], atol=1e-6)
        with editing(tiny, [sae], [Edit(0, j, "clamp", 2.0)]):
            assert torch.allclose(got[1], logits(tiny.model, ids)[0], atol=1e-5)


def test_editings_of_two_texts_share_a_batch(tiny, ids):
    """Two people's edits in one forward, one of them read ahead."""
    one, two = make("topk"), make("crosscoder")
    first, second = [Edit(0, 3, "clamp", 1.0)], [Edit(0, 5, "clamp", 1.0)]
    with editing(tiny, [one], first, rows=[0]), editing(tiny, [two], second, rows=[1]):
        got = logits(tiny.model, ids.repeat(2, 1))
    for row, (sae, edits) in enumerate(((one, first), (two, second))):
        with editing(tiny, [sae], edits):
            assert torch.allclose(got[row], logits(tiny.model, ids)[0], atol=1e-5)


def test_edits_of_one_sae_compose_in_their_order(tiny, ids):
    sae = make("topk")
    x = read(tiny.model, ids, [HOOK])
    j = busiest(sae, x[1:])
    d = sae.W_dec[j]

    def got(*edits):
        with editing(tiny, [sae], edits):
            return read(tiny.model, ids, [HOOK])[1:]

    a = sae.encode(x[1:]).column(j)
    assert torch.allclose(
        got(Edit(0, j, "add", 1.0), Edit(0, j, "scale", 3.0)), x[1:] + (2 * a + 3)[:, None] * d, atol=1e-5
    )
    assert torch.allclose(
        got(Edit(0, j, "scale", 3.0), Edit(0, j, "add", 1.0)), x[1:] + (2 * a + 1)[:, None] * d, atol=1e-5
    )
    unit = d / d.norm()
    gone = x[1:] - (x[1:] @ unit)[:, None] * unit
    assert torch.allclose(got(Edit(0, j, "steer", 2.0), Edit(0, j, "project")), gone, atol=1e-5)
    assert torch.allclose(got(Edit(0, j, "project"), Edit(0, j, "steer", 2.0)), gone + 2 * d, atol=1e-5)


def test_saes_compose_in_the_order_of_the_forward_pass(tiny, ids):
    """Whatever the order of the edits, the SAE at the later hook encodes what the earlier one left; at one hook the
    edits' order decides."""
    early, late = make("topk"), random_sae(hook="model.layers.1:out", seed=7)
    same = replace(make("relu"), b_dec=torch.zeros(32))

    def by_hand(x, sae, j, amount):
        return x + torch.cat([torch.zeros(1, 32), (amount - sae.encode(x[1:]).column(j))[:, None] * sae.W_dec[j]])

    handles = [
        tiny.model.model.layers[0].register_forward_hook(lambda _m, _a, out: by_hand(out[0], early, 3, 1.0)[None]),
        tiny.model.model.layers[1].register_forward_hook(lambda _m, _a, out: by_hand(out[0], late, 4, 1.5)[None]),
    ]
    wanted = logits(tiny.model, ids)
    for handle in handles:
        handle.remove()
    edits = [Edit(1, 4, "clamp", 1.5), Edit(0, 3, "clamp", 1.0)]
    for order in (edits, edits[::-1]):
        with editing(tiny, [early, late], order):
            assert torch.allclose(logits(tiny.model, ids), wanted, atol=1e-5)
    x = read(tiny.model, ids, [HOOK])
    edits = [Edit(1, 4, "clamp", 1.5), Edit(0, 3, "clamp", 1.0)]
    for order, first, second in (
        (edits, (same, 4, 1.5), (early, 3, 1.0)),
        (edits[::-1], (early, 3, 1.0), (same, 4, 1.5)),
    ):
        with editing(tiny, [early, same], order):
            assert torch.allclose(read(tiny.model, ids, [HOOK]), by_hand(by_hand(x, *first), *second), atol=1e-5)


def test_a_transcoder_on_a_norms_unit_reads_what_an_edit_of_its_input_left(tiny, ids):
    middle, transcoder = random_sae(hook="blocks.1.hook_resid_mid"), make("transcoder")
    edits = [Edit(1, 4, "scale", 3.0), Edit(0, 3, "clamp", 0.1)]  # the later one is named first
    with editing(tiny, [middle, transcoder], edits[1:]):
        x = read(tiny.model, ids, transcoder.config.reads)[1:]
        y = read(tiny.model, ids, transcoder.config.writes)[1:]
    with editing(tiny, [middle, transcoder], edits):
        got = read(tiny.model, ids, transcoder.config.writes)[1:]
    assert transcoder.encode(x).column(4).any()
    assert torch.allclose(got, y + 2 * transcoder.encode(x).column(4)[:, None] * transcoder.W_dec[4], atol=1e-5)


def test_bf16_adds_in_fp32_and_leaves_what_is_not_edited(tiny_folder, ids):
    from app.subject.load import load_subject

    half = load_subject(tiny_folder, "tiny", dtype="bfloat16", device="cpu")
    sae = make("topk")
    x = read(half.model, ids, [HOOK])
    with edited(half.model, [sae], [Edit(0, 3, "steer", 0.3, frozenset({2}))], special_ids=half.special_ids):
        got = read(half.model, ids, [HOOK])
    assert got.dtype == torch.bfloat16
    assert torch.equal(got[2], (x[2].float() + 0.3 * sae.W_dec[3]).bfloat16())
    assert torch.equal(got[[0, 1, 3]], x[[0, 1, 3]])


def test_hooks_are_gone_afterwards_even_when_the_forward_raises(tiny, ids):
    sae = make("clt")
    before = hooks_of(tiny.model)
    with editing(tiny, [sae], [Edit(0, 3, "clamp", 1.0)]):
        assert hooks_of(tiny.model) > before
    with pytest.raises(IndexError), editing(tiny, [sae], [Edit(0, 3, "clamp", 1.0)]):
        logits(tiny.model, torch.tensor([[10**7]]))
    assert hooks_of(tiny.model) == before
    missing = [make("topk"), random_sae(hook="model.layers.0.nothing:out")]
    with pytest.raises(SubjectUnavailable, match="no module"):
        Editing(tiny.model, missing, [Edit(0, 1, "ablate"), Edit(1, 1, "ablate")])
    assert hooks_of(tiny.model) == before


def test_an_sae_of_another_width_is_refused(tiny, ids):
    before, wide = hooks_of(tiny.model), "model.layers.0.mlp.down_proj:in"
    for changed, says in (({"reads": (wide,)}, "reads 32 dimensions"), ({"writes": (wide,)}, "writes 32 dimensions")):
        reads = {"reads": ("model.layers.0:in",), "writes": ("model.layers.0:out",)} | changed
        sae = replace(make("topk"), config=replace(make("topk").config, **reads))
        with pytest.raises(BadRequest, match=f"{says} but {wide} has 64"), editing(tiny, [sae], [Edit(0, 1, "ablate")]):
            logits(tiny.model, ids)
        assert hooks_of(tiny.model) == before


@pytest.mark.parametrize(("edit", "error", "says"), [
    (Edit(2, 0, "ablate"), InvalidEdit, "SAE 2; there are 1"),
    (Edit(-1, 0, "ablate"), InvalidEdit, "SAE -1"),
    (Edit(0, 40, "ablate"), LatentOutOfRange, "latent 40; the SAE has 0 to 39"),
    (Edit(0, -1, "ablate"), LatentOutOfRange, "latent -1"),
    (Edit(0, 0, "boost"), InvalidEdit, "kind 'boost'; kinds are ablate, clamp"),
    (Edit(0, 0, "clamp", math.nan), InvalidEdit, "amount nan; give a finite number"),
    (Edit(0, 0, "steer", -math.inf), InvalidEdit, "amount -inf"),
    (Edit(0, 0, "ablate", 0.0, "prompt"), InvalidEdit, "positions 'prompt'"),
    (Edit(0, 0, "ablate", 0.0, frozenset()), InvalidEdit, "positions frozenset"),
    (Edit(0, 0, "ablate", 0.0, frozenset({-1})), InvalidEdit, "places from 0"),
    (Edit(0, 0, "ablate", 0.0, (1, 2)), InvalidEdit, "places from 0"),
])  # fmt: skip
def test_what_cannot_be_meant_is_refused(edit, error, says):
    with pytest.raises(error, match=says) as raised:
        check([edit], [make("topk")])
    assert raised.value.code in ("edit_invalid", "latent_out_of_range")
    assert raised.value.detail == {"edit": 1}


def test_too_many_edits_and_the_same_one_twice_are_refused(tiny):
    with pytest.raises(InvalidEdit, match="33 edits; at most 32"):
        check([Edit(0, i, "ablate") for i in range(MAX_EDITS + 1)], [make("topk")])
    check([Edit(0, i, "ablate") for i in range(MAX_EDITS)], [make("topk")])
    with pytest.raises(InvalidEdit, match="Edit 3 repeats edit 1"):
        check([Edit(0, 1, "add", 2.0), Edit(0, 1, "ablate"), Edit(0, 1, "add", 2.0)], [make("topk")])
    with pytest.raises(InvalidEdit, match="amount nan"):
        Editing(tiny.model, [make("topk")], [Edit(0, 1, "add", math.nan)])


def test_an_sae_that_writes_a_norms_unit_or_before_it_reads_is_refused(tiny, ids):
    sae = make("topk")
    unit = replace(sae, config=replace(sae.config, writes=("blocks.1.ln2.hook_normalized",)))
    with pytest.raises(EditUnsupported, match="no module's input or output") as raised:
        Editing(tiny.model, [unit], [Edit(0, 1, "ablate")])
    assert raised.value.code == "edit_unsupported"
    backwards = replace(sae, config=replace(sae.config, reads=("model.layers.1:out",), writes=(HOOK,)))
    with (
        pytest.raises(EditUnsupported, match=r"before it has read model\.layers\.1:out"),
        editing(tiny, [backwards], [Edit(0, 1, "ablate")]),
    ):
        logits(tiny.model, ids)


def test_an_sae_read_ahead_cannot_join_a_text_that_has_begun(tiny, ids):
    cache = DynamicCache(config=tiny.model.config)
    logits(tiny.model, ids[:, :4], past_key_values=cache)
    with (
        pytest.raises(EditUnsupported, match="holds 4 tokens"),
        editing(tiny, [make("crosscoder")], [Edit(0, 1, "ablate")]),
    ):
        logits(tiny.model, ids[:, 4:], past_key_values=cache)


def test_a_forward_without_token_ids_or_with_an_odd_mask_is_refused(tiny, ids):
    with editing(tiny, [make("topk")], [Edit(0, 1, "ablate")]):
        with pytest.raises(EditUnsupported, match="no input_ids"):
            tiny.model(inputs_embeds=torch.zeros(1, 3, 32))
        with pytest.raises(EditUnsupported, match="4 dimensions"):
            tiny.model(input_ids=ids, attention_mask=torch.ones(1, 1, 3, 3))
