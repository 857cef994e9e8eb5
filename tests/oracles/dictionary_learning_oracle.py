"""Reference checkpoints and outputs of dictionary-learning.

Run: python dictionary_learning_oracle.py OUT

Writes OUT/<case>/trainer_0/{ae.pt, config.json} with the library's own trainSAE
(zero steps, so the weights stay as made here), OUT/<case>.safetensors with fixed
inputs and the outputs of the checkpoint loaded back, and OUT/cases.json.
"""

import json
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import torch
from dictionary_learning.buffer import ActivationBuffer
from dictionary_learning.dictionary import (
    AutoEncoder,
    AutoEncoderNew,
    Dictionary,
    GatedAutoEncoder,
    JumpReluAutoEncoder,
)
from dictionary_learning.trainers.batch_top_k import BatchTopKSAE, BatchTopKTrainer
from dictionary_learning.trainers.gdm import GatedSAETrainer
from dictionary_learning.trainers.jumprelu import JumpReluTrainer
from dictionary_learning.trainers.matryoshka_batch_top_k import (
    MatryoshkaBatchTopKSAE,
    MatryoshkaBatchTopKTrainer,
)
from dictionary_learning.trainers.standard import StandardTrainer, StandardTrainerAprilUpdate
from dictionary_learning.trainers.top_k import AutoEncoderTopK, TopKTrainer
from dictionary_learning.training import trainSAE
from dictionary_learning.utils import load_dictionary
from safetensors.torch import save_file
from torch import Tensor

D_IN, N_LATENTS, N_TOKENS, K = 12, 40, 16, 5
TRAINER = {
    "steps": 10_000,
    "activation_dim": D_IN,
    "dict_size": N_LATENTS,
    "layer": 3,
    "lm_name": "EleutherAI/pythia-70m-deduped",
    "submodule_name": "resid_post_layer_3",
    "device": "cpu",
    "seed": 0,
}
TOPK = {**TRAINER, "k": K}
MATRYOSHKA = {**TOPK, "group_fractions": [0.2, 0.3, 0.5]}

# case: trainer class, its arguments, dictionary class, threshold, note
Case = tuple[type, dict[str, object], type[Dictionary], float | None, str]
CASES: dict[str, Case] = {
    "dl-autoencoder": (
        StandardTrainer,
        TRAINER,
        AutoEncoder,
        None,
        "relu((x - bias) W_enc + b_enc). acts: weights as saved; acts_load_dictionary: what "
        "load_dictionary gives, which moves the decoder norms into the encoder (same x_hat).",
    ),
    "dl-autoencoder-new": (
        StandardTrainerAprilUpdate,
        TRAINER,
        AutoEncoderNew,
        None,
        "No subtraction of a bias; decoder.bias is added. features_output multiplies acts by the "
        "decoder norms, as forward(output_features=True) does. No trainer of this version writes "
        "this dict_class: it is set in config.json here.",
    ),
    "dl-gated": (
        GatedSAETrainer,
        TRAINER,
        GatedAutoEncoder,
        None,
        "Gate 1[u + gate_bias > 0] times relu(exp(r_mag) u + mag_bias), u = (x - decoder_bias) "
        "W_enc; gate is relu(u + gate_bias).",
    ),
    "dl-jumprelu": (
        JumpReluTrainer,
        TRAINER,
        JumpReluAutoEncoder,
        None,
        "relu(a 1[a > threshold]), one threshold per latent, two of them negative; b_dec is not subtracted.",
    ),
    "dl-topk": (
        TopKTrainer,
        TOPK,
        AutoEncoderTopK,
        -1.0,
        "threshold -1 (unset): encode takes the top k; acts_use_threshold keeps all positive ones.",
    ),
    "dl-topk-threshold": (
        TopKTrainer,
        TOPK,
        AutoEncoderTopK,
        0.4,
        "threshold 0.4: encode and forward still take the top k; acts_use_threshold is encode(use_threshold=True).",
    ),
    "dl-batchtopk": (
        BatchTopKTrainer,
        TOPK,
        BatchTopKSAE,
        -1.0,
        "threshold -1 (unset): encode keeps every positive latent; acts_batch_topk is encode("
        "use_threshold=False) on these tokens as one batch.",
    ),
    "dl-batchtopk-threshold": (
        BatchTopKTrainer,
        TOPK,
        BatchTopKSAE,
        0.4,
        "threshold 0.4: a 1[a > threshold] after the relu.",
    ),
    "dl-matryoshka": (
        MatryoshkaBatchTopKTrainer,
        MATRYOSHKA,
        MatryoshkaBatchTopKSAE,
        0.4,
        "threshold 0.4, groups of 8, 12 and 20 latents. active_groups is not saved: acts has all "
        "groups active, acts_active_groups_2 and x_hat_active_groups_2 only the first two.",
    ),
}


class NoData:
    """Stands in for the activation buffer: no activations, but the config a buffer has."""

    config = ActivationBuffer.config.fget(
        SimpleNamespace(
            d_submodule=D_IN,
            io="out",
            n_ctxs=500,
            ctx_len=128,
            refresh_batch_size=64,
            out_batch_size=2048,
            device="cpu",
        )
    )

    def __iter__(self) -> Iterator[Tensor]:
        return iter(())


def filled(
    dict_class: type[Dictionary], threshold: float | None, generator: torch.Generator
) -> Callable[..., Dictionary]:
    """A factory of random dictionaries: decoder norms 0.5..2, non-zero biases, thresholds set."""

    def randn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    @torch.no_grad()
    def make(*args: object, **kwargs: object) -> Dictionary:
        ae = dict_class(*args, **kwargs)
        direction = torch.nn.functional.normalize(randn(N_LATENTS, D_IN), dim=1)
        decoder = direction * (0.5 + 1.5 * torch.rand((N_LATENTS, 1), generator=generator))
        for name, tensor in ae.named_parameters():
            match name:
                case "encoder.weight":
                    tensor.copy_(randn(N_LATENTS, D_IN) / D_IN**0.5)
                case "W_enc":
                    tensor.copy_(randn(D_IN, N_LATENTS) / D_IN**0.5)
                case "decoder.weight":
                    tensor.copy_(decoder.T)
                case "W_dec":
                    tensor.copy_(decoder)
                case "threshold":
                    tensor.copy_(0.05 + 0.45 * torch.rand(N_LATENTS, generator=generator))
                    tensor[[4, 17]] *= -1.0
                case _:
                    tensor.copy_(0.3 * randn(*tensor.shape))
        if threshold is not None:
            ae.threshold.fill_(threshold)
        return ae

    return make


@torch.no_grad()
def outputs(folder: Path, x: Tensor) -> dict[str, Tensor]:
    """x: [tokens, d_in] -> acts: [tokens, n_latents], x_hat: [tokens, d_in] and the variants."""
    ae, _ = load_dictionary(str(folder), device="cpu")
    extra: dict[str, Tensor] = {}
    match ae:
        case AutoEncoder():
            extra["acts_load_dictionary"] = ae.encode(x)
            ae = AutoEncoder.from_pretrained(folder / "ae.pt", normalize_decoder=False)
        case AutoEncoderNew():
            extra["features_output"] = ae(x, output_features=True)[1]
        case GatedAutoEncoder():
            extra["gate"] = ae.encode(x, return_gate=True)[1]
        case AutoEncoderTopK():
            extra["acts_use_threshold"] = ae.encode(x, use_threshold=True)
        case BatchTopKSAE():
            extra["acts_batch_topk"] = ae.encode(x, use_threshold=False)
        case MatryoshkaBatchTopKSAE():
            all_groups = ae.active_groups
            ae.active_groups = 2
            extra["acts_active_groups_2"] = ae.encode(x)
            extra["x_hat_active_groups_2"] = ae(x)
            ae.active_groups = all_groups
    return {"x": x, "acts": ae.encode(x), "x_hat": ae(x), **extra}


def main(out: Path) -> None:
    cases = {}
    for seed, (case, spec) in enumerate(CASES.items()):
        trainer, arguments, dict_class, threshold, note = spec
        generator = torch.Generator().manual_seed(seed)
        trainSAE(
            data=NoData(),
            trainer_configs=[
                {
                    "trainer": trainer,
                    "dict_class": filled(dict_class, threshold, generator),
                    **arguments,
                }
            ],
            steps=0,
            save_dir=str(out / case),
            device="cpu",
        )
        folder = out / case / "trainer_0"
        if dict_class is AutoEncoderNew:
            config = json.loads((folder / "config.json").read_text())
            config["trainer"]["dict_class"] = "AutoEncoderNew"
            (folder / "config.json").write_text(json.dumps(config, indent=4))
        x = 1.5 * torch.randn((N_TOKENS, D_IN), generator=generator) + 0.3
        tensors = {k: v.contiguous() for k, v in outputs(folder, x).items()}
        save_file(tensors, out / f"{case}.safetensors")
        cases[case] = {
            "library": "dictionary-learning",
            "version": version("dictionary-learning"),
            "class": dict_class.__name__,
            "trainer": trainer.__name__,
            "note": note,
        }
    (out / "cases.json").write_text(json.dumps(cases, indent=2) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
