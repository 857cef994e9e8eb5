"""OpenAI sparse_autoencoder: one ``.pt`` with encoder.weight, latent_bias, pre_bias, decoder.weight, activation.

TopK models normalise their input like a LayerNorm without gain and undo it; older ReLU models do not
(the repository decides by the activation's name).
"""

from typing import Any

from app.sae.base import SAE, SAEConfig, SAEFormatError
from app.sae.formats.files import Keys, Options, Source, Tensors, active
from app.sae.normalise import Normalisation
from app.sae.relu import ReLU
from app.sae.topk import TopK

NAME, DETAIL = "openai", "OpenAI sparse_autoencoder: one .pt file"


def recognise(source: Source) -> bool:
    name = source.first(".pt")
    return bool(name) and {"latent_bias", "pre_bias"} <= set(source.tensors(name or ""))


def read(source: Source, options: Options) -> SAE:
    """encoder.weight [n, d], latent_bias [n], pre_bias [d], decoder.weight [d, n]; activation 'TopK' with
    activation_state_dict {k, postact_fn}, or 'ReLU'."""
    name = source.first(".pt")
    assert name is not None
    values = source.tensors(name)
    where = source.folder / name
    activation = str(values.pop("activation", "ReLU"))
    state: dict[str, Any] = values.pop("activation_state_dict", {}) or {}
    tensors = Tensors(values, where)
    n, d = tensors.shape("encoder.weight", 2)
    if options.hook is None:
        raise SAEFormatError(f"{where} does not say where the SAE reads; give --hook.")
    if activation not in ("TopK", "ReLU"):
        raise SAEFormatError(f"{where} says activation {activation!r}; supported: 'TopK', 'ReLU'.")
    k = active(Keys(state, str(where)), options, "k", n) if activation == "TopK" else None
    postact = str(state.get("postact_fn", "ReLU"))
    if postact not in ("ReLU", "Identity"):
        raise SAEFormatError(f"{where} says postact_fn {postact!r}; supported: 'ReLU', 'Identity'.")
    config = SAEConfig(
        architecture=activation.lower(), d_in=d, n_latents=n, reads=(options.hook,), writes=(options.hook,),
        subject=options.subject or "unknown", signed=postact == "Identity",
        extra={"k": k} if activation == "TopK" else {},
    )  # fmt: skip
    weights: dict[str, Any] = {
        "W_enc": tensors.take("encoder.weight", n, d).T.contiguous(),
        "b_enc": tensors.take("latent_bias", n),
        "W_dec": tensors.take("decoder.weight", d, n).T.contiguous(),
        "b_dec": tensors.take("pre_bias", d),
    }
    tensors.known("stats_last_nonzero")
    tensors.finish(options)
    if activation == "ReLU":
        return ReLU(config, **weights)
    assert isinstance(k, int)
    return TopK(config, **weights, normalise=Normalisation("layer_norm"), k=k, relu=postact == "ReLU")
