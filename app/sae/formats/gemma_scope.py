"""Gemma Scope 1 (``params.npz``) and 2 (``params.safetensors``, lower-case names): JumpReLU, active iff
pre_acts > threshold, no subtraction of b_dec. Neither shape is in the files, so both come from the tensors."""

import re

import torch

from app.sae.base import SAE, SAEConfig, SAEFormatError
from app.sae.formats.files import Keys, Options, Source, Tensors
from app.sae.jumprelu import JumpReLU

NAME, DETAIL = "gemma-scope", "Gemma Scope 1 and 2: params.npz or params.safetensors"


def recognise(source: Source) -> bool:
    name = source.first(".npz") or source.first(".safetensors")
    return name in {"params.npz", "params.safetensors"} or bool(name and name.endswith(".npz"))


def read(source: Source, options: Options) -> SAE:
    """W_enc [d_in, n], W_dec [n, d_out], b_enc, b_dec, threshold; Gemma Scope 2 adds affine_skip_connection
    [d_in, d_out] and config.json with hf_hook_point_in and hf_hook_point_out."""
    name = source.first(".npz") or source.first(".safetensors")
    assert name is not None
    values = source.tensors(name)
    lower = {key.lower(): key for key in values}
    if "w_enc" not in lower:
        raise SAEFormatError(f"{source.folder / name} has no tensor 'W_enc'; it has: {', '.join(sorted(values))}.")
    tensors = Tensors({key.lower(): value for key, value in values.items()}, source.folder / name)
    d_in, n = tensors.shape("w_enc", 2)
    d_out = tensors.shape("w_dec", 2)[1]
    skip = tensors.maybe("affine_skip_connection", d_in, d_out)
    reads, writes, subject, extra = _hooks(source, options)
    sae = JumpReLU(
        config=SAEConfig(
            architecture="jumprelu" if reads == writes else "jumprelu_transcoder",
            d_in=d_in,
            n_latents=n,
            reads=(reads,),
            writes=(writes,),
            subject=subject,
            extra=extra,
        ),
        W_enc=tensors.take("w_enc", d_in, n),
        b_enc=tensors.take("b_enc", n),
        W_dec=tensors.take("w_dec", n, d_out),
        b_dec=tensors.take("b_dec", d_out),
        threshold=_threshold(tensors, n),
        W_skip=None if skip is None else skip.T.contiguous(),
        subtract_b_dec=False,
    )
    tensors.finish(options)
    return sae


def _threshold(tensors: Tensors, n: int) -> torch.Tensor:
    threshold = tensors.take("threshold", n)
    if (threshold < 0).any():
        count, lowest = int((threshold < 0).sum()), float(threshold.min())
        raise SAEFormatError(
            f"Tensor 'threshold' in {tensors.where} holds {count:,} negative values (down to {lowest:g}); "
            "a threshold of -1 means it was never set."
        )
    return threshold


def _hooks(source: Source, options: Options) -> tuple[str, str, str, dict[str, object]]:
    if not source.has("config.json"):
        layer = re.search(r"layer_(\d+)", str(source.folder.resolve()))
        if options.hook is None:
            guess = f"; the folder's name suggests model.layers.{layer[1]}:out" if layer else ""
            raise SAEFormatError(f"{source.folder} does not say where the SAE reads; give --hook{guess}.")
        return options.hook, options.hook, options.subject or "unknown", {}
    keys = Keys(source.json("config.json"), f"config.json in {source.folder}")
    reads = options.hook or str(keys.get("hf_hook_point_in", ""))
    writes = options.hook or str(keys.get("hf_hook_point_out", reads))
    if not reads:
        raise SAEFormatError(f"{keys.where} has no hf_hook_point_in; give --hook.")
    if "architecture" in keys.values:
        keys.choice("architecture", ["jump_relu", "jumprelu"])
    keys.known("width", "l0", "affine_connection", "type", "model_name", "dtype", "num_layers", "d_in", "d_sae")
    keys.known("revision", "training_tokens", "l0_coefficient", "site", "layer")
    keys.finish(options)
    subject = options.subject or str(keys.get("model_name", "unknown"))
    return _side(reads), _side(writes), subject, {}


def _side(hook: str) -> str:
    """``model.layers.9.output`` -> ``model.layers.9:out``."""
    found = re.fullmatch(r"(.+)[.:](input|output|in|out)", hook)
    return f"{found[1]}:{'in' if found[2].startswith('in') else 'out'}" if found else hook
