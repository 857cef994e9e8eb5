"""dictionary_learning (saprmarks): ``ae.pt``, a state_dict, and ``config.json`` with trainer and buffer.

trainer.dict_class says what is computed, submodule_name and layer where. Also its descendants SwitchAutoEncoder
(amudide/switch_sae) and VSAETopK (vSAE).
"""

import re
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from app.sae.base import SAE, SAEConfig, SAEFormatError
from app.sae.formats.files import Keys, Options, Source, Tensors, active
from app.sae.gated import Gated
from app.sae.jumprelu import JumpReLU
from app.sae.relu import ReLU
from app.sae.switch import Switch
from app.sae.topk import TopK

NAME, DETAIL = "dictionary_learning", "dictionary_learning and its descendants: ae.pt, config.json"
_TRAINING = (
    "trainer_class", "lr", "seed", "device", "wandb_name", "steps", "warmup_steps", "decay_start", "l1_penalty",
    "resample_steps", "sparsity_warmup_steps", "auxk_alpha", "threshold_beta", "threshold_start_step", "top_k_aux",
    "group_fractions", "group_weights", "group_sizes", "bandwidth", "sparsity_penalty", "target_l0",
    "sparsity_function", "p_start", "p_end", "anneal_start", "sparsity_queue_length", "n_sparsity_updates", "p",
    "next_p", "lp_loss", "scaled_lp_loss", "sparsity_loss", "initial_sparsity_penalty", "lb_alpha", "kl_coeff",
    "var_flag", "use_april_update_mode", "activation_dim", "dict_size", "lm_name", "layer", "submodule_name", "k",
    "experts", "heaviside", "dtype", "log_var_init", "kl_warmup_steps", "model_config", "gradient_clip_norm",
)  # fmt: skip


def recognise(source: Source) -> bool:
    return source.has("ae.pt", "config.json")


def read(source: Source, options: Options) -> SAE:
    """The SAE of trainer.dict_class; sizes come from the tensors and must agree with the config."""
    whole = source.json("config.json")
    if not isinstance(whole.get("trainer"), dict):
        raise SAEFormatError(f"config.json in {source.folder} has no 'trainer', so its dict_class is unknown.")
    keys = Keys(whole["trainer"], f"config.json in {source.folder} (trainer)")
    kind = keys.choice("dict_class", CLASSES)
    tensors = Tensors(source.tensors("ae.pt"), source.folder / "ae.pt")
    encoder = "W_enc" if "W_enc" in tensors else "encoder.weight"
    shape = tensors.shape(encoder, 2)
    d, n = shape if encoder == "W_enc" else shape[::-1]
    stated = keys.whole("activation_dim", d), keys.whole("dict_size", n)
    if stated != (d, n):
        raise SAEFormatError(
            f"{keys.where} says activation_dim {stated[0]}, dict_size {stated[1]}; {encoder} is {list(shape)}."
        )
    buffer = whole.get("buffer")
    hook = options.hook or hook_of(keys, buffer if isinstance(buffer, dict) else {})

    def config(architecture: str, **extra: Any) -> SAEConfig:
        signed = bool(extra.pop("signed", False))
        return SAEConfig(
            architecture=architecture, d_in=d, n_latents=n, reads=(hook,), writes=(hook,),
            subject=options.subject or str(keys.get("lm_name", "unknown")), signed=signed, extra=extra,
        )  # fmt: skip

    made = CLASSES[kind](keys, tensors, options, config, d, n)
    keys.known(*_TRAINING)
    keys.finish(options)
    tensors.finish(options)
    return made


Config = Callable[..., SAEConfig]


def _weights(tensors: Tensors, d: int, n: int, bias: str | None) -> dict[str, Any]:
    """Linear layers' names; ``bias`` is what is added at the end."""
    return {
        "W_enc": tensors.take("encoder.weight", n, d).T.contiguous(),
        "b_enc": tensors.take("encoder.bias", n),
        "W_dec": tensors.take("decoder.weight", d, n).T.contiguous(),
        "b_dec": tensors.take(bias, d) if bias else torch.zeros(d),
    }


def _matrices(tensors: Tensors, d: int, n: int) -> dict[str, Any]:
    return {
        "W_enc": tensors.take("W_enc", d, n), "b_enc": tensors.take("b_enc", n),
        "W_dec": tensors.take("W_dec", n, d), "b_dec": tensors.take("b_dec", d),
    }  # fmt: skip


def _k(keys: Keys, tensors: Tensors, options: Options, n: int) -> int:
    if "k" in tensors:
        k = int(tensors.scalar("k"))
        if keys.get("k", k) != k:
            raise SAEFormatError(f"{keys.where} says k {keys.get('k')}; ae.pt says {k}.")
        return active(Keys({"k": k}, tensors.where), options, "k", n)
    return active(keys, options, "k", n)


def _threshold(tensors: Tensors) -> Tensor:
    value = tensors.scalar("threshold")
    if value < 0:
        raise SAEFormatError(
            f"'threshold' in {tensors.where} is {value:g}: it was never set, and every positive latent would count as "
            "active; train further than threshold_start_step, or save it as a TopK SAE."
        )
    return torch.tensor(value)


def _autoencoder(keys: Keys, tensors: Tensors, options: Options, config: Config, d: int, n: int) -> SAE:
    return ReLU(config("relu"), **_weights(tensors, d, n, "bias"))


def _autoencoder_new(keys: Keys, tensors: Tensors, options: Options, config: Config, d: int, n: int) -> SAE:
    return ReLU(config("relu"), **_weights(tensors, d, n, "decoder.bias"), subtract_b_dec=False)


def _gated(keys: Keys, tensors: Tensors, options: Options, config: Config, d: int, n: int) -> SAE:
    return Gated(
        config("gated"),
        W_enc=tensors.take("encoder.weight", n, d).T.contiguous(),
        b_enc=torch.zeros(n),
        W_dec=tensors.take("decoder.weight", d, n).T.contiguous(),
        b_dec=tensors.take("decoder_bias", d),
        b_gate=tensors.take("gate_bias", n),
        b_mag=tensors.take("mag_bias", n),
        r_mag=tensors.take("r_mag", n),
    )


def _topk(keys: Keys, tensors: Tensors, options: Options, config: Config, d: int, n: int) -> SAE:
    k = _k(keys, tensors, options, n)
    tensors.known("threshold")  # the library selects the top k whatever it says
    return TopK(config("topk", k=k), **_weights(tensors, d, n, "b_dec"), k=k)


def _batchtopk(keys: Keys, tensors: Tensors, options: Options, config: Config, d: int, n: int) -> SAE:
    k = _k(keys, tensors, options, n)
    return JumpReLU(config("batchtopk", k=k), **_weights(tensors, d, n, "b_dec"), threshold=_threshold(tensors))


def _matryoshka(keys: Keys, tensors: Tensors, options: Options, config: Config, d: int, n: int) -> SAE:
    sizes = keys.get("group_sizes", [])
    tensors.known("group_sizes")
    return JumpReLU(
        config("matryoshka_batchtopk", k=_k(keys, tensors, options, n), groups=", ".join(map(str, sizes))),
        **_matrices(tensors, d, n),
        threshold=_threshold(tensors),
    )


def _jumprelu(keys: Keys, tensors: Tensors, options: Options, config: Config, d: int, n: int) -> SAE:
    return JumpReLU(
        config("jumprelu"), **_matrices(tensors, d, n), subtract_b_dec=False, threshold=tensors.take("threshold", n)
    )


def _switch(keys: Keys, tensors: Tensors, options: Options, config: Config, d: int, n: int) -> SAE:
    k, experts = active(keys, options, "k", n), keys.whole("experts")
    if n % experts:
        raise SAEFormatError(f"{keys.where} says experts {experts}, which does not divide the {n} latents.")
    return Switch(
        config("switch", k=k, experts=experts),
        W_enc=tensors.take("encoder.weight", n, d).T.contiguous(),
        b_enc=torch.zeros(n),
        W_dec=tensors.take("decoder", n, d),
        b_dec=tensors.take("b_dec", d),
        router=tensors.take("router.weight", experts, d),
        b_router=tensors.take("b_router", d),
        k=k,
        heaviside=keys.flag("heaviside", False),
    )


def _vsae(keys: Keys, tensors: Tensors, options: Options, config: Config, d: int, n: int) -> SAE:
    """The means of the posterior, never sampled. The state_dict cannot tell the revision without relu: its config
    says relu false."""
    k, relu = _k(keys, tensors, options, n), keys.flag("relu", True)
    april = "decoder.bias" in tensors
    tensors.known("threshold", "var_encoder.weight", "var_encoder.bias")
    return TopK(
        config("vsae", k=k, signed=not relu),
        **_weights(tensors, d, n, "decoder.bias" if april else "b_dec"),
        subtract_b_dec=not april,
        k=k,
        relu=relu,
    )


CLASSES: dict[str, Callable[[Keys, Tensors, Options, Config, int, int], SAE]] = {
    "AutoEncoder": _autoencoder,
    "AutoEncoderNew": _autoencoder_new,
    "GatedAutoEncoder": _gated,
    "AutoEncoderTopK": _topk,
    "BatchTopKSAE": _batchtopk,
    "MatryoshkaBatchTopKSAE": _matryoshka,
    "JumpReluAutoEncoder": _jumprelu,
    "SwitchAutoEncoder": _switch,
    "VSAETopK": _vsae,
}


def hook_of(keys: Keys, buffer: dict[str, Any]) -> str:
    """``resid_post_layer_3``, ``mlp_out_layer_3``, ``attention_out_layer_3`` or a module path, with buffer.io."""
    name, layer = str(keys.get("submodule_name", "")), keys.get("layer")
    side = "in" if buffer.get("io") == "in" else "out"
    if found := re.fullmatch(r"(resid_post|resid_pre|mlp_out|mlp|attention_out|attn_out|attn)_layer_?(\d+)", name):
        site = {"resid_post": "resid_post", "resid_pre": "resid_pre"}.get(found[1])
        return f"blocks.{found[2]}.hook_{site or ('mlp_out' if 'mlp' in found[1] else 'attn_out')}"
    if "." in name:
        return f"{name}:{side}"
    if layer is None:
        raise SAEFormatError(f"{keys.where} has neither submodule_name nor layer; give --hook.")
    return f"blocks.{layer}.hook_resid_post"
