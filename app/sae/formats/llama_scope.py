"""Llama Scope (fnlp): ``hyperparams.json`` and ``checkpoints/final.safetensors``.

Inputs are scaled by sqrt(d) / dataset_average_activation_norm.in, outputs by .out. The authors' loader folds both
into the weights, then the decoder norms into the encoder, and compares the threshold with that.
"""

import math
from typing import Any

import torch

from app.sae.base import SAE, SAEConfig, SAEFormatError
from app.sae.formats.files import Keys, Options, Source, Tensors, active
from app.sae.jumprelu import JumpReLU
from app.sae.relu import ReLU
from app.sae.topk import TopK

NAME, DETAIL = "llama-scope", "Llama Scope: hyperparams.json, checkpoints/final.safetensors"
_WEIGHTS = "checkpoints/final.safetensors"
_TRAINING = (
    "d_sae", "device", "dtype", "seed", "use_ghost_grads", "lp", "l1_coefficient", "l1_coefficient_warmup_steps",
    "norm_activation_in", "decoder_exactly_fixed_norm", "init_decoder_norm", "init_encoder_norm", "init_search",
    "init_encoder_with_decoder_transpose", "lr", "sae_pretrained_name_or_path", "strict_loading", "tp_size", "ddp_size",
    "decoder_exactly_unit_norm", "remove_gradient_parallel_to_decoder", "model_name", "top_k_warmup", "lambda_s",
)  # fmt: skip


def recognise(source: Source) -> bool:
    return source.has("hyperparams.json")


def read(source: Source, options: Options) -> SAE:
    """encoder.weight [n, d], encoder.bias [n], decoder.weight [d, n], decoder.bias [d]."""
    keys = Keys(source.json("hyperparams.json"), f"hyperparams.json in {source.folder}")
    tensors = Tensors(source.tensors(_WEIGHTS), source.folder / _WEIGHTS)
    n, d = tensors.shape("encoder.weight", 2)
    d_out = tensors.shape("decoder.weight", 2)[0]
    stated = keys.whole("d_model", d), keys.whole("d_sae", n)
    if stated != (d, n):
        raise SAEFormatError(f"{keys.where} says d_model {stated[0]}, d_sae {stated[1]}; encoder.weight is [{n}, {d}].")
    act = keys.choice("act_fn", ["jumprelu", "topk", "relu"])
    reads = options.hook or str(keys.get("hook_point_in", ""))
    writes = options.hook or str(keys.get("hook_point_out", reads))
    if not reads:
        raise SAEFormatError(f"{keys.where} has no hook_point_in; give --hook.")
    if keys.flag("use_glu_encoder", False):
        raise SAEFormatError(f"{keys.where} says use_glu_encoder true; Llama Scope has no GLU weights to read.")
    threshold, k = None, None
    if act == "jumprelu":
        if "log_jumprelu_threshold" in tensors:
            threshold = tensors.take("log_jumprelu_threshold", n).exp()
        else:
            threshold = torch.tensor(keys.number("jump_relu_threshold"))
        if float(threshold.min()) < 0:
            raise SAEFormatError(
                f"{keys.where} says jump_relu_threshold {float(threshold.min()):g}; wanted at least 0."
            )
    if act == "topk":
        k = active(keys, options, "top_k", n)
    if k is not None and keys.number("jump_relu_threshold", 0.0) > 0:  # as the authors' loader does
        act, k, threshold = "jumprelu", None, torch.tensor(keys.number("jump_relu_threshold"))
    weights = _folded(keys, tensors, n, d, d_out)
    config = SAEConfig(
        architecture=act if reads == writes else f"{act}_transcoder",
        d_in=d,
        n_latents=n,
        reads=(reads,),
        writes=(writes,),
        subject=options.subject or str(keys.get("model_name", "unknown")),
        extra={"k": k} if k else {},
    )
    sae: SAE
    if threshold is not None:
        sae = JumpReLU(config, **weights, subtract_b_dec=False, threshold=threshold)
    elif k is not None:
        sae = TopK(config, **weights, subtract_b_dec=False, k=k)
    else:
        sae = ReLU(config, **weights, subtract_b_dec=False)
    keys.known("expansion_factor", "jump_relu_threshold", "top_k", *_TRAINING)
    tensors.known("decoder.bias", "log_jumprelu_threshold")
    keys.finish(options)
    tensors.finish(options)
    return sae


def _folded(keys: Keys, tensors: Tensors, n: int, d: int, d_out: int) -> dict[str, Any]:
    """The weights on the scale of the raw activations, in the order of the authors' loader: scales first, then,
    where sparsity_include_decoder_norm, decoder norms into the encoder. The threshold is one of that scale."""
    W_enc = tensors.take("encoder.weight", n, d).T.contiguous()
    b_enc = tensors.take("encoder.bias", n)
    W_dec = tensors.take("decoder.weight", d_out, n).T.contiguous()
    b_dec = tensors.take("decoder.bias", d_out) if keys.flag("use_decoder_bias", True) else torch.zeros(d_out)
    if keys.flag("apply_decoder_bias_to_pre_encoder", False):
        b_enc = b_enc - b_dec @ W_enc
    scale_in, scale_out = _scales(keys, d, d_out)
    b_enc, b_dec, W_dec = b_enc / scale_in, b_dec / scale_out, W_dec * (scale_in / scale_out)
    if keys.flag("sparsity_include_decoder_norm", True):
        norm = W_dec.norm(dim=1)
        W_enc, b_enc, W_dec = W_enc * norm, b_enc * norm, W_dec / norm[:, None]
    return {"W_enc": W_enc, "b_enc": b_enc, "W_dec": W_dec, "b_dec": b_dec}


def _scales(keys: Keys, d_in: int, d_out: int) -> tuple[float, float]:
    kind = keys.choice("norm_activation", ["dataset-wise", "inference", "none"], "dataset-wise")
    norm = keys.get("dataset_average_activation_norm")
    if kind != "dataset-wise":
        return 1.0, 1.0
    try:
        return math.sqrt(d_in) / float(norm["in"]), math.sqrt(d_out) / float(norm["out"])
    except (TypeError, KeyError, ValueError, ZeroDivisionError):
        raise SAEFormatError(
            f"{keys.where} says norm_activation dataset-wise but has no dataset_average_activation_norm in and out."
        ) from None
