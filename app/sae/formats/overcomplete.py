"""overcomplete (Fel et al.): a state_dict ``.pt`` and a JSON beside it with class and kwargs.

The library itself saves pickled modules, which could run code and are refused. There is no decoder bias and no
subtraction; dictionaries are normalised when used, so the normalised ones are read.
"""

from typing import Any

import torch
from torch import Tensor

from app.sae.base import SAE, SAEConfig, SAEFormatError
from app.sae.formats.files import Keys, Options, Source, Tensors, active
from app.sae.jumprelu import JumpReLU
from app.sae.pursuit import MatchingPursuit
from app.sae.quantised import Quantised
from app.sae.relu import ReLU
from app.sae.topk import TopK

NAME, DETAIL = "overcomplete", "overcomplete: a state_dict .pt, with class and kwargs in a JSON beside it"
_CLASSES = ("SAE", "TopKSAE", "BatchTopKSAE", "JumpSAE", "QSAE", "MpSAE", "RATopKSAE", "RAJumpSAE")


def recognise(source: Source) -> bool:
    sidecar = _sidecar(source)
    return source.first(".pt") is not None and sidecar is not None and "class" in source.json(sidecar)


def _sidecar(source: Source) -> str | None:
    found = [name for name in source.names() if "/" not in name and name.endswith(".json")]
    return found[0] if len(found) == 1 else None


def read(source: Source, options: Options) -> SAE:
    name, sidecar = source.first(".pt"), _sidecar(source)
    assert name is not None
    assert sidecar is not None
    told = Keys(source.json(sidecar), f"{sidecar} in {source.folder}")
    kind = told.choice("class", _CLASSES)
    kwargs = told.get("kwargs", {})
    if not isinstance(kwargs, dict):
        raise SAEFormatError(f"{told.where} says kwargs {kwargs!r}; an object was expected.")
    keys = Keys(dict(kwargs), f"kwargs of {told.where}")
    tensors = Tensors(source.tensors(name), source.folder / name)
    D = _relaxed(keys, tensors) if kind.startswith("RA") else _dictionary(keys, tensors)
    hook = options.hook or str(told.get("hook", ""))
    if not hook:
        raise SAEFormatError(f"{told.where} does not say where the SAE reads; give --hook.")
    made = _made(kind, keys, told, tensors, options, D, hook)
    told.known("encoder", "running_threshold", "subject", "hook")
    keys.known("input_shape", "nb_concepts", "n_components", "encoder_module", "device", "dictionary_params", "points")
    keys.known("thresholds", "bandwidth", "init_threshold", "temperature")
    told.finish(options)
    keys.finish(options)
    tensors.finish(options)
    return made


def _made(kind: str, keys: Keys, told: Keys, tensors: Tensors, options: Options, D: Tensor, hook: str) -> SAE:
    n, d = D.shape

    def config(architecture: str, signed: bool = False, **extra: int) -> SAEConfig:
        return SAEConfig(
            architecture=architecture, d_in=d, n_latents=n, reads=(hook,), writes=(hook,),
            subject=options.subject or str(told.get("subject", "unknown")), signed=signed, extra=dict(extra),
        )  # fmt: skip

    zero = torch.zeros(d)
    if kind == "MpSAE":
        k = active(keys, options, "k", n)
        return MatchingPursuit(config=config("matching_pursuit", signed=True, k=k), W_dec=D, b_dec=zero, steps=k)
    W_enc, b_enc = _encoder(tensors, D)
    linear: dict[str, Any] = {"W_enc": W_enc, "b_enc": b_enc, "W_dec": D, "b_dec": zero}
    match kind:
        case "TopKSAE" | "RATopKSAE":
            k = active(keys, options, "top_k", n, default=max(n // 10, 1))
            return TopK(config("topk", k=k), **linear, subtract_b_dec=False, k=k)
        case "BatchTopKSAE":
            keys.known("top_k", "threshold_momentum")
            threshold = torch.tensor(told.number("running_threshold"))
            return JumpReLU(config("batchtopk"), **linear, subtract_b_dec=False, threshold=threshold, inclusive=True)
        case "JumpSAE" | "RAJumpSAE":
            threshold = tensors.take("thresholds", n).exp()
            keys.known("kernel", "bandwith")
            return JumpReLU(config("jumprelu"), **linear, subtract_b_dec=False, threshold=threshold, inclusive=True)
        case "QSAE":
            levels = tensors.take("Q", *tensors.shape("Q", 1))
            keys.known("q")
            return Quantised(
                config("quantised", levels=len(levels)), **linear, subtract_b_dec=False, levels=levels,
                hard=keys.flag("hard", False),
            )  # fmt: skip
        case _:
            return ReLU(config("relu"), **linear, subtract_b_dec=False)


def _dictionary(keys: Keys, tensors: Tensors) -> Tensor:
    """[n, d]: rows normalised as dictionary_params says, times exp(multiplier)."""
    given = keys.get("dictionary_params", {}) or {}
    if not isinstance(given, dict):
        raise SAEFormatError(f"{keys.where} says dictionary_params {given!r}; an object was expected.")
    kind = given.get("normalization", "l2")
    W = tensors.take("dictionary._weights", *tensors.shape("dictionary._weights", 2))
    factor: Tensor = torch.tensor(tensors.scalar("dictionary.multiplier")).exp()
    lengths: dict[str, Tensor] = {"l2": W.norm(dim=1, keepdim=True), "l1": W.abs().sum(1, keepdim=True)}
    match kind:
        case "l2" | "l1":
            return W / (lengths[kind] + 1e-8) * factor
        case "max_l2" | "max_l1":
            return W / lengths[kind[4:]].max() * factor
        case "identity":
            return W * factor
    raise SAEFormatError(
        f"{keys.where} says normalization {kind!r}; supported: 'l2', 'l1', 'max_l2', 'max_l1', 'identity'."
    )


def _relaxed(keys: Keys, tensors: Tensors) -> Tensor:
    """Relaxed archetypal dictionary: (relu(W) / sum) C + Relax, its rows clipped to delta, times exp(multiplier)."""
    n, points = tensors.shape("dictionary.W", 2)
    d = tensors.shape("dictionary.C", 2)[1]
    W = tensors.take("dictionary.W", n, points).relu()
    relax, delta = tensors.take("dictionary.Relax", n, d), keys.number("delta", 1.0)
    relax = relax * (delta / relax.norm(dim=1, keepdim=True).clamp_min(1e-12)).clamp_max(1.0)
    mixed: Tensor = W / (W.sum(1, keepdim=True) + 1e-8) @ tensors.take("dictionary.C", points, d) + relax
    keys.known("use_multiplier")
    factor: Tensor = torch.tensor(tensors.scalar("dictionary.multiplier")).exp()
    return mixed * factor


def _encoder(tensors: Tensors, D: Tensor) -> tuple[Tensor, Tensor]:
    """W_enc [d, n], b_enc [n]; a batch norm's running statistics are folded in."""
    n, d = D.shape
    if "encoder.tied_to._weights" in tensors:
        tensors.known("encoder.tied_to._weights", "encoder.tied_to.multiplier")
        return D.T.contiguous(), _bias(tensors, n)
    if "encoder.weight" in tensors:
        return tensors.take("encoder.weight", n, d).T.contiguous(), _bias(tensors, n)
    W = tensors.take("encoder.final_block.0.weight", n, d)
    b = tensors.take("encoder.final_block.0.bias", n)
    norm = "encoder.final_block.1."
    if f"{norm}running_var" in tensors:
        scale = tensors.take(f"{norm}weight", n) / (tensors.take(f"{norm}running_var", n) + 1e-5).sqrt()
        b = (b - tensors.take(f"{norm}running_mean", n)) * scale + tensors.take(f"{norm}bias", n)
        W = W * scale[:, None]
        tensors.known(f"{norm}num_batches_tracked")
    elif f"{norm}weight" in tensors:
        raise SAEFormatError(
            f"{tensors.where} has an encoder with a LayerNorm over the latents; supported are "
            "linear, tied and mlp_bn_1 encoders."
        )
    return W.T.contiguous(), b


def _bias(tensors: Tensors, n: int) -> Tensor:
    made = tensors.maybe("encoder.bias", n)
    return torch.zeros(n) if made is None else made
