"""Formats whose libraries no registry has: checkpoints made by hand from the documented names, and the authors'
equations written out plainly in numpy, in their own order of operations."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from app.sae import normal as own
from app.sae.base import SAEFormatError
from app.sae.formats import Options, Source, read, recognise, save
from tests.deviations import note
from tests.families import make

D, N, T, K = 12, 40, 16, 5
HOOK = Options(hook="model.layers.3:out")
rng = np.random.default_rng(0)


def normal(*shape, scale=1.0):
    return (rng.standard_normal(shape) * scale).astype(np.float32)


def rows(n, d):
    """Rows of norms between 0.5 and 2."""
    made = normal(n, d)
    return made / np.linalg.norm(made, axis=1, keepdims=True) * rng.uniform(0.5, 2, (n, 1)).astype(np.float32)


X = normal(T, D, scale=1.5) + 0.3


def relu(a):
    return np.maximum(a, 0)


def keep_largest(a, k):
    out = np.zeros_like(a)
    for row, values in enumerate(a):
        chosen = np.argsort(-values, kind="stable")[:k]
        out[row, chosen] = values[chosen]
    return out


def tensors(**arrays):
    return {name: torch.from_numpy(np.ascontiguousarray(a)) for name, a in arrays.items()}


def check(folder, acts, x_hat, tmp_path, x=X, options=HOOK, format_name=None):
    if format_name:
        assert recognise(Source.at(folder)) == format_name
    sae = read(folder, options)
    save(tmp_path / "saved", sae)
    for one in (sae, read(tmp_path / "saved")):
        got = one.encode(torch.from_numpy(x))
        dense = got.dense(acts.shape[1]).numpy()
        assert ((dense != 0) == (acts != 0)).all()
        assert 0 < (acts != 0).mean() < 0.9
        x_hat_off = np.abs(one.decode(got, torch.from_numpy(x)).numpy() - x_hat).max()
        assert np.abs(dense - acts).max() <= 1e-5
        assert x_hat_off <= 2e-5
        note(tmp_path.name.rpartition("_")[0] or tmp_path.name, np.abs(dense - acts).max(), x_hat_off)
    return sae


def layer_norm(x):
    mean = x.mean(1, keepdims=True)
    std = (x - mean).std(1, keepdims=True, ddof=1)
    return (x - mean) / (std + 1e-5), mean, std


def test_openai_topk_normalises_and_undoes_it(tmp_path):
    W, b, pre, V = normal(N, D, scale=0.4), normal(N, scale=0.3), normal(D, scale=0.3), rows(N, D).T
    state = tensors(**{"encoder.weight": W, "latent_bias": b, "pre_bias": pre, "decoder.weight": V})
    state |= {"activation": "TopK", "activation_state_dict": {"k": K, "postact_fn": "ReLU"}}
    state["stats_last_nonzero"] = torch.zeros(N, dtype=torch.int64)
    torch.save(state, tmp_path / "v5.pt")
    x, mean, std = layer_norm(X)
    acts = relu(keep_largest((x - pre) @ W.T + b, K))
    check(tmp_path / "v5.pt", acts, (acts @ V.T + pre) * std + mean, tmp_path, format_name="openai")


def test_openai_relu_does_not_normalise(tmp_path):
    W, b, pre, V = normal(N, D, scale=0.4), normal(N, scale=0.3), normal(D, scale=0.3), rows(N, D).T
    torch.save(
        tensors(**{"encoder.weight": W, "latent_bias": b, "pre_bias": pre, "decoder.weight": V}), tmp_path / "v1.pt"
    )
    acts = relu((X - pre) @ W.T + b)
    check(tmp_path / "v1.pt", acts, acts @ V.T + pre, tmp_path, format_name="openai")


def gemma(threshold=None):
    return {
        "W_enc": normal(D, N, scale=0.4), "W_dec": rows(N, D), "b_enc": normal(N, scale=0.3),
        "b_dec": normal(D, scale=0.3),
        "threshold": rng.uniform(0.05, 0.5, N).astype(np.float32) if threshold is None else threshold,
    }  # fmt: skip


def test_gemma_scope_1_is_strict_and_subtracts_nothing(tmp_path):
    p = gemma()
    np.savez(tmp_path / "params.npz", **p)
    pre = X @ p["W_enc"] + p["b_enc"]
    acts = relu(pre) * (pre > p["threshold"])
    check(tmp_path, acts, acts @ p["W_dec"] + p["b_dec"], tmp_path, format_name="gemma-scope")


def test_gemma_scope_2_transcoder_adds_its_affine_skip(tmp_path):
    p = gemma()
    p["W_dec"], p["b_dec"], A = rows(N, 10), normal(10, scale=0.3), normal(D, 10, scale=0.2)
    save_file(
        tensors(**{name.lower(): a for name, a in p.items()}, affine_skip_connection=A), tmp_path / "params.safetensors"
    )
    hooks = {
        "hf_hook_point_in": "model.layers.3.pre_feedforward_layernorm.output",
        "hf_hook_point_out": "model.layers.3.post_feedforward_layernorm.output",
        "architecture": "jump_relu", "width": N, "l0": 10, "affine_connection": True, "model_name": "gemma-3-1b-pt",
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(hooks))
    pre = X @ p["W_enc"] + p["b_enc"]
    acts = relu(pre) * (pre > p["threshold"])
    sae = check(tmp_path, acts, acts @ p["W_dec"] + p["b_dec"] + X @ A, tmp_path, options=Options())
    assert sae.config.reads == ("model.layers.3.pre_feedforward_layernorm:out",)
    assert sae.config.writes == ("model.layers.3.post_feedforward_layernorm:out",)


@pytest.mark.parametrize("include", [True, False])
@pytest.mark.parametrize("act", ["jumprelu", "topk"])
def test_llama_scope_folds_scales_and_norms_as_its_loader_does(tmp_path, include, act):
    W, b, V, c = normal(N, D, scale=0.4), normal(N, scale=0.3), rows(N, D).T, normal(D, scale=0.3)
    theta = 0.355
    (tmp_path / "checkpoints").mkdir()
    save_file(
        tensors(**{"encoder.weight": W, "encoder.bias": b, "decoder.weight": V, "decoder.bias": c}),
        tmp_path / "checkpoints" / "final.safetensors",
    )
    config = {
        "hook_point_in": "blocks.3.hook_resid_post", "hook_point_out": "blocks.3.hook_resid_post", "d_model": D,
        "d_sae": N, "expansion_factor": N / D, "act_fn": act, "norm_activation": "dataset-wise", "top_k": K,
        "dataset_average_activation_norm": {"in": 6.0, "out": 2.0}, "sparsity_include_decoder_norm": include,
        "use_decoder_bias": True, "apply_decoder_bias_to_pre_encoder": False, "use_glu_encoder": False,
    } | ({"jump_relu_threshold": theta} if act == "jumprelu" else {})  # fmt: skip
    (tmp_path / "hyperparams.json").write_text(json.dumps(config))
    s_in, s_out = np.sqrt(D) / 6.0, np.sqrt(D) / 2.0
    b1, c1, V1 = b / s_in, c / s_out, V * s_in / s_out
    norm = np.linalg.norm(V1, axis=0) if include else np.ones(N, np.float32)
    h = X @ (W * norm[:, None]).T + b1 * norm
    acts = np.where(h > theta, h, 0) if act == "jumprelu" else relu(keep_largest(h, K))
    acts = acts.astype(np.float32)
    x_hat = acts @ (V1 / norm).T + c1
    check(tmp_path, acts, x_hat.astype(np.float32), tmp_path, options=Options(), format_name="llama-scope")


def openmoss(tmp_path, config, **arrays):
    (tmp_path / "config.json").write_text(json.dumps(config))
    save_file(tensors(**arrays), tmp_path / "sae_weights.safetensors")


@pytest.mark.parametrize("glu", [True, False])
@pytest.mark.parametrize("act", ["relu", "jumprelu", "topk"])
def test_openmoss_gates_by_decoder_norm_and_glu(tmp_path, act, glu):
    W, b, V, c = normal(D, N, scale=0.4), normal(N, scale=0.3), rows(N, D), normal(D, scale=0.3)
    G, g = normal(D, N, scale=0.4), normal(N, scale=0.3)
    log_theta = np.log(rng.uniform(0.05, 0.5, N)).astype(np.float32)
    arrays = {"W_E": W, "b_E": b, "W_D": V, "b_D": c}
    arrays |= {"W_E_glu": G, "b_E_glu": g} if glu else {}
    arrays |= {"activation_function.log_jumprelu_threshold": log_theta} if act == "jumprelu" else {}
    for hook, norm in (("blocks.3.hook_in", 5.0), ("blocks.3.hook_mlp_out", 2.0)):
        arrays[f"dataset_average_activation_norm.{hook}"] = np.array(norm, np.float32)
    openmoss(
        tmp_path,
        {
            "sae_type": "sae", "d_model": D, "expansion_factor": N / D, "act_fn": act, "top_k": K,
            "use_glu_encoder": glu, "norm_activation": "dataset-wise", "sparsity_include_decoder_norm": True,
            "use_decoder_bias": True, "hook_point_in": "blocks.3.hook_in", "hook_point_out": "blocks.3.hook_mlp_out",
        },
        **arrays,
    )  # fmt: skip
    x = X * np.sqrt(D) / 5.0
    h = x @ W + b
    if glu:
        h = h / (1 + np.exp(-(x @ G + g)))
    n = np.linalg.norm(V, axis=1)
    match act:
        case "relu":
            gated = relu(h * n)
        case "jumprelu":
            gated = h * n * (h * n > np.exp(log_theta))
        case "topk":
            gated = keep_largest(relu(h * n), K)
    acts = (gated / n).astype(np.float32)
    x_hat = (acts @ V + c) / (np.sqrt(D) / 2.0)
    sae = check(tmp_path, acts, x_hat.astype(np.float32), tmp_path, options=Options(), format_name="openmoss")
    assert sae.config.writes == ("blocks.3.hook_mlp_out",)


@pytest.mark.parametrize("act", ["relu", "jumprelu", "topk"])
def test_openmoss_crosscoder_gates_each_layer_by_its_own_norm(tmp_path, act):
    L, hooks, norms = 3, [f"blocks.{i}.hook_resid_post" for i in range(3)], (5.0, 2.0, 3.0)
    W, b = normal(L, D, N, scale=0.3), normal(L, N, scale=0.2)
    V, c = np.stack([rows(N, D) for _ in range(L)]), normal(L, D, scale=0.3)
    log_theta = np.log(rng.uniform(0.5, 2, N)).astype(np.float32)
    arrays = {"W_E": W, "b_E": b, "W_D": V, "b_D": c}
    arrays |= {"activation_function.log_jumprelu_threshold": log_theta} if act == "jumprelu" else {}
    arrays |= {
        f"dataset_average_activation_norm.{h}": np.array(v, np.float32) for h, v in zip(hooks, norms, strict=True)
    }
    openmoss(
        tmp_path,
        {
            "sae_type": "crosscoder", "d_model": D, "expansion_factor": N / D, "act_fn": act, "top_k": K,
            "norm_activation": "dataset-wise", "sparsity_include_decoder_norm": True, "use_decoder_bias": True,
            "hook_points": hooks,
        },
        **arrays,
    )  # fmt: skip
    x = normal(T, L, D, scale=1.5)
    scale = np.sqrt(D) / np.array(norms, np.float32)
    h = sum(x[:, i] * scale[i] @ W[i] + b[i] for i in range(L))
    x_hat, on = [], np.zeros((T, N), bool)
    for i in range(L):
        n = np.linalg.norm(V[i], axis=1)
        a = h * n
        f = {"relu": relu(a), "jumprelu": a * (a > np.exp(log_theta)), "topk": keep_largest(relu(a), K)}[act] / n
        on |= f != 0
        x_hat.append((f @ V[i] + c[i]) / scale[i])
    acts = np.where(on, h, 0).astype(np.float32)
    check(
        tmp_path, acts, np.concatenate(x_hat, 1).astype(np.float32), tmp_path, x=x.reshape(T, L * D), options=Options(),
        format_name="openmoss",
    )  # fmt: skip


@pytest.mark.parametrize("include", [True, False])
@pytest.mark.parametrize("act", ["relu", "jumprelu", "topk", "layertopk"])
def test_openmoss_clt_writes_its_own_layer_and_those_above(tmp_path, act, include):
    L, n = 3, 14
    ins, outs = [f"blocks.{i}.hook_in" for i in range(L)], [f"blocks.{i}.hook_mlp_out" for i in range(L)]
    W, b, c = normal(L, D, n, scale=0.4), normal(L, n, scale=0.2), [normal(D, scale=0.3) for _ in range(L)]
    V = [np.stack([rows(n, D) for _ in range(to + 1)]) for to in range(L)]
    theta = rng.uniform(0.2, 1, (L, n)).astype(np.float32)
    arrays = {"W_E": W, "b_E": b} | {f"W_D.{i}": v for i, v in enumerate(V)} | {f"b_D.{i}": v for i, v in enumerate(c)}
    arrays |= {"activation_function.log_jumprelu_threshold": np.log(theta)} if act == "jumprelu" else {}
    s_in, s_out = np.array([0.7, 1.1, 0.9], np.float32), np.array([1.3, 0.8, 1.2], np.float32)
    for hook, s in zip(ins + outs, [*s_in, *s_out], strict=True):
        arrays[f"dataset_average_activation_norm.{hook}"] = np.array(np.sqrt(D) / s, np.float32)
    openmoss(
        tmp_path,
        {
            "sae_type": "clt", "d_model": D, "expansion_factor": n / D, "act_fn": act, "top_k": K,
            "norm_activation": "dataset-wise", "sparsity_include_decoder_norm": include, "use_decoder_bias": True,
            "hook_points_in": ins, "hook_points_out": outs,
        },
        **arrays,
    )  # fmt: skip
    x = normal(T, L, D, scale=1.5)
    h = np.stack([x[:, i] * s_in[i] @ W[i] + b[i] for i in range(L)], 1)
    g = np.stack([np.sqrt(sum((V[to][i] ** 2).sum(1) for to in range(i, L))) for i in range(L)]) if include else 1.0
    a = h * g
    match act:
        case "relu":
            f = relu(a)
        case "jumprelu":
            f = a * (a > theta)
        case "topk":
            f = np.stack([keep_largest(relu(a[:, i]), K) for i in range(L)], 1)
        case "layertopk":
            f = keep_largest(relu(a).reshape(T, -1), K).reshape(a.shape)
    f = (f / g).astype(np.float32)
    x_hat = [(sum(f[:, i] @ V[to][i] for i in range(to + 1)) + c[to]) / s_out[to] for to in range(L)]
    sae = check(
        tmp_path, f.reshape(T, -1), np.concatenate(x_hat, 1).astype(np.float32), tmp_path, x=x.reshape(T, -1),
        options=Options(), format_name="openmoss",
    )  # fmt: skip
    assert sae.W_dec.shape == (L * n, D)
    assert torch.allclose(sae.W_dec[0], torch.from_numpy(sum(V[to][0][0] / s_out[to] for to in range(L))), atol=1e-5)


@pytest.mark.parametrize("unit", [True, False])
def test_top_afa_matches_the_norm_of_the_input(tmp_path, unit):
    W, V, c = normal(D, N, scale=0.4), rows(N, D), normal(D, scale=0.3)
    torch.save(tensors(W_enc=W, W_dec=V, b_dec=c, b_enc=normal(N)), tmp_path / "sae.pt")
    (tmp_path / "config.json").write_text(
        json.dumps({"sae_type": "topafa", "act_size": D, "dict_size": N, "input_unit_norm": unit, "seed": 1,
                    "hook_point": "blocks.3.hook_resid_pre", "model_name": "gpt2"})
    )  # fmt: skip
    x, mean, std = layer_norm(X) if unit else (X, 0.0, 1.0)
    centred = x - c
    a = relu(centred @ W)
    scaled = (a * np.linalg.norm(V, axis=1)) ** 2
    acts = np.zeros_like(a)
    for row in range(T):
        order = np.argsort(-scaled[row], kind="stable")
        reached = np.cumsum(scaled[row][order])
        reached[-1] = 1e8
        k = np.abs(np.sqrt(reached) - np.linalg.norm(centred[row])).argmin() + 1
        acts[row, order[:k]] = a[row, order[:k]]
    sae = check(tmp_path, acts, (acts @ V + c) * std + mean, tmp_path, options=Options(), format_name="top-afa")
    assert sae.config.architecture == "top-afa"


@pytest.mark.parametrize("kind", ["vanilla", "topk", "jumprelu"])
def test_the_batchtopk_repositorys_other_classes(tmp_path, kind):
    W, V, c, b = normal(D, N, scale=0.4), rows(N, D), normal(D, scale=0.3), normal(N, scale=0.3)
    log_theta = np.log(rng.uniform(0.05, 0.5, N)).astype(np.float32)
    extra = {"jumprelu.log_threshold": log_theta} if kind == "jumprelu" else {}
    torch.save(tensors(W_enc=W, W_dec=V, b_dec=c, b_enc=b, **extra), tmp_path / "sae.pt")
    (tmp_path / "config.json").write_text(
        json.dumps(
            {"sae_type": kind, "act_size": D, "dict_size": N, "top_k": K, "hook_point": "blocks.3.hook_resid_pre"}
        )
    )
    match kind:
        case "vanilla":
            acts = relu((X - c) @ W + b)
        case "topk":
            acts = keep_largest(relu((X - c) @ W), K)
        case "jumprelu":
            pre = relu(X @ W + b)
            acts = pre * (pre > np.exp(log_theta))
    check(tmp_path, acts, acts @ V + c, tmp_path, options=Options(), format_name="top-afa")


def test_recsae_takes_k_from_beside_the_file_or_from_the_caller(tmp_path):
    W, b, V, c = normal(N, D, scale=0.4), normal(N, scale=0.3), rows(N, D), normal(D, scale=0.3)
    torch.save(tensors(**{"encoder.weight": W, "encoder.bias": b, "W_dec": V, "b_dec": c}), tmp_path / "rec.pt")
    acts = keep_largest(relu((X - c) @ W.T + b), K)
    with pytest.raises(SAEFormatError, match="does not hold k; give --k"):
        read(tmp_path / "rec.pt", HOOK)
    check(tmp_path, acts, acts @ V + c, tmp_path, options=Options(hook="x", k=K), format_name="recsae")
    (tmp_path / "args.json").write_text(json.dumps({"sae_k": K, "sae_scale_size": 4}))
    check(tmp_path, acts, acts @ V + c, tmp_path / "again")


def trainer(tmp_path, kind, **more):
    told = {"dict_class": kind, "activation_dim": D, "dict_size": N, "layer": 3, "lm_name": "gpt2",
            "submodule_name": "resid_post_layer_3", **more}  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps({"trainer": told, "buffer": {"io": "out"}}))


@pytest.mark.parametrize("heaviside", [True, False])
def test_switch_routes_each_position_to_one_expert(tmp_path, heaviside):
    E = 4
    W, R, V = normal(N, D, scale=0.4), normal(E, D, scale=0.5), rows(N, D)
    c, r = normal(D, scale=0.3), normal(D, scale=0.3)
    torch.save(
        tensors(**{"encoder.weight": W, "router.weight": R, "decoder": V, "b_dec": c, "b_router": r}),
        tmp_path / "ae.pt",
    )
    trainer(tmp_path, "SwitchAutoEncoder", k=K, experts=E, heaviside=heaviside)
    z = relu((X - c) @ W.T)
    logits = (X - r) @ R.T
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    top = (p == p.max(1, keepdims=True)) * p
    weight = (top > 0).astype(np.float32) if heaviside else top
    acts = keep_largest(z * np.repeat(weight, N // E, axis=1), K).astype(np.float32)
    check(tmp_path, acts, acts @ V + c, tmp_path, options=Options(), format_name="dictionary_learning")


@pytest.mark.parametrize("is_relu", [True, False])
@pytest.mark.parametrize("april", [True, False])
def test_vsae_reads_its_means_and_never_samples(tmp_path, april, is_relu):
    W, b, V, c = normal(N, D, scale=0.4), normal(N, scale=0.3) - 1.5, rows(N, D), normal(D, scale=0.3)
    state = {"encoder.weight": W, "encoder.bias": b, "decoder.weight": V.T, "decoder.bias" if april else "b_dec": c}
    state |= {"var_encoder.weight": normal(N, D), "var_encoder.bias": normal(N)}
    torch.save(tensors(**state) | {"k": torch.tensor(15), "threshold": torch.tensor(-1.0)}, tmp_path / "ae.pt")
    trainer(tmp_path, "VSAETopK", k=15, var_flag=1, use_april_update_mode=april, **({} if is_relu else {"relu": False}))
    mu = (X if april else X - c) @ W.T + b
    acts = keep_largest(relu(mu) if is_relu else mu, 15)
    sae = check(tmp_path, acts, acts @ V + c, tmp_path, options=Options())
    assert sae.config.signed is not is_relu
    assert (acts < 0).any() is np.bool_(not is_relu)


def lacking(folder, name, key):
    """The JSON file ``name`` of ``folder`` without ``key``."""
    told = json.loads((folder / name).read_text())
    del told[key]
    (folder / name).write_text(json.dumps(told))


def saelens_folder(folder):
    save(folder, make("topk"))
    return folder, "cfg.json", "k"


def sparsify_folder(folder):
    sae = make("topk")
    folder.mkdir()
    values = {"encoder.weight": sae.W_enc.T.contiguous(), "encoder.bias": sae.b_enc, "W_dec": sae.W_dec}
    save_file(values | {"b_dec": sae.b_dec}, folder / "sae.safetensors")
    (folder / "cfg.json").write_text(json.dumps({"k": 5, "d_in": 32, "num_latents": 40}))
    return folder, "cfg.json", "k"


def trained_folder(folder):
    sae = make("topk")
    folder.mkdir()
    values = {"encoder.weight": sae.W_enc.T.contiguous(), "encoder.bias": sae.b_enc, "b_dec": sae.b_dec}
    torch.save(values | {"decoder.weight": sae.W_dec.T.contiguous()}, folder / "ae.pt")
    (folder / "config.json").write_text(json.dumps({"trainer": {"dict_class": "AutoEncoderTopK", "k": 5}}))
    return folder, "config.json", None


def recsae_folder(folder):
    sae = make("topk")
    folder.mkdir()
    values = {"encoder.weight": sae.W_enc.T.contiguous(), "encoder.bias": sae.b_enc, "W_dec": sae.W_dec}
    torch.save(values | {"b_dec": sae.b_dec}, folder / "rec.pt")
    (folder / "args.json").write_text(json.dumps({"sae_k": 5}))
    return folder, "args.json", "sae_k"


def own_folder(folder):
    own.write(folder, make("topk"))
    return folder, None, None


@pytest.mark.parametrize("made", [saelens_folder, sparsify_folder, trained_folder, recsae_folder, own_folder])
def test_k_is_what_the_files_say_and_the_callers_where_they_do_not(tmp_path, made):
    folder, name, key = made(tmp_path / "layers.0")
    hook = "model.layers.0:out"
    assert read(folder, Options(hook=hook, k=5)).k == 5
    with pytest.raises(SAEFormatError, match=r"^--k is 7, but .* says \w+ 5; leave --k out\.$"):
        read(folder, Options(hook=hook, k=7))
    if key is None:
        return
    lacking(folder, name, key)
    assert read(folder, Options(hook=hook, k=7)).k == 7
    with pytest.raises(SAEFormatError, match=r"^--k is 41, more than the 40 latents\.$"):
        read(folder, Options(hook=hook, k=41))
    with pytest.raises(SAEFormatError, match="give --k"):
        read(folder, Options(hook=hook))
