"""SAELens: ``cfg.json`` and ``sae_weights.safetensors``; read as version 6 and before it, written as version 6.

Facts of 6.54: a config counts as pre-v6 unless it or its metadata has sae_lens_version >= 6; transcoders neither
subtract b_dec nor undo their normalisation, and skip connections read the raw input; expected_average_only_in is
not applied to a folder loaded from disk; matching pursuit adds b_dec only where it subtracts it.
"""

import json
import re
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from app.sae.base import SAE, SAEConfig, SAEFormatError, rehooked
from app.sae.formats.files import Keys, Options, Source, Tensors, active
from app.sae.gated import Gated
from app.sae.jumprelu import JumpReLU
from app.sae.linear import Linear
from app.sae.normalise import Normalisation
from app.sae.pursuit import MatchingPursuit
from app.sae.relu import ReLU
from app.sae.topk import TopK

NAME, DETAIL = "saelens", "SAELens, version 6 and before: cfg.json, sae_weights.safetensors"
CONFIG, WEIGHTS = "cfg.json", "sae_weights.safetensors"
VERSION = "6.54.12"
_ARCHITECTURES = (
    "standard", "topk", "abstopk", "jumprelu", "gated", "matching_pursuit", "transcoder", "skip_transcoder",
    "jumprelu_transcoder", "jumprelu_skip_transcoder",
)  # fmt: skip
_NORMALISE = {
    "none": "none",
    "expected_average_only_in": "none",
    "constant_norm_rescale": "unit_norm",
    "layer_norm": "layer_norm",
}
_FACTS = (  # what says where the weights come from, not what they compute
    "device", "dtype", "metadata", "hook_name", "hook_point", "hook_layer", "hook_point_layer", "hook_head_index",
    "hook_point_head_index", "hook_name_out", "hf_hook_name", "hf_hook_name_out", "model_name", "model_class_name",
    "model_from_pretrained_kwargs", "dataset_path", "dataset_trust_remote_code", "context_size", "prepend_bos",
    "neuronpedia_id", "sae_lens_version", "sae_lens_training_version", "seqpos_slice", "reshape_activations",
    "activation_fn_kwargs", "activation_fn_str", "activation_fn", "finetuning_scaling_factor", "run_name", "seed",
    "training_tokens", "hook_layer_out", "d_out", "architecture", "k", "b_dec_init_method", "normalize_activations",
)  # fmt: skip


def recognise(source: Source) -> bool:
    return source.has(CONFIG, WEIGHTS)


def read(source: Source, options: Options) -> SAE:
    """W_enc [d_in, n], W_dec [n, d_out], b_enc, b_dec, and threshold, b_gate, b_mag, r_mag or W_skip [d_out, d_in]."""
    raw = source.json(CONFIG)
    keys = Keys(raw, f"{CONFIG} in {source.folder}")
    metadata = raw.get("metadata") or {}
    if not isinstance(metadata, dict):
        raise SAEFormatError(f"{keys.where} says metadata {str(metadata)[:60]!r}; wanted an object.")
    d_in, n = keys.whole("d_in"), keys.whole("d_sae")
    architecture, k = _architecture(keys, options, n)
    tensors = Tensors(source.tensors(WEIGHTS), source.folder / WEIGHTS)
    transcoder = "transcoder" in architecture
    d_out = keys.whole("d_out", d_in) if transcoder else d_in
    subtract = keys.flag("apply_b_dec_to_input", not transcoder)
    if transcoder and subtract:
        raise SAEFormatError(f"{keys.where} says apply_b_dec_to_input true for a {architecture}; wanted false.")
    normalise = _normalisation(keys, undo=not transcoder)
    config = _config(keys, metadata, options, architecture, d_in, n, k)
    b_dec = tensors.take("b_dec", d_out)
    made: SAE
    if architecture == "matching_pursuit":
        made = MatchingPursuit(
            config=config,
            W_dec=tensors.take("W_dec", n, d_out),
            b_dec=b_dec if subtract else torch.zeros(d_out),
            steps=keys.whole("max_iterations", d_in),
            relu=True,
            residual_threshold=keys.number("residual_threshold", 0.01),
            stop_on_repeat=keys.flag("stop_on_duplicate_support", True),
            subtract_b_dec=subtract,
            normalise=normalise,
        )
    else:
        linear: dict[str, Any] = {
            "config": config,
            "W_enc": tensors.take("W_enc", d_in, n),
            "b_enc": torch.zeros(n) if architecture == "gated" else tensors.take("b_enc", n),
            "W_dec": tensors.take("W_dec", n, d_out),
            "b_dec": b_dec,
            "W_skip": tensors.take("W_skip", d_out, d_in) if "skip" in architecture else None,
            "subtract_b_dec": subtract,
            "normalise": normalise,
        }
        made = _family(architecture, linear, keys, tensors, n, k)
    keys.known(*_FACTS)
    keys.finish(options)
    tensors.finish(options)
    return made


def _family(architecture: str, linear: dict[str, Any], keys: Keys, tensors: Tensors, n: int, k: int | None) -> SAE:
    if architecture in ("topk", "abstopk"):
        assert k is not None
        signed = architecture == "abstopk"
        rescale = keys.flag("rescale_acts_by_decoder_norm", False)
        return TopK(**linear, k=k, relu=not signed, by_magnitude=signed, rescale_by_decoder_norm=rescale)
    if "jumprelu" in architecture:
        return JumpReLU(**linear, threshold=tensors.take("threshold", n))
    if architecture == "gated":
        return Gated(
            **linear, b_gate=tensors.take("b_gate", n), b_mag=tensors.take("b_mag", n), r_mag=tensors.take("r_mag", n)
        )
    scaling = tensors.maybe("scaling_factor", n)  # of fine-tuned ReLU SAEs; the library drops it where it is all ones
    if scaling is not None and not (scaling == 1).all():
        raise SAEFormatError(
            f"{tensors.where} has a scaling_factor other than 1, which sae_lens does not apply either."
        )
    return ReLU(**linear)


def _architecture(keys: Keys, options: Options, n: int) -> tuple[str, int | None]:
    """The architecture and k. Before v6, activation_fn 'topk' makes a topk SAE whatever architecture says."""
    metadata = keys.values.get("metadata")
    version = keys.values.get("sae_lens_version") or (metadata or {}).get("sae_lens_version")
    modern = isinstance(version, str) and version.split(".")[0].isdigit() and int(version.split(".")[0]) >= 6
    name = keys.values.get("architecture")
    activation = keys.values.get("activation_fn_str") or keys.values.get("activation_fn")
    kwargs = keys.values.get("activation_fn_kwargs")
    k = (kwargs.get("k") if isinstance(kwargs, dict) else None) or keys.values.get("k")
    if not modern and isinstance(activation, str):
        if activation not in ("relu", "topk"):
            raise SAEFormatError(f"{keys.where} says activation_fn {activation!r}; supported: 'relu', 'topk'.")
        name = "topk" if activation == "topk" else name
    if name is None and not modern and (activation or "hook_point" in keys.values or "hook_name" in keys.values):
        name = "standard"
    if name not in _ARCHITECTURES:
        told = "which attends over whole sequences" if name == "temporal" else None
        told = told or (
            "a training checkpoint; save it with save_inference_model" if "batchtopk" in str(name) else None
        )
        wanted = ", ".join(map(repr, _ARCHITECTURES))
        raise SAEFormatError(
            f"{keys.where} says architecture {name!r}{f', {told}' if told else ''}; supported: {wanted}."
        )
    if name not in ("topk", "abstopk"):
        return str(name), None
    return str(name), active(Keys({"k": k}, keys.where), options, "k", n)


def _normalisation(keys: Keys, *, undo: bool) -> Normalisation:
    value = keys.values.get("normalize_activations")
    plain = value is None or isinstance(value, bool | str)
    name = {True: "expected_average_only_in", False: "none", None: "none"}.get(value, value) if plain else None
    if name not in _NORMALISE:
        wanted = ", ".join(map(repr, _NORMALISE))
        raise SAEFormatError(f"{keys.where} says normalize_activations {value!r}; supported: {wanted}.")
    return Normalisation(_NORMALISE[str(name)], undo=undo)  # type: ignore[arg-type]


def _config(
    keys: Keys, metadata: dict[str, Any], options: Options, architecture: str, d_in: int, n: int, k: int | None
) -> SAEConfig:
    def fact(name: str, default: Any = None) -> Any:
        value = metadata.get(name)
        return keys.values.get(name, default) if value is None else value

    ours = metadata.get("saescope")
    if isinstance(ours, dict):
        if not all(isinstance(ours.get(name), list) and ours[name] for name in ("reads", "writes")):
            raise SAEFormatError(f"{keys.where} has metadata.saescope without reads and writes.")
        reads, writes = tuple(map(str, ours["reads"])), tuple(map(str, ours["writes"]))
    else:
        reads = (_hook(keys, fact, ""),) if not options.hook else (options.hook,)
        transcoder = "transcoder" in architecture
        writes = (_hook(keys, fact, "_out") if transcoder and not options.hook else reads[0],)
    extra: dict[str, Any] = {"k": k} if k else {}
    if keys.values.get("normalize_activations") in (True, "expected_average_only_in"):
        extra["warning"] = "normalize_activations expected_average_only_in: the folder holds no factor, none is applied"
    signed = architecture == "abstopk"
    if isinstance(ours, dict):
        extra |= ours.get("extra", {})
        architecture = str(ours.get("architecture", architecture))
    stored = SAEConfig(
        architecture={"standard": "relu"}.get(architecture, architecture),
        d_in=d_in,
        n_latents=n,
        reads=reads,
        writes=writes,
        subject=options.subject or str(fact("model_name") or "unknown"),
        prepend_bos=bool(fact("prepend_bos", True)),
        context=fact("context_size"),
        signed=signed,
        heads=ours.get("heads") if isinstance(ours, dict) else None,
        extra=extra,
    )
    return rehooked(stored, options.hook, None) if isinstance(ours, dict) else stored


def _hook(keys: Keys, fact: Any, side: str) -> str:
    if named := fact(f"hf_hook_name{side}"):
        return f"{named}:out" if ":" not in str(named) else str(named)
    name = fact(f"hook_name{side}") or (fact("hook_point") if not side else None)
    if not name and side:
        return _hook(keys, fact, "")
    if not name:
        raise SAEFormatError(f"{keys.where} has no hook_name; give --hook.")
    return str(name)


def can_write(sae: SAE) -> bool:
    """Whether sae_lens has a class that computes what ``sae`` computes."""
    one = len(sae.config.reads) == 1 and len(sae.config.writes) == 1
    if isinstance(sae, MatchingPursuit):
        plain = sae.normalise.kind in ("none", "unit_norm", "layer_norm") and sae.normalise.undo
        return one and plain and sae.relu and (sae.subtract_b_dec or not sae.b_dec.any())
    kind: type = type(sae)
    if not isinstance(sae, Linear) or not one or sae.normalise.kind == "scale":
        return False
    if is_transcoder(sae):
        kinds = (kind is ReLU, isinstance(sae, JumpReLU) and not sae.inclusive)
        return any(kinds) and not sae.subtract_b_dec and (sae.normalise.kind == "none" or not sae.normalise.undo)
    if not sae.normalise.undo and sae.normalise.kind != "none":
        return False
    if isinstance(sae, JumpReLU):
        return not sae.inclusive
    if isinstance(sae, TopK):
        return sae.relu != sae.by_magnitude
    return kind in (ReLU, Gated)


def is_transcoder(sae: Linear) -> bool:
    return sae.config.reads != sae.config.writes or sae.W_skip is not None or sae.W_dec.shape[1] != sae.config.d_in


def write(
    folder: Path, sae: SAE, *, matrices: torch.dtype | None = None, metadata: dict[str, Any] | None = None
) -> None:
    """Write ``sae``, for which ``can_write`` holds. Matrices in ``matrices``, or, where that is None, in bf16 if they
    are exact in it and fp32 if not; vectors in fp32, where rounding would add up."""
    cfg: dict[str, Any] = {
        "architecture": _name(sae),
        "d_in": sae.config.d_in,
        "d_sae": sae.config.n_latents,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": sae.subtract_b_dec,  # type: ignore[attr-defined]
        "normalize_activations": {kind: name for name, kind in _NORMALISE.items() if kind != "none"}.get(
            sae.normalise.kind, "none"  # type: ignore[attr-defined]
        ),
        "reshape_activations": "none",
    }  # fmt: skip
    tensors: dict[str, Tensor] = {"W_dec": sae.W_dec, "b_dec": sae.b_dec}  # type: ignore[attr-defined]
    match sae:
        case MatchingPursuit():
            cfg |= {
                "residual_threshold": sae.residual_threshold,
                "max_iterations": sae.steps,
                "stop_on_duplicate_support": sae.stop_on_repeat,
            }
        case Linear():
            tensors["W_enc"] = sae.W_enc
            if not isinstance(sae, Gated):
                tensors["b_enc"] = sae.b_enc
            if sae.W_skip is not None:
                tensors["W_skip"] = sae.W_skip
            if is_transcoder(sae):
                cfg["d_out"] = sae.W_dec.shape[1]
    match sae:
        case TopK():
            cfg |= {"k": sae.k, "rescale_acts_by_decoder_norm": sae.rescale_by_decoder_norm}
        case JumpReLU():
            tensors["threshold"] = sae.threshold.expand(sae.config.n_latents)
        case Gated():
            tensors |= {"b_gate": sae.b_gate, "b_mag": sae.b_mag, "r_mag": sae.r_mag}
    cfg["metadata"] = _metadata(sae) | (metadata or {})
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / (WEIGHTS + ".partial")
    save_file({name: _stored(tensor, matrices) for name, tensor in tensors.items()}, partial)
    partial.rename(folder / WEIGHTS)
    (folder / CONFIG).write_text(json.dumps(cfg, indent=2) + "\n")


def _stored(tensor: Tensor, matrices: torch.dtype | None) -> Tensor:
    made = tensor.detach().cpu().float().contiguous()
    if made.ndim < 2:
        return made.clone()
    if matrices is not None:
        return made.to(matrices)
    half = made.bfloat16()
    return half if half.float().equal(made) else made


def _name(sae: SAE) -> str:
    if isinstance(sae, MatchingPursuit):
        return "matching_pursuit"
    assert isinstance(sae, Linear)
    if is_transcoder(sae):
        jump, skip = isinstance(sae, JumpReLU), sae.W_skip is not None
        return f"{'jumprelu_' if jump else ''}{'skip_' if skip else ''}transcoder"
    if isinstance(sae, TopK):
        return "abstopk" if sae.by_magnitude else "topk"
    return {ReLU: "standard", JumpReLU: "jumprelu", Gated: "gated"}[type(sae)]


def _metadata(sae: SAE) -> dict[str, Any]:
    c = sae.config
    hooks = {"hook_name": saelens_hook(c.reads[0])}
    if c.reads[0].endswith(":out"):
        hooks["hf_hook_name"] = c.reads[0].rpartition(":")[0]
    if c.writes != c.reads:
        hooks["hook_name_out"] = saelens_hook(c.writes[0])
    return {
        "sae_lens_version": VERSION,
        "model_name": c.subject,
        **hooks,
        "prepend_bos": c.prepend_bos,
        "context_size": c.context,
        "saescope": {
            "reads": list(c.reads),
            "writes": list(c.writes),
            "architecture": c.architecture,
            "heads": c.heads,
            "extra": c.extra,
        },
    }


def saelens_hook(point: str) -> str:
    """``model.layers.9:out`` -> ``blocks.9.hook_resid_post``; other hook points as they are."""
    match = re.fullmatch(r"(?:.*\.)?(?:layers|h|blocks)\.(\d+):(in|out)", point)
    return f"blocks.{match[1]}.hook_resid_{'pre' if match[2] == 'in' else 'post'}" if match else point
