"""EleutherAI sparsify: ``cfg.json`` and ``sae.safetensors`` in a folder named after the module whose output is read
(``layers.3``, ``layers.3.mlp``, with ``seed7`` below it where several were trained)."""

import re
from typing import Any

from torch import Tensor

from app.sae.base import SAE, SAEConfig, SAEFormatError
from app.sae.formats.files import Keys, Options, Source, Tensors, active
from app.sae.groupmax import GroupMax
from app.sae.topk import TopK

NAME, DETAIL = "sparsify", "EleutherAI sparsify: cfg.json, sae.safetensors"


def recognise(source: Source) -> bool:
    return source.has("cfg.json", "sae.safetensors")


def read(source: Source, options: Options) -> SAE:
    """encoder.weight [n, d], encoder.bias [n], W_dec [n, d_out], b_dec [d_out], W_skip [d_out, d].

    b_dec is subtracted unless ``transcode``. The old ``signed`` flag chooses by magnitude and keeps the sign.
    """
    keys = Keys(source.json("cfg.json"), f"cfg.json in {source.folder}")
    tensors = Tensors(source.tensors("sae.safetensors"), source.folder / "sae.safetensors")
    n, d = tensors.shape("encoder.weight", 2)
    d_out = tensors.shape("W_dec", 2)[1]
    _check_size(keys, n, d)
    k = active(keys, options, "k", n)
    activation = keys.choice("activation", ["topk", "groupmax"], "topk")
    transcode, skip = keys.flag("transcode", False), keys.flag("skip_connection", False)
    signed = keys.flag("signed", False)
    reads = options.hook or hook_of(source)
    writes = reads
    if transcode and options.hook is None:
        reads = reads.replace(":out", ":in")
    keys.known("normalize_decoder", "multi_topk", "skip_connection")
    config = SAEConfig(
        architecture=_architecture(activation, signed, transcode, skip), d_in=d, n_latents=n, reads=(reads,),
        writes=(writes,), subject=options.subject or "unknown", signed=signed, extra={"k": k},
    )  # fmt: skip
    weights: dict[str, Any] = {
        "W_enc": tensors.take("encoder.weight", n, d).T.contiguous(),
        "b_enc": tensors.take("encoder.bias", n),
        "W_dec": tensors.take("W_dec", n, d_out),
        "b_dec": tensors.take("b_dec", d_out),
    }
    W_skip: Tensor | None = tensors.take("W_skip", d_out, d) if skip else None
    keys.finish(options)
    tensors.finish(options)
    if activation == "groupmax":
        if n % k:
            raise SAEFormatError(f"{keys.where} says groupmax with k {k}, which does not divide the {n} latents.")
        return GroupMax(config, **weights, W_skip=W_skip, subtract_b_dec=not transcode, k=k)
    return TopK(
        config, **weights, W_skip=W_skip, subtract_b_dec=not transcode, k=k, relu=not signed, by_magnitude=signed
    )


def _architecture(activation: str, signed: bool, transcode: bool, skip: bool) -> str:
    name = "signed_topk" if signed else activation
    return f"{'skip_' if skip else ''}{name}_transcoder" if transcode else f"{'skip_' if skip else ''}{name}"


def _check_size(keys: Keys, n: int, d: int) -> None:
    d_in, stated = keys.whole("d_in", d), keys.get("num_latents", 0)
    factor = keys.number("expansion_factor", n / d)
    wanted = stated or round(d_in * factor)
    if (wanted, d_in) != (n, d):
        raise SAEFormatError(
            f"{keys.where} says num_latents {wanted}, d_in {d_in}; encoder.weight in the file is [{n}, {d}]."
        )


def hook_of(source: Source) -> str:
    """The module path the folder is named after, ``:out``."""
    for part in (source.folder.resolve().name, source.folder.resolve().parent.name):
        if re.fullmatch(r"(?:\w+\.)*\w*\d+(?:\.\w+)*", part) and not re.fullmatch(r"seed\d+", part):
            return f"{part}:out"
    raise SAEFormatError(
        f"{source.folder} is not named after a module path (like layers.3), so where the SAE reads is "
        "unknown; give --hook."
    )
