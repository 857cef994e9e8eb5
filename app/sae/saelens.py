"""The SAELens folder format: cfg.json and sae_weights.safetensors. We read it and write it.

Keys as in SAELens 6: architecture, d_in, d_sae, k, apply_b_dec_to_input, normalize_activations,
rescale_acts_by_decoder_norm, metadata{model_name, hook_name, hf_hook_name, prepend_bos, context_size}.
"""

import json
import re
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from app.sae.base import SAE, SAEConfig, SAEFormatError
from app.sae.topk import TopK

WEIGHTS = "sae_weights.safetensors"


def read(folder: Path) -> SAE:
    """The SAE in ``folder``.

    Raises:
        SAEFormatError: a missing or unreadable file, an architecture or option not supported, or a tensor of
            the wrong name, shape or content.
    """
    cfg = _read_cfg(folder)
    architecture = str(cfg.get("architecture", "missing"))
    if architecture != "topk":
        raise SAEFormatError(f"cfg.json in {folder} says architecture {architecture!r}; supported: 'topk'.")
    normalise = cfg.get("normalize_activations") or "none"
    if normalise != "none":
        raise SAEFormatError(
            f"cfg.json in {folder} says normalize_activations {normalise!r}; supported: 'none' (fold the scale in)."
        )
    tensors = _read_tensors(folder / WEIGHTS)
    d_in, n = _whole(cfg, "d_in", folder), _whole(cfg, "d_sae", folder)
    k = _whole(cfg, "k", folder)
    if k > n:
        raise SAEFormatError(f"cfg.json in {folder} says k {k}, more than its d_sae {n}.")
    wanted = {"W_enc": (d_in, n), "b_enc": (n,), "W_dec": (n, d_in), "b_dec": (d_in,)}
    check_shapes(tensors, wanted, folder / WEIGHTS)
    metadata = cfg.get("metadata") or {}
    hook = hook_point(cfg, folder)
    config = SAEConfig(
        architecture=architecture,
        d_in=d_in,
        n_latents=n,
        reads=(hook,),
        writes=(hook,),
        subject=str(metadata.get("model_name") or "unknown"),
        prepend_bos=bool(metadata.get("prepend_bos", True)),
        context=metadata.get("context_size"),
        extra={"k": k},
    )
    return TopK(
        config=config,
        **{name: tensors[name].float() for name in wanted},
        k=k,
        subtract_b_dec=bool(cfg.get("apply_b_dec_to_input", True)),
        rescale_by_decoder_norm=bool(cfg.get("rescale_acts_by_decoder_norm", False)),
    )


def write(folder: Path, sae: TopK, *, matrices: torch.dtype = torch.bfloat16, metadata: dict[str, Any]) -> None:
    """Write ``sae``: the two matrices in ``matrices``, the biases in fp32, where rounding would add up."""
    folder.mkdir(parents=True, exist_ok=True)
    cfg = {
        "architecture": sae.config.architecture,
        "d_in": sae.config.d_in,
        "d_sae": sae.config.n_latents,
        "k": sae.k,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": sae.subtract_b_dec,
        "rescale_acts_by_decoder_norm": sae.rescale_by_decoder_norm,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": {
            "model_name": sae.config.subject,
            "hook_name": saelens_hook(sae.config.reads[0]),
            "hf_hook_name": sae.config.reads[0].rpartition(":")[0],
            "prepend_bos": sae.config.prepend_bos,
            "context_size": sae.config.context,
            **metadata,
        },
    }
    tensors = {
        "W_enc": sae.W_enc.to(matrices).contiguous(),
        "b_enc": sae.b_enc.float(),
        "W_dec": sae.W_dec.to(matrices).contiguous(),
        "b_dec": sae.b_dec.float(),
    }
    partial = folder / (WEIGHTS + ".partial")
    save_file(tensors, partial)
    partial.rename(folder / WEIGHTS)
    (folder / "cfg.json").write_text(json.dumps(cfg, indent=2) + "\n")


def hook_point(cfg: dict[str, Any], folder: Path) -> str:
    """The hook point of a config, from hf_hook_name or a ``blocks.L.hook_resid_post`` name (Llama layout)."""
    metadata = cfg.get("metadata") or {}
    if named := metadata.get("hf_hook_name"):
        return f"{named}:out"
    name = str(metadata.get("hook_name") or cfg.get("hook_name") or cfg.get("hook_point") or "")
    if match := re.fullmatch(r"blocks\.(\d+)\.hook_resid_(pre|post)", name):
        return f"model.layers.{match[1]}:{'in' if match[2] == 'pre' else 'out'}"
    raise SAEFormatError(
        f"cfg.json in {folder} says hook_name {name!r}; supported: 'blocks.L.hook_resid_pre' or '..._post'."
    )


def saelens_hook(point: str) -> str:
    match = re.fullmatch(r"(?:.*\.)?(\d+):(in|out)", point)
    return f"blocks.{match[1]}.hook_resid_{'pre' if match[2] == 'in' else 'post'}" if match else point


def check_shapes(tensors: dict[str, Tensor], wanted: dict[str, tuple[int, ...]], file: Path) -> None:
    """Refuse missing tensors, wrong shapes and values that are not finite, each by name."""
    for name, shape in wanted.items():
        if name not in tensors:
            found = ", ".join(sorted(tensors)) or "none"
            raise SAEFormatError(f"{file} has no tensor {name!r}; it has: {found}.")
        if tuple(tensors[name].shape) != shape:
            raise SAEFormatError(
                f"Tensor {name!r} in {file} has shape {list(tensors[name].shape)}; wanted {list(shape)} "
                f"(d_in and d_sae of cfg.json)."
            )
        if not tensors[name].isfinite().all():
            raise SAEFormatError(f"Tensor {name!r} in {file} holds values that are not finite.")


def _read_cfg(folder: Path) -> dict[str, Any]:
    if not folder.is_dir():
        raise SAEFormatError(f"No SAE folder at {folder}.")
    path = folder / "cfg.json"
    try:
        cfg = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SAEFormatError(f"{folder} has no cfg.json, so it is no SAELens folder.") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise SAEFormatError(f"{path} is not JSON: {error}.") from None
    if not isinstance(cfg, dict):
        raise SAEFormatError(f"{path} holds a {type(cfg).__name__}; wanted an object.")
    return cfg


def _read_tensors(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise SAEFormatError(f"{path.parent} has no {path.name}.")
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise SAEFormatError(f"{path} is not a safetensors file: {error}.") from None


def _whole(cfg: dict[str, Any], key: str, folder: Path) -> int:
    value = cfg.get(key)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise SAEFormatError(f"cfg.json in {folder} says {key} {value!r}; wanted a whole number of at least 1.")
    return value
