"""RecSAE (sequential recommenders): a state_dict with encoder.weight, encoder.bias, W_dec, b_dec. TopK over
relu(encoder(x - b_dec)); the file does not hold k, so a JSON beside it ({"sae_k": ...}) or --k says it."""

from app.sae.base import SAE, SAEConfig, SAEFormatError
from app.sae.formats.files import Keys, Options, Source, Tensors, active
from app.sae.topk import TopK

NAME, DETAIL = "recsae", "RecSAE: a state_dict .pt, with sae_k in a JSON beside it or --k"


def recognise(source: Source) -> bool:
    name = source.first(".pt") or source.first(".pth")
    return bool(name) and {"encoder.weight", "encoder.bias", "W_dec", "b_dec"} <= set(source.tensors(name or ""))


def read(source: Source, options: Options) -> SAE:
    name = source.first(".pt") or source.first(".pth")
    assert name is not None
    tensors = Tensors(source.tensors(name), source.folder / name)
    n, d = tensors.shape("encoder.weight", 2)
    sidecar = source.first(".json") or next((x for x in source.names() if x.endswith(".json")), None)
    keys = Keys(
        source.json(sidecar) if sidecar else {}, f"{sidecar} in {source.folder}" if sidecar else str(source.folder)
    )
    says = "k" if keys.get("sae_k") is None else "sae_k"
    if options.k is None and keys.get(says) is None:
        raise SAEFormatError(f"{source.folder / name} does not hold k; give --k, or sae_k in a JSON beside it.")
    k = active(keys, options, says, n)
    hook = options.hook or str(keys.get("hook", ""))
    if not hook:
        raise SAEFormatError(f"{source.folder / name} does not say where the SAE reads; give --hook.")
    keys.known("sae_scale_size", "model_name", "k", "sae_k", "hook")
    keys.finish(options)
    sae = TopK(
        SAEConfig(
            architecture="topk", d_in=d, n_latents=n, reads=(hook,), writes=(hook,),
            subject=options.subject or str(keys.get("model_name", "unknown")), extra={"k": k},
        ),
        W_enc=tensors.take("encoder.weight", n, d).T.contiguous(),
        b_enc=tensors.take("encoder.bias", n),
        W_dec=tensors.take("W_dec", n, d),
        b_dec=tensors.take("b_dec", d),
        k=k,
    )  # fmt: skip
    tensors.finish(options)
    return sae
