"""OpenMOSS Language-Model-SAEs (lm_saes): ``config.json`` and ``sae_weights.safetensors`` with W_E, b_E, W_D, b_D.

norm_activation is applied outside encode: dataset-wise scales by sqrt(d) / dataset_average_activation_norm.<hook>.
"""

import math
from typing import Any, Literal, cast

import torch
from torch import Tensor

from app.sae.base import SAE, SAEConfig, SAEFormatError
from app.sae.clt import CLT
from app.sae.crosscoder import Crosscoder
from app.sae.formats.files import Keys, Options, Source, Tensors, active
from app.sae.normalise import Normalisation
from app.sae.normgated import NormGated

NAME, DETAIL = "openmoss", "OpenMOSS: config.json, sae_weights.safetensors (SAE, transcoder, crosscoder, CLT)"
_WEIGHTS = "sae_weights.safetensors"
_AVERAGE = "dataset_average_activation_norm"
_THRESHOLD = "activation_function.log_jumprelu_threshold"
_TRAINING = (
    "dtype", "device", "force_unit_decoder_norm", "jumprelu_threshold_window", "promote_act_fn_dtype",
    "use_triton_kernel", "sparsity_threshold_for_triton_spmm_kernel", "sae_pretrained_name_or_path", "strict_loading",
    "model_name", "sae_type", "expansion_factor", "d_sae", "n_layers", "normalization_mode", "version",
    "lm_saes_version",
)  # fmt: skip
Act = Literal["relu", "jumprelu", "topk", "layertopk"]


def recognise(source: Source) -> bool:
    return source.has("config.json", _WEIGHTS) and not source.has("cfg.json")


def read(source: Source, options: Options) -> SAE:
    """W_E [d, n], b_E [n], W_D [n, d], b_D [d]; W_E_glu, b_E_glu; crosscoders have a leading dimension of layers;
    CLTs W_E [L, d, n] and W_D.l [l + 1, n, d], b_D.l [d] for each layer l."""
    keys = Keys(source.json("config.json"), f"config.json in {source.folder}")
    tensors = Tensors(source.tensors(_WEIGHTS), source.folder / _WEIGHTS)
    act = keys.choice("act_fn", ["relu", "jumprelu", "topk", "layertopk", "batchtopk", "batchlayertopk"])
    if act.startswith("batch"):
        raise SAEFormatError(
            f"{keys.where} says act_fn {act!r}, which depends on the batch; convert it to jumprelu with lm_saes."
        )
    kind = keys.choice("sae_type", ["sae", "crosscoder", "clt"], "sae")
    if act == "layertopk" and kind != "clt":
        raise SAEFormatError(f"{keys.where} says act_fn 'layertopk' for a {kind}; it is one of CLTs.")
    made = {"sae": _sae, "crosscoder": _crosscoder, "clt": _clt}[kind](keys, tensors, options, cast(Act, act))
    keys.known("top_k", *_TRAINING)
    tensors.known(*(name for name in tensors.values if name.startswith(_AVERAGE)))
    keys.finish(options)
    tensors.finish(options)
    return made


def _k(keys: Keys, options: Options, act: Act, n: int) -> int | None:
    return active(keys, options, "top_k", n) if "topk" in act else None


def _threshold(tensors: Tensors, act: Act, *shape: int) -> Tensor | None:
    return tensors.take(_THRESHOLD, *shape).exp() if act == "jumprelu" else None


def _sae(keys: Keys, tensors: Tensors, options: Options, act: Act) -> SAE:
    d, n = tensors.shape("W_E", 2)
    d_out = tensors.shape("W_D", 2)[1]
    _check_size(keys, d, n)
    reads = options.hook or str(keys.get("hook_point_in", ""))
    writes = options.hook or str(keys.get("hook_point_out", reads))
    if not reads:
        raise SAEFormatError(f"{keys.where} has no hook_point_in; give --hook.")
    glu = keys.flag("use_glu_encoder", False)
    k = _k(keys, options, act, n)
    transcoder = reads != writes
    return NormGated(
        config=SAEConfig(
            architecture=f"{act}_transcoder" if transcoder else act,
            d_in=d,
            n_latents=n,
            reads=(reads,),
            writes=(writes,),
            subject=options.subject or str(keys.get("model_name", "unknown")),
            extra={"k": k} if k else {},
        ),
        W_enc=tensors.take("W_E", d, n),
        b_enc=tensors.take("b_E", n),
        W_dec=tensors.take("W_D", n, d_out),
        b_dec=tensors.take("b_D", d_out) if keys.flag("use_decoder_bias", True) else torch.zeros(d_out),
        W_skip=tensors.maybe("W_skip", d_out, d),
        subtract_b_dec=keys.flag("apply_decoder_bias_to_pre_encoder", False),
        normalise=_normalisation(keys, tensors, d, d_out),
        act=cast(Any, act),
        include_decoder_norm=keys.flag("sparsity_include_decoder_norm", True),
        threshold=_threshold(tensors, act, n),
        k=k,
        W_glu=tensors.take("W_E_glu", d, n) if glu else None,
        b_glu=tensors.take("b_E_glu", n) if glu else None,
    )


def _normalisation(keys: Keys, tensors: Tensors, d: int, d_out: int) -> Normalisation:
    kind = keys.choice("norm_activation", ["dataset-wise", "token-wise", "inference", "none"], "dataset-wise")
    if kind == "token-wise":
        return Normalisation("unit_norm")
    if kind != "dataset-wise":
        return Normalisation()
    norm_in = _average(keys, tensors, str(keys.get("hook_point_in")))
    norm_out = _average(keys, tensors, str(keys.get("hook_point_out", keys.get("hook_point_in"))))
    return Normalisation("scale", math.sqrt(d) / norm_in, math.sqrt(d_out) / norm_out)


def _average(keys: Keys, tensors: Tensors, hook: str) -> float:
    name = f"{_AVERAGE}.{hook}"
    if name not in tensors:
        raise SAEFormatError(f"{keys.where} says norm_activation dataset-wise but {tensors.where} has no {name}.")
    return tensors.scalar(name)


def _check_size(keys: Keys, d: int, n: int) -> None:
    d_model, factor = keys.whole("d_model", d), keys.number("expansion_factor", n / d)
    if d_model != d or round(d_model * factor) != n:
        raise SAEFormatError(
            f"{keys.where} says d_model {d_model} and expansion_factor {factor:g}; W_E is for {d} and {n / d:g}."
        )


def _crosscoder(keys: Keys, tensors: Tensors, options: Options, act: Act) -> SAE:
    layers, d, n = tensors.shape("W_E", 3)
    hooks = tuple(map(str, keys.get("hook_points", [])))
    if len(hooks) != layers:
        raise SAEFormatError(f"{keys.where} names {len(hooks)} hook_points; W_E has {layers} layers.")
    _check_size(keys, d, n)
    keys.known("hook_point_in", "hook_point_out", "use_decoder_bias", "sparsity_include_decoder_norm")
    keys.known("use_glu_encoder", "apply_decoder_bias_to_pre_encoder")
    kind = keys.choice("norm_activation", ["dataset-wise", "inference", "none"], "dataset-wise")
    scale = torch.ones(layers)
    if kind == "dataset-wise":
        scale = torch.tensor([math.sqrt(d) / _average(keys, tensors, hook) for hook in hooks])
    # The layers' factors differ, so they go into the weights: x s W = x (s W), and x_hat / s = f (W / s) + b / s.
    # The gate's decoder norms are those before the scaling, so thresholds are scaled with them.
    W_dec, k = tensors.take("W_D", layers, n, d), _k(keys, options, act, n)
    threshold = _threshold(tensors, act, n)
    return Crosscoder(
        config=SAEConfig(
            architecture="crosscoder", d_in=layers * d, n_latents=n, reads=hooks, writes=hooks,
            subject=options.subject or str(keys.get("model_name", "unknown")), extra={"k": k} if k else {},
        ),
        W_enc=(tensors.take("W_E", layers, d, n) * scale[:, None, None]).reshape(layers * d, n),
        b_enc=tensors.take("b_E", layers, n).sum(0),
        W_dec=(W_dec / scale[:, None, None]).permute(1, 0, 2).reshape(n, layers * d).contiguous(),
        b_dec=(tensors.take("b_D", layers, d) / scale[:, None]).reshape(-1),
        subtract_b_dec=False,
        layers=layers,
        act=cast(Any, act),
        threshold=None if threshold is None else threshold / scale[:, None],
        k=k,
    )  # fmt: skip


def _clt(keys: Keys, tensors: Tensors, options: Options, act: Act) -> SAE:
    layers, d, n = tensors.shape("W_E", 3)
    reads = tuple(map(str, keys.get("hook_points_in", [])))
    writes = tuple(map(str, keys.get("hook_points_out", [])))
    if len(reads) != layers or len(writes) != layers:
        raise SAEFormatError(
            f"{keys.where} names {len(reads)} hook_points_in and {len(writes)} hook_points_out; W_E has "
            f"{layers} layers."
        )
    _check_size(keys, d, n)
    scale_in, scale_out = torch.ones(layers), torch.ones(layers)
    if keys.choice("norm_activation", ["inference", "none", "dataset-wise"], "inference") == "dataset-wise":
        scale_in = torch.tensor([math.sqrt(d) / _average(keys, tensors, hook) for hook in reads])
        scale_out = torch.tensor([math.sqrt(d) / _average(keys, tensors, hook) for hook in writes])
    W_D = [tensors.take(f"W_D.{to}", to + 1, n, d) for to in range(layers)]
    gate = None
    if keys.flag("sparsity_include_decoder_norm", True):
        gate = torch.stack(
            [torch.stack([W_D[to][i].pow(2).sum(1) for to in range(i, layers)]).sum(0).sqrt() for i in range(layers)]
        )
    keys.known("use_decoder_bias", "use_glu_encoder", "apply_decoder_bias_to_pre_encoder", "hook_points")
    keys.known("init_cross_layer_decoder_all_zero", "decode_with_csr", "sparsity_threshold_for_csr")
    k = _k(keys, options, act, layers * n)
    return CLT(
        config=SAEConfig(
            architecture="clt", d_in=layers * d, n_latents=layers * n, reads=reads, writes=writes,
            subject=options.subject or str(keys.get("model_name", "unknown")), extra={"k": k} if k else {},
        ),
        W_enc=tensors.take("W_E", layers, d, n) * scale_in[:, None, None],
        b_enc=tensors.take("b_E", layers, n),
        W_dec_to=tuple(W / scale_out[to] for to, W in enumerate(W_D)),
        b_dec=torch.stack([tensors.take(f"b_D.{to}", d) / scale_out[to] for to in range(layers)]),
        gate=gate,
        act=act,
        threshold=_threshold(tensors, act, layers, n),
        k=k,
    )  # fmt: skip
