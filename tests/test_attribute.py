"""Activation x gradient against autograd with the activations as leaves, exact ablations against edits and plain hooks,
direct attribution by hand."""

import copy
from dataclasses import replace

import pytest
import torch
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    GraniteConfig,
    GraniteForCausalLM,
    Olmo2Config,
    Olmo2ForCausalLM,
)

from app.errors import BadRequest, EditUnsupported
from app.live.attribute import attribute
from app.live.editing import edited
from app.live.edits import Edit
from app.live.metric import Metric
from app.sae.acts import no_acts
from app.sae.normalise import Normalisation
from app.subject.hook_names import hook_point
from app.subject.load import load_subject
from tests.conftest import random_sae
from tests.families import FAMILIES, make
from tests.test_edits import hooks_of, logits, read, topk_by_hand


@pytest.fixture(scope="module")
def ids(tiny):
    return [tiny.bos_id, *tiny.encode("Paris is a warm cat in the sun of France")]


@pytest.fixture(scope="module")
def metric(ids):
    return Metric(len(ids) - 3, 504, 2644)


def attributed(tiny, saes, ids, metric, **more):
    return attribute(tiny.model, saes, ids, metric, special_ids=tiny.special_ids, **more)


def value(tiny, ids, metric):
    return float(metric.of(logits(tiny.model, torch.tensor([ids]))[:, metric.position]))


def with_hooks(model, changes, ids, metric, grad=False):
    """The metric with ``changes`` {name: x [1, length, d] -> x} done by PyTorch's own hooks."""
    handles = []
    for name, change in changes.items():
        path, _, side = str(hook_point(name, model)).rpartition(":")
        module = model.get_submodule(path)

        def after(_m, _a, out, change=change):
            return (change(out[0]), *out[1:]) if isinstance(out, tuple) else change(out)

        def before(_m, args, change=change):
            return (change(args[0]), *args[1:])

        handles.append(
            module.register_forward_hook(after) if side == "out" else module.register_forward_pre_hook(before)
        )
    try:
        with torch.set_grad_enabled(grad):
            return metric.of(model(input_ids=torch.tensor([ids])).logits[:, metric.position])[0]
    finally:
        for handle in handles:
            handle.remove()


def gradients(tiny, names, ids, metric):
    """y and dm/dy at ``names``, [positions but BOS, d of all] up to the metric's."""
    zeros, seen = {}, {}

    def leaf(name):
        def change(x):
            seen[name], zeros[name] = x.detach(), torch.zeros_like(x, requires_grad=True)
            return x + zeros[name]

        return change

    with_hooks(tiny.model, {name: leaf(name) for name in names}, ids, metric, grad=True).backward()
    to = slice(1, metric.position + 1)
    return torch.cat([seen[n][0, to] for n in names], 1), torch.cat([zeros[n].grad[0, to] for n in names], 1)


@pytest.mark.parametrize("kind", ["logit", "logprob"])
@pytest.mark.parametrize("against", [None, 2644])
def test_act_grad_is_autograd_with_the_activations_as_leaves(tiny, ids, kind, against):
    """Three SAEs at once, each with its error, through the whole model: TopK on the stream, ReLU behind a layer norm
    on the next block's, a transcoder between them."""
    metric = Metric(7, 504, against, kind)
    top, transcoder = make("topk"), make("transcoder")
    normed = replace(
        make("relu"), normalise=Normalisation("layer_norm"), config=random_sae(hook="model.layers.1:out").config
    )
    saes, leaves = [top, transcoder, normed], {}

    def take(name, acts, W):
        leaves[name] = acts.clone().requires_grad_()
        return torch.cat([torch.zeros(1, 32), (leaves[name] - acts) @ W])

    def on_stream(x):
        return x + take("top", topk_by_hand(top, x[0, 1:].detach()), top.W_dec)

    def on_next(x):
        rows = x[0, 1:].detach()
        acts = normed.encode(rows).dense(40).clone()
        leaves["normed"] = acts.clone().requires_grad_()
        moved = (leaves["normed"] - acts) @ normed.W_dec * rows.std(dim=1, keepdim=True)
        return x + torch.cat([torch.zeros(1, 32), moved])

    x = read(tiny.model, torch.tensor([ids]), transcoder.config.reads)[1:]
    between = transcoder.encode(x).dense(40).clone()
    changes = {
        top.config.writes[0]: on_stream,
        transcoder.config.writes[0]: lambda y: y + take("transcoder", between, transcoder.W_dec),
        normed.config.writes[0]: on_next,
    }
    with_hooks(tiny.model, changes, ids, metric, grad=True).backward()
    got = attributed(tiny, saes, ids, metric)
    assert got.metric == pytest.approx(value(tiny, ids, metric), abs=1e-5)
    for one, name in zip(got.saes, ("top", "transcoder", "normed"), strict=True):
        wanted = (leaves[name] * leaves[name].grad).detach()
        dense = torch.zeros(len(ids) - 1, 40)
        dense[one.position - 1, one.latent] = one.act_grad
        assert torch.allclose(dense[:7], wanted[:7], atol=1e-4 * float(wanted.abs().max()))
        assert wanted[:7].abs().max() > 1e-3
        assert not wanted[7:].any()
        assert one.position.max() == 7
        sums = torch.zeros(40).index_add_(0, one.latent, one.act_grad)
        assert torch.allclose(one.latent_act_grad, sums[one.latents], atol=1e-6)
        assert set(one.latents.tolist()) == set(one.latent.tolist())


@pytest.mark.parametrize("name", FAMILIES)
def test_latents_error_and_bias_add_up_to_gradient_times_output(tiny, ids, metric, name):
    sae = make(name)
    got = attributed(tiny, [sae], ids, metric, top=0).saes[0]
    y, g = gradients(tiny, sae.config.writes, ids, metric)
    x = read(tiny.model, torch.tensor([ids]), sae.config.reads)[1 : metric.position + 1]
    acts = sae.encode(x)
    assert torch.equal(got.position, acts.position + 1)
    assert torch.equal(got.latent, acts.latent)
    assert torch.allclose(got.value, acts.value, atol=1e-6)
    nothing = sae.decode(no_acts(len(x), x.device), x)
    assert got.error_act_grad == pytest.approx(float((g * (y - sae.decode(acts, x))).sum()), abs=1e-4)
    assert got.bias_act_grad == pytest.approx(float((g * nothing).sum()), abs=1e-4)
    total = float(got.act_grad.sum()) + got.error_act_grad + got.bias_act_grad
    assert total == pytest.approx(float((g * y).sum()), abs=1e-4)
    assert abs(float(got.act_grad.sum())) > 1e-4


@pytest.mark.parametrize("name", FAMILIES)
def test_exact_is_what_an_edit_loses(tiny, ids, metric, name):
    sae = make(name)
    got = attributed(tiny, [sae], ids, metric, top=4, batch_tokens=40)
    assert len(got.top) == 4
    sums = dict(zip(got.saes[0].latents.tolist(), got.saes[0].latent_act_grad.tolist(), strict=True))
    assert [a.latent for a in got.top] == sorted(sums, key=lambda j: -abs(sums[j]))[:4]
    for one in got.top:
        with edited(tiny.model, [sae], [Edit(0, one.latent, "ablate")], special_ids=tiny.special_ids):
            lost = value(tiny, ids, metric)
        assert one.exact == pytest.approx(got.metric - lost, abs=2e-5)
        assert one.act_grad == sums[one.latent]
    assert max(abs(one.exact) for one in got.top) > 1e-4


@pytest.mark.parametrize("name", ["topk", "relu-layer-norm", "skip-transcoder", "attention-output"])
def test_all_latents_and_all_with_the_error(tiny, ids, metric, name):
    """Without all latents what stands there is y - decode(acts) + decode(nothing); without the error too, the decoder's
    bias (and skip) alone. Of an SAE without a bias that is nothing: the hook's output is zeroed."""
    sae = make(name)
    got = attributed(tiny, [sae], ids, metric).saes[0]
    x = read(tiny.model, torch.tensor([ids]), sae.config.reads)[1:]
    acts = sae.encode(x)
    nothing, hat = sae.decode(no_acts(len(x), x.device), x), sae.decode(acts, x)
    clean, write = value(tiny, ids, metric), sae.config.writes[0]

    def lost(change):
        change_all = lambda y: torch.cat([y[:, :1], change(y[0, 1:])[None]], dim=1)  # noqa: E731
        return clean - float(with_hooks(tiny.model, {write: change_all}, ids, metric))

    assert got.exact_latents == pytest.approx(lost(lambda y: y - hat + nothing), abs=2e-5)
    assert got.exact_all == pytest.approx(lost(lambda y: nothing), abs=2e-5)
    assert abs(got.exact_latents - got.exact_all) > 1e-4
    if name == "topk":
        bare = replace(sae, b_dec=torch.zeros(32))
        assert attributed(tiny, [bare], ids, metric).saes[0].exact_all == pytest.approx(
            lost(torch.zeros_like), abs=2e-5
        )


def test_the_foremost_latents_are_of_all_saes_in_one_list(tiny, ids, metric):
    saes = [make("topk"), random_sae(hook="model.layers.1:out", seed=3)]
    got = attributed(tiny, saes, ids, metric, top=25)
    assert [one.sae for one in got.top].count(1) >= 2
    assert [one.sae for one in got.top] != sorted(one.sae for one in got.top)
    assert [abs(one.act_grad) for one in got.top] == sorted((abs(one.act_grad) for one in got.top), reverse=True)
    alone = attributed(tiny, saes[1:], ids, metric, top=40)
    exact = {one.latent: one.exact for one in alone.top}
    for one in got.top:
        if one.sae == 1:
            assert one.exact == pytest.approx(exact[one.latent], abs=1e-5)
    assert got.saes[1].exact_latents == pytest.approx(alone.saes[0].exact_latents, abs=1e-5)


def test_between_attention_and_mlp_the_gradient_is_of_both_paths(tiny, ids, metric):
    sae = random_sae(hook="blocks.1.hook_resid_mid")
    got = attributed(tiny, [sae], ids, metric, top=2)
    x = read(tiny.model, torch.tensor([ids]), sae.config.reads)
    acts = topk_by_hand(sae, x[1:])
    leaf = acts.clone().requires_grad_()
    added = torch.cat([torch.zeros(1, 32), (leaf - acts) @ sae.W_dec])
    with_hooks(tiny.model, {"model.layers.1.self_attn:out": lambda y: y + added}, ids, metric, grad=True).backward()
    dense = torch.zeros(len(ids) - 1, 40)
    dense[got.saes[0].position - 1, got.saes[0].latent] = got.saes[0].act_grad
    assert torch.allclose(dense, leaf.detach() * leaf.grad, atol=1e-6, rtol=1e-4)
    for one in got.top:
        with edited(tiny.model, [sae], [Edit(0, one.latent, "ablate")], special_ids=tiny.special_ids):
            assert one.exact == pytest.approx(got.metric - value(tiny, ids, metric), abs=2e-5)


def norm_by_hand(model, r):
    """gain / scale as a diagonal and a centring, for the two norms: [d] -> [d]."""
    if hasattr(model, "transformer"):
        norm = model.transformer.ln_f
        scale = (r.var(unbiased=False) + norm.eps).sqrt()
        return lambda c: norm.weight * (c - c.mean()) / scale
    norm = model.model.norm
    scale = (r.pow(2).mean() + norm.variance_epsilon).sqrt()
    return lambda c: norm.weight * c / scale


@pytest.mark.parametrize("subject", ["llama", "gpt2"])
@pytest.mark.parametrize("site", ["hook_resid_post", "hook_resid_mid", "hook_mlp_out", "hook_attn_out", "attn.hook_z"])
@pytest.mark.parametrize("layer", [0, 1])
def test_direct_attribution_by_hand(tiny, gpt2, ids, subject, site, layer):
    model = tiny.model if subject == "llama" else gpt2
    tokens, metric = (ids, Metric(6, 504, 2644)) if subject == "llama" else (list(range(2, 14)), Metric(6, 7, 30))
    sae = random_sae(hook=f"blocks.{layer}.{site}")
    got = attribute(model, [sae], tokens, metric, top=0).saes[0]
    r = read(model, torch.tensor([tokens]), ["model.norm:in" if subject == "llama" else "transformer.ln_f:in"])[6]
    normed, W_U = norm_by_hand(model, r), model.get_output_embeddings().weight
    rows = sae.W_dec
    if site == "attn.hook_z":
        rows = rows @ (model.model.layers[layer].self_attn.o_proj.weight.T if subject == "llama"
                       else model.transformer.h[layer].attn.c_proj.weight)  # fmt: skip
    last = got.position == 6
    assert last.sum() == sae.k
    for entry in range(len(got.value)):
        j, a = int(got.latent[entry]), float(got.value[entry])
        wanted = a * float(normed(rows[j]) @ (W_U[metric.token] - W_U[metric.against])) if last[entry] else 0.0
        assert float(got.direct[entry]) == pytest.approx(wanted, abs=1e-5)
    assert got.direct.abs().max() > 1e-4


@pytest.mark.parametrize("subject", ["llama", "gpt2"])
def test_on_the_last_block_direct_parts_add_up_to_the_metric(tiny, gpt2, ids, subject):
    """Latents, error and bias of the stream that the norm reads are all of the logits there are."""
    model = tiny.model if subject == "llama" else gpt2
    tokens, metric = (ids, Metric(6, 504, 2644)) if subject == "llama" else (list(range(2, 14)), Metric(6, 7, 30))
    sae = random_sae(hook="blocks.1.hook_resid_post")
    got = attribute(model, [sae], tokens, metric, top=0)
    r = read(model, torch.tensor([tokens]), sae.config.reads)[6]
    normed, W_U = norm_by_hand(model, r), model.get_output_embeddings().weight
    u = W_U[metric.token] - W_U[metric.against]
    latents = sae.decode(sae.encode(r[None]), r[None])[0] - sae.b_dec
    rest = float(normed(r - latents) @ u)
    if subject == "gpt2":
        rest += float(model.transformer.ln_f.bias @ u)
    assert float(got.saes[0].direct.sum()) + rest == pytest.approx(got.metric, abs=1e-4)


def test_what_does_not_write_the_stream_has_no_direct_part(tiny, ids, metric):
    for hook in ("model.layers.1.self_attn.q_proj:in", "model.layers.1.mlp:in", "model.layers.0.input_layernorm:out"):
        assert attributed(tiny, [random_sae(hook=hook)], ids, metric, top=0).saes[0].direct is None
    assert attributed(tiny, [make("clt")], ids, metric, top=0).saes[0].direct is not None


def others():
    sizes = {"vocab_size": 50, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
             "num_attention_heads": 4, "pad_token_id": 0}  # fmt: skip
    return [
        Olmo2ForCausalLM(Olmo2Config(**sizes)),
        GraniteForCausalLM(GraniteConfig(**sizes, residual_multiplier=0.3)),
        Gemma2ForCausalLM(Gemma2Config(**sizes, num_key_value_heads=2, head_dim=8)),
        GPTNeoXForCausalLM(GPTNeoXConfig(**sizes, eos_token_id=1)),
    ]


def test_norms_and_factors_after_attention_and_mlp_leave_no_direct_path():
    """Only where a block adds its parts to the stream as they are."""
    kinds = (False, False), (False, False), (True, False), (True, True)
    for model, (parts, inner) in zip(others(), kinds, strict=True):
        direct = {
            site: attribute(model.eval(), [random_sae(hook=f"blocks.0.{site}")], [5, 6, 7], Metric(2, 5), top=0).saes[0]
            for site in ("hook_resid_post", "hook_attn_out", "hook_mlp_out", "attn.hook_z")
        }
        told = [one.direct is not None for one in direct.values()]
        assert told == [True, parts, parts, inner]


def test_tokens_after_the_metric_do_not_matter_and_batches_neither(tiny, ids, metric):
    saes = [make("topk"), make("crosscoder")]
    whole = attributed(tiny, saes, ids, metric, top=7)
    for again in (
        attributed(tiny, saes, ids[: metric.position + 1], metric, top=7),
        attributed(tiny, saes, ids, metric, top=7, batch_tokens=1),
        attributed(tiny, saes, ids, metric, top=7, batch_tokens=3 * len(ids)),
    ):
        assert [(a.sae, a.latent) for a in again.top] == [(a.sae, a.latent) for a in whole.top]
        assert [a.exact for a in again.top] == pytest.approx([a.exact for a in whole.top], abs=1e-5)
        assert torch.allclose(again.saes[1].act_grad, whole.saes[1].act_grad, atol=1e-6)


def test_how_many_forwards_and_in_what_batches(tiny, ids, metric):
    seen = []
    handle = tiny.model.register_forward_pre_hook(
        lambda _m, _a, kwargs: seen.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    attributed(tiny, [make("topk"), make("relu")], ids, metric, top=20, batch_tokens=8 * (metric.position + 1))
    handle.remove()
    n = metric.position + 1
    assert seen == [(1, n), (5, n), (8, n), (8, n), (7, n)]  # clean; 2 x 2 whole SAEs; 20 latents; one clean row each


@pytest.mark.parametrize("around", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_weights_get_no_gradient_and_hooks_are_gone(gpt2, around):
    model = copy.deepcopy(gpt2).requires_grad_(True)
    sae = random_sae(hook="transformer.h.0:out")
    wide = replace(sae, config=replace(sae.config, reads=("transformer.h.0.mlp.c_proj:in",)))
    with around():
        got = attribute(model, [sae], list(range(2, 12)), Metric(5, 3))
        with pytest.raises(BadRequest, match=r"reads 32 dimensions but .* has 128"):
            attribute(model, [wide], [2, 3], Metric(1, 3))
        with pytest.raises(IndexError):
            attribute(model, [sae], [2, 300], Metric(1, 3))
    assert got.saes[0].act_grad.abs().max() > 0
    assert not got.saes[0].act_grad.requires_grad
    assert hooks_of(model) == 0
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_subject_in_half_precision_is_computed_in_fp32(tiny_folder, gpt2, ids, metric, dtype, monkeypatch):
    monkeypatch.setattr("app.subject.exact.ELEMENTS", 3000)  # several parts of a matrix
    tiny = load_subject(tiny_folder, "tiny", dtype="float32", device="cpu").model
    cases = [(tiny, ids, metric)]
    cases += [(model, [1, 5, 9, 33, 40, 2], Metric(5, 7, 11)) for model in (gpt2, *others())]
    for model, text, aim in cases:
        half = copy.deepcopy(model).to(dtype).eval()
        whole = copy.deepcopy(half).float()
        saes = [random_sae(hook="blocks.0.hook_resid_post")]
        got, wanted = (attribute(one, saes, text, aim, special_ids=[1], top=8) for one in (half, whole))
        name = type(model).__name__
        near = 3e-4 if name.startswith("Gemma") else 1e-5  # which rounds its embeddings by design
        assert got.metric == pytest.approx(wanted.metric, abs=near), name
        for one, other in zip(got.saes, wanted.saes, strict=True):
            assert torch.equal(one.latent, other.latent), name
            for part in ("value", "act_grad"):
                pair = getattr(one, part), getattr(other, part)
                torch.testing.assert_close(*pair, rtol=10 * near, atol=near, msg=name)
            assert (one.exact_latents, one.exact_all) == pytest.approx((other.exact_latents, other.exact_all), abs=near)
        assert [(one.latent, one.exact) for one in got.top] == [
            (one.latent, pytest.approx(one.exact, abs=near)) for one in wanted.top
        ], name
        with torch.inference_mode():
            rounded = half(input_ids=torch.tensor([text])).logits
        assert rounded.dtype == dtype  # nothing of it is left behind
        if dtype == torch.bfloat16:
            assert float(aim.of(rounded[:, aim.position])) != pytest.approx(wanted.metric, abs=near), name
        assert hooks_of(half) == 0


def test_a_text_of_special_tokens_alone_has_no_latents(tiny):
    got = attributed(tiny, [make("topk"), make("clt")], [tiny.bos_id], Metric(0, 5))
    assert got.top == []
    assert [len(one.value) for one in got.saes] == [0, 0]
    assert [(one.exact_latents, one.error_act_grad) for one in got.saes] == [(0.0, 0.0)] * 2


@pytest.mark.parametrize(("metric", "says"), [
    (Metric(-1, 5), "Position -1 is not in the text; it has 3 tokens"),
    (Metric(3, 5), "Position 3"),
    (Metric(0, -1), "no token -1"),
    (Metric(0, 5, 49152), "no token 49152; the subject has 0 to 49151"),
    (Metric(0, 5, None, "loss"), "no metric 'loss'; metrics are logit and logprob"),
])  # fmt: skip
def test_refusals(tiny, metric, says):
    with pytest.raises(BadRequest, match=says):
        attribute(tiny.model, [make("topk")], [1, 2, 3], metric)


def test_an_sae_that_writes_a_norms_unit_is_refused(tiny, ids, metric):
    sae = make("topk")
    unit = replace(sae, config=replace(sae.config, writes=("blocks.1.ln2.hook_normalized",)))
    with pytest.raises(EditUnsupported, match="no module's input or output"):
        attributed(tiny, [unit], ids, metric)


def test_logits_of_a_subject_in_half_precision_are_not_rounded_to_it(tiny):
    import copy

    from app.subject.precise import fp32_logits

    half = copy.deepcopy(tiny.model).bfloat16()
    ids = torch.tensor([[tiny.bos_id, *tiny.encode("Paris is the capital")]])
    with torch.inference_mode():
        rounded = half(input_ids=ids).logits
        with fp32_logits(half):
            whole = half(input_ids=ids).logits
        hidden = half.model(input_ids=ids).last_hidden_state
        again = half(input_ids=ids).logits
    assert (rounded.dtype, whole.dtype, again.dtype) == (torch.bfloat16, torch.float32, torch.bfloat16)
    torch.testing.assert_close(whole, hidden.float() @ half.lm_head.weight.float().T)
    assert (whole.bfloat16().float() != whole).any()
    with fp32_logits(tiny.model):
        assert not tiny.model.lm_head._forward_hooks
