"""Reference checkpoints and outputs of eai-sparsify.

Run: python sparsify_oracle.py OUT

Writes OUT/<case>/<hookpoint>/{cfg.json, sae.safetensors} with the library's
save_to_disk, OUT/<case>.safetensors with fixed inputs and the outputs of the
checkpoint loaded back, and OUT/cases.json. Set SPARSIFY_DISABLE_TRITON=1 where
the library would otherwise decode with Triton.
"""

import json
import sys
from importlib.metadata import version
from pathlib import Path

import torch
from safetensors.torch import save_file
from sparsify import SparseCoder, SparseCoderConfig
from torch import Tensor

D_IN, N_LATENTS, N_TOKENS, K = 12, 40, 16, 5

CASES: dict[str, tuple[str, dict[str, object], str]] = {
    "sparsify-topk": (
        "layers.3",
        {},
        "TopK autoencoder: b_dec is subtracted from the input and added to the output.",
    ),
    "sparsify-topk-transcode": (
        "layers.3.mlp",
        {"transcode": True},
        "Transcoder: b_dec is only added to the output, never subtracted from the input.",
    ),
    "sparsify-topk-skip": (
        "layers.3",
        {"skip_connection": True},
        "Autoencoder with W_skip, which multiplies the input before b_dec is subtracted.",
    ),
    "sparsify-transcode-skip": (
        "layers.3.mlp",
        {"transcode": True, "skip_connection": True},
        "Skip transcoder: x_hat = f W_dec + b_dec + x W_skip^T.",
    ),
    "sparsify-groupmax": (
        "layers.3",
        {"activation": "groupmax"},
        "The largest of each of k contiguous groups of n / k latents, after the relu.",
    ),
    "sparsify-expansion-factor": (
        "layers.3/seed7",
        {"num_latents": 0, "expansion_factor": 3},
        "num_latents 0, so n = d_in * expansion_factor = 36; folder of a run with several seeds.",
    ),
    "sparsify-k-above-positive": (
        "layers.3",
        {"k": 27},
        "k exceeds the number of positive pre-activations, so some selected latents are 0.",
    ),
    "sparsify-signed": (
        "layers.3",
        {},
        "cfg.json has the legacy key signed = true, which this version drops (acts: plain TopK); "
        "acts_signed and x_hat_signed follow the rule of the releases that still had the flag.",
    ),
}


def make(overrides: dict[str, object], generator: torch.Generator) -> SparseCoder:
    """A random coder: decoder rows of norm 0.5..2, non-zero biases, W_skip if asked for."""
    cfg = SparseCoderConfig(**{"num_latents": N_LATENTS, "k": K, **overrides})
    coder = SparseCoder(D_IN, cfg, dtype=torch.float32)
    n = coder.num_latents

    def randn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    direction = torch.nn.functional.normalize(randn(n, D_IN), dim=1)
    with torch.no_grad():
        coder.encoder.weight.copy_(randn(n, D_IN) / D_IN**0.5)
        coder.encoder.bias.copy_(0.3 * randn(n))
        coder.W_dec.copy_(direction * (0.5 + 1.5 * torch.rand((n, 1), generator=generator)))
        coder.b_dec.copy_(0.3 * randn(D_IN))
        if coder.W_skip is not None:
            coder.W_skip.copy_(randn(D_IN, D_IN) / D_IN**0.5)
    return coder


@torch.no_grad()
def outputs(coder: SparseCoder, x: Tensor) -> dict[str, Tensor]:
    """x: [tokens, d_in] -> acts: [tokens, n_latents], x_hat: [tokens, d_in]."""
    encoded = coder.encode(x)
    acts = torch.zeros_like(encoded.pre_acts)
    acts.scatter_(-1, encoded.top_indices, encoded.top_acts)
    tensors = {"x": x, "acts": acts, "x_hat": coder(x).sae_out}
    if coder.cfg.activation == "groupmax":  # column j is the latent chosen from group j
        tensors["top_indices"] = encoded.top_indices
    return tensors


@torch.no_grad()
def signed_outputs(coder: SparseCoder, x: Tensor) -> dict[str, Tensor]:
    """The rule of the releases before 1.0 for `signed`: the k largest by |a|, sign kept, no relu.

    x: [tokens, d_in] -> acts_signed: [tokens, n_latents], x_hat_signed: [tokens, d_in]. Only the
    selection is restated here; the linear encoder and the decoder are the library's.
    """
    pre_acts = coder.encoder(x - coder.b_dec)
    top_indices = pre_acts.abs().topk(coder.cfg.k, dim=-1).indices
    top_acts = pre_acts.gather(-1, top_indices)
    acts = torch.zeros_like(pre_acts).scatter_(-1, top_indices, top_acts)
    return {"acts_signed": acts, "x_hat_signed": coder.decode(top_acts, top_indices)}


def main(out: Path) -> None:
    cases = {}
    for seed, (case, (hookpoint, overrides, note)) in enumerate(CASES.items()):
        generator = torch.Generator().manual_seed(seed)
        folder = out / case / hookpoint
        make(overrides, generator).save_to_disk(folder)
        if case == "sparsify-signed":
            cfg_path = folder / "cfg.json"
            cfg_path.write_text(json.dumps({**json.loads(cfg_path.read_text()), "signed": True}))
        x = 1.5 * torch.randn((N_TOKENS, D_IN), generator=generator) + 0.3
        coder = SparseCoder.load_from_disk(folder)
        tensors = outputs(coder, x)
        if case == "sparsify-signed":
            tensors |= signed_outputs(coder, x)
        save_file({k: v.contiguous() for k, v in tensors.items()}, out / f"{case}.safetensors")
        cases[case] = {
            "library": "eai-sparsify",
            "version": version("eai-sparsify"),
            "class": "SparseCoder",
            "hookpoint": hookpoint,
            "note": note,
        }
    (out / "cases.json").write_text(json.dumps(cases, indent=2) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
