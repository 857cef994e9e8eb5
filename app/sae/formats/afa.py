"""top-AFA and the BatchTopK repository it grew from: ``sae.pt`` and ``config.json``.

W_enc [d, n], W_dec [n, d], b_enc, b_dec; input_unit_norm is a LayerNorm without gain. Only the vanilla and
JumpReLU classes use b_enc; the JumpReLU class does not subtract b_dec.
"""

from typing import Any

import torch

from app.sae.afa import TopAFA
from app.sae.base import SAE, SAEConfig, SAEFormatError
from app.sae.formats.files import Keys, Options, Source, Tensors, active
from app.sae.jumprelu import JumpReLU
from app.sae.normalise import Normalisation
from app.sae.relu import ReLU
from app.sae.topk import TopK

NAME, DETAIL = "top-afa", "top-AFA and BatchTopK repositories: sae.pt, config.json"
_KINDS = {"topafa": "top-afa", "top_afa": "top-afa", "afa": "top-afa", "topk": "topk", "vanilla": "relu",
          "jumprelu": "jumprelu", "batchtopk": "batchtopk"}  # fmt: skip
_TRAINING = (
    "seed", "batch_size", "lr", "num_tokens", "l1_coeff", "beta1", "beta2", "max_grad_norm", "seq_len", "dtype",
    "device", "n_batches_to_dead", "aux_penalty", "top_k_aux", "wandb_project", "perf_log_freq", "checkpoint_freq",
    "sae_type", "bandwidth", "afa_coeff", "dataset_path", "num_batches_in_buffer", "model_batch_size", "layer", "site",
    "name", "model_dtype", "top_k",
)  # fmt: skip


def recognise(source: Source) -> bool:
    return source.has("sae.pt", "config.json") and "class" not in source.json("config.json")


def read(source: Source, options: Options) -> SAE:
    keys = Keys(source.json("config.json"), f"config.json in {source.folder}")
    tensors = Tensors(source.tensors("sae.pt"), source.folder / "sae.pt")
    kind = _KINDS.get(str(keys.get("sae_type", "topafa")).lower())
    if kind is None or kind == "batchtopk":
        why = "depends on the batch" if kind else "is not known"
        raise SAEFormatError(
            f"{keys.where} says sae_type {keys.get('sae_type')!r}, which {why}; supported: topafa, topk, "
            "vanilla, jumprelu."
        )
    d, n = tensors.shape("W_enc", 2)
    stated = keys.whole("act_size", d), keys.whole("dict_size", n)
    if stated != (d, n):
        raise SAEFormatError(f"{keys.where} says act_size {stated[0]}, dict_size {stated[1]}; W_enc is [{d}, {n}].")
    hook = options.hook or str(keys.get("hook_point", ""))
    if not hook:
        raise SAEFormatError(f"{keys.where} has no hook_point; give --hook.")
    k = active(keys, options, "top_k", n) if kind == "topk" else None
    config = SAEConfig(
        architecture=kind, d_in=d, n_latents=n, reads=(hook,), writes=(hook,),
        subject=options.subject or str(keys.get("model_name", "unknown")), extra={"k": k} if k else {},
    )  # fmt: skip
    uses_bias = kind in ("relu", "jumprelu")
    b_enc = tensors.take("b_enc", n) if "b_enc" in tensors else torch.zeros(n)
    weights: dict[str, Any] = {
        "W_enc": tensors.take("W_enc", d, n),
        "b_enc": b_enc if uses_bias else torch.zeros(n),
        "W_dec": tensors.take("W_dec", n, d),
        "b_dec": tensors.take("b_dec", d),
    }
    normalise = Normalisation("layer_norm" if keys.flag("input_unit_norm", False) else "none")
    threshold = tensors.take("jumprelu.log_threshold", n).exp() if kind == "jumprelu" else None
    keys.known(*_TRAINING)
    tensors.known("b_enc")
    keys.finish(options)
    tensors.finish(options)
    if threshold is not None:
        return JumpReLU(config, **weights, normalise=normalise, subtract_b_dec=False, threshold=threshold)
    if k is not None:
        return TopK(config, **weights, normalise=normalise, k=k)
    return (TopAFA if kind == "top-afa" else ReLU)(config, **weights, normalise=normalise)
