"""Write tiny reference SAE checkpoints made, saved, loaded and run by the real sae-lens library.

Run:  python saelens_oracle.py OUT

For each case it writes OUT/<case>/ (cfg.json and sae_weights.safetensors as the library saves them),
OUT/<case>.safetensors (x, acts = encode(x), x_hat = forward(x), and what else the case's note names)
and OUT/cases.json. The values come from the checkpoint as the library loads it back, in fp32.
Needs torch and sae-lens 6. The seed is fixed: two runs write the same tensors (the library orders the keys of
some cfg.json by hash, so their bytes may differ unless PYTHONHASHSEED is set).
"""

import json
import logging
import sys
import warnings
from pathlib import Path
from typing import Any

import sae_lens
import torch
from sae_lens import SAE, SAEConfig, TrainingSAE
from sae_lens.registry import get_sae_class, get_sae_training_class
from sae_lens.saes.sae import SAEMetadata
from safetensors.torch import save_file
from torch import Tensor

N, D_IN, D_OUT, N_LATENTS, K = 16, 12, 10, 40, 5
N_HEADS, N_SEQUENCES = 3, 2
SEED = 300
SAE_META = {"model_name": "gpt2", "hook_name": "blocks.0.hook_resid_post", "prepend_bos": True}
TRANSCODER_META = {
    "model_name": "gpt2",
    "hook_name": "blocks.0.ln2.hook_normalized",
    "hook_name_out": "blocks.0.hook_mlp_out",
}

# case: (architecture, config fields, note); made with the inference class and save_model
INFERENCE: dict[str, tuple[str, dict[str, Any], str]] = {
    "standard": ("standard", {}, "relu, b_dec subtracted from the input"),
    "standard_no_b_dec_in": (
        "standard",
        {"apply_b_dec_to_input": False},
        "b_dec is not subtracted from the input and still added at decode",
    ),
    "standard_bfloat16": (
        "standard",
        {"dtype": "bfloat16"},
        "stored in bfloat16, loaded with dtype='float32', run in fp32",
    ),
    "standard_expected_average": (
        "standard",
        {"normalize_activations": "expected_average_only_in"},
        (
            "load_from_disk does not apply the scaling, so acts and x_hat equal the plain SAE's; acts_folded and "
            "x_hat_folded are those after the library's fold_activation_norm_scaling_factor(norm_scaling_factor)"
        ),
    ),
    "standard_constant_norm_rescale": (
        "standard",
        {"normalize_activations": "constant_norm_rescale"},
        "each token is scaled to norm sqrt(d_in) before b_dec is subtracted, and scaled back after decode",
    ),
    "standard_layer_norm": (
        "standard",
        {"normalize_activations": "layer_norm"},
        "each token is centred and divided by (unbiased std + 1e-5); decode multiplies by std and adds the mean",
    ),
    "standard_hook_z": (
        "standard",
        {"reshape_activations": "hook_z"},
        (
            "run on x_heads [16, 3, 4]; x is x_heads with the heads concatenated; x_hat_heads is what forward "
            "returns, x_hat the same flattened"
        ),
    ),
    "topk": (
        "topk",
        {"k": K},
        "b_enc is shifted down so that some tokens have fewer than k positive pre-activations: those stay below k",
    ),
    "topk_rescaled": (
        "topk",
        {"k": K, "rescale_acts_by_decoder_norm": True},
        "acts are the pre-activations times the decoder norm; decode divides by the norm; decoder not unit norm",
    ),
    "jumprelu": ("jumprelu", {}, "the last latent's pre-activation equals its threshold and is off"),
    "gated": ("gated", {}, "the last latent's gate pre-activation is exactly 0 and is off"),
    "abstopk": ("abstopk", {"k": K}, "k largest by magnitude, sign kept, no relu"),
    "matching_pursuit": (
        "matching_pursuit",
        {"residual_threshold": 2.0},
        (
            "up to d_in steps, some tokens stopped by an unchanged support, others by the residual; order [16, steps] "
            "is the latent picked at each step (-1: none), "
            "residual_norm [16, steps] the norm left after it"
        ),
    ),
    "matching_pursuit_capped": (
        "matching_pursuit",
        {
            "residual_threshold": 0.0,
            "max_iterations": K,
            "stop_on_duplicate_support": False,
            "apply_b_dec_to_input": False,
        },
        "exactly 5 steps and no b_dec at all, neither at encode nor at decode; order and residual_norm as above",
    ),
    "transcoder": ("transcoder", {"d_out": D_OUT}, "d_out differs from d_in, no b_dec at the input"),
    "skip_transcoder": ("skip_transcoder", {"d_out": D_OUT}, "forward adds x W_skip^T; x_hat_no_skip is decode(acts)"),
    "skip_transcoder_layer_norm": (
        "skip_transcoder",
        {"d_out": D_OUT, "normalize_activations": "layer_norm"},
        "the input is normalised for the encoder only: nothing is undone at decode, the skip takes the raw x",
    ),
    "jumprelu_transcoder": (
        "jumprelu_transcoder",
        {"d_out": D_OUT},
        "the last latent's pre-activation equals its threshold and is off",
    ),
    "jumprelu_skip_transcoder": (
        "jumprelu_skip_transcoder",
        {"d_out": D_OUT},
        "jumprelu (the last latent on its threshold, off) and x W_skip^T; x_hat_no_skip is decode(acts)",
    ),
    "temporal": (
        "temporal",
        {"n_heads": 2, "n_attn_layers": 2, "bottleneck_factor": 10, "kval_topk": K},
        (
            "run on x_seq [2, 8, 12], of which x, acts, z_pred and x_hat are the flattened tokens; acts are the novel "
            "codes, z_pred the predicted ones, x_hat decodes their sum, x_hat_novel is decode(acts)"
        ),
    ),
    "temporal_untied": (
        "temporal",
        {
            "n_heads": 2,
            "bottleneck_factor": 10,
            "sae_diff_type": "relu",
            "tied_weights": False,
            "apply_b_dec_to_input": False,
            "normalize_activations": "constant_scalar_rescale",
            "activation_normalization_factor": 0.5,
        },
        "own W_enc, relu novel codes, b_dec only at decode, input times 0.5 and output divided by it; tensors as above",
    ),
}

# made with the training class and save_inference_model
TRAINED: dict[str, tuple[str, dict[str, Any], str]] = {
    "topk_trained": (
        "topk",
        {"k": K, "rescale_acts_by_decoder_norm": True},
        "saving folds the decoder norms into the encoder (unit-norm W_dec) and leaves the rescale flag true",
    ),
    "batchtopk": (
        "batchtopk",
        {"k": float(K), "topk_threshold_lr": 1.0},
        "saved as jumprelu with one threshold repeated; rescaling is the default, so W_dec is folded to unit norm",
    ),
    "matryoshka_batchtopk": (
        "matryoshka_batchtopk",
        {
            "k": float(K),
            "topk_threshold_lr": 1.0,
            "matryoshka_widths": [8, 20, N_LATENTS],
            "rescale_acts_by_decoder_norm": False,
        },
        (
            "saved as jumprelu with one threshold repeated; not rescaled, so W_dec keeps its norms; the widths are "
            "only in metadata.training_architecture_details"
        ),
    ),
}

# case: (architecture whose weights are saved, the cfg.json written over the library's, note)
LEGACY: dict[str, tuple[str, dict[str, Any], str]] = {
    "legacy_topk": (
        "topk",
        {
            "hook_point": "blocks.0.hook_resid_post",
            "hook_point_layer": 0,
            "hook_point_head_index": None,
            "activation_fn_str": "topk",
            "activation_fn_kwargs": {"k": K},
            "normalize_activations": False,
        },
        "cfg.json from before version 6 without an architecture: activation_fn_str and its kwargs make it topk",
    ),
    "legacy_standard": (
        "standard",
        {
            "architecture": "standard",
            "hook_name": "blocks.0.hook_resid_post",
            "activation_fn_str": "relu",
            "normalize_activations": True,
            "finetuning_scaling_factor": False,
            "sae_lens_training_version": "3.0.0",
        },
        (
            "cfg.json before version 6: normalize_activations true is expected_average_only_in (not applied); "
            "a scaling_factor tensor of ones is dropped on loading"
        ),
    ),
}


def random_rows(rows: int, columns: int, largest: float) -> Tensor:
    """[rows, columns] with row norms spread evenly over 0.5..largest, in random order."""
    directions = torch.nn.functional.normalize(torch.randn(rows, columns), dim=1)
    norms = torch.linspace(0.5, largest, rows)[torch.randperm(rows)]
    return directions * norms[:, None]


def fill(sae: SAE[Any], case: str) -> None:
    """Give every parameter random values: the decoder not unit norm, no bias zero."""
    largest = 1.2 if case.startswith("matching_pursuit") else 2.0  # norms over sqrt(2) make the residual grow
    for name, parameter in sae.named_parameters():
        match name:
            case "W_dec":
                value = random_rows(parameter.shape[0], parameter.shape[1], largest)
            case "W_enc" | "W_skip":
                value = torch.randn(parameter.shape) * 0.3
            case "threshold":
                value = torch.linspace(0.05, 0.5, N_LATENTS)[torch.randperm(N_LATENTS)]
            case _ if "attn_layers" in name and name.endswith("weight"):
                value = torch.randn(parameter.shape) * parameter.shape[1] ** -0.5
            case _:
                value = torch.randn(parameter.shape) * 0.3
        parameter.data.copy_(value)
    if case == "topk":
        sae.b_enc.data -= 1.5
    if "jumprelu" in case:
        sae.W_enc.data[:, -1] = 0
        sae.b_enc.data[-1] = sae.threshold.data[-1]
    if case == "gated":
        sae.W_enc.data[:, -1] = 0
        sae.b_gate.data[-1] = 0
        sae.b_mag.data[-1] = 1


def config(config_class: type[SAEConfig], architecture: str, fields: dict[str, Any]) -> SAEConfig:
    is_transcoder = "transcoder" in architecture
    defaults: dict[str, Any] = {"apply_b_dec_to_input": False} if is_transcoder else {}
    hook_z = {"hook_name": "blocks.0.attn.hook_z"} if fields.get("reshape_activations") == "hook_z" else {}
    metadata = TRANSCODER_META if is_transcoder else SAE_META | hook_z
    return config_class(d_in=D_IN, d_sae=N_LATENTS, metadata=SAEMetadata(**metadata), **(defaults | fields))


def save_case(case: str, folder: Path) -> str:
    """Make the case's SAE and save it with the library; returns its note."""
    if case in TRAINED:
        architecture, fields, note = TRAINED[case]
        sae_class, config_class = get_sae_training_class(architecture)
        trained = sae_class(config(config_class, architecture, fields))
        fill(trained, case)
        if "batchtopk" in case:  # one update with rate 1 sets the threshold to the smallest act of another batch
            trained.update_topk_threshold(trained.encode(torch.randn(64, D_IN) * 1.5 + 0.3))
        trained.save_inference_model(folder)
        return note
    legacy_cfg = None
    if case in LEGACY:
        architecture, legacy_cfg, note = LEGACY[case]
        fields = {}
    else:
        architecture, fields, note = INFERENCE[case]
    sae_class, config_class = get_sae_class(architecture)
    sae = sae_class(config(config_class, architecture, fields))
    fill(sae, case)
    sae.save_model(folder)
    if legacy_cfg is not None:
        cfg = {"d_in": D_IN, "d_sae": N_LATENTS, "dtype": "torch.float32", "device": "cpu"} | legacy_cfg
        (folder / "cfg.json").write_text(json.dumps(cfg))
    if case == "legacy_standard":
        save_file(sae.state_dict() | {"scaling_factor": torch.ones(N_LATENTS)}, folder / "sae_weights.safetensors")
    return note


def pursuit_steps(sae: SAE[Any], x: Tensor) -> dict[str, Tensor]:
    """Replay the pursuit with 1, 2, ... steps allowed. Returns order and residual_norm, both [tokens, steps]."""
    allowed = sae.cfg.max_iterations
    target = sae.process_sae_in(x)
    before = torch.zeros(len(x), N_LATENTS)
    order, norms = [], []
    for step in range(1, (allowed or D_IN) + 1):
        sae.cfg.max_iterations = step
        acts = sae.encode(x)
        change = acts - before
        order.append(torch.where((change > 0).any(dim=1), change.argmax(dim=1), -1))
        norms.append((target - acts @ sae.W_dec).norm(dim=1))
        before = acts
    sae.cfg.max_iterations = allowed
    return {"order": torch.stack(order, dim=1), "residual_norm": torch.stack(norms, dim=1)}


@torch.no_grad()
def run_case(case: str, sae: SAE[Any], x: Tensor) -> dict[str, Tensor]:
    """x: [tokens, d_in] -> the tensors to store for this case."""
    if case == "standard_hook_z":
        heads = x.unflatten(1, (N_HEADS, D_IN // N_HEADS))
        acts, out = sae.encode(heads), sae(heads)
        return {"x": x, "acts": acts, "x_hat": out.flatten(1), "x_heads": heads, "x_hat_heads": out}
    if sae.cfg.architecture() == "temporal":
        sequences = x.unflatten(0, (N_SEQUENCES, N // N_SEQUENCES))
        novel, predicted = sae.encode_with_predictions(sequences)
        tokens = {"acts": novel, "z_pred": predicted, "x_hat": sae(sequences), "x_hat_novel": sae.decode(novel)}
        return {"x": x, "x_seq": sequences} | {name: value.flatten(0, 1) for name, value in tokens.items()}
    acts, out = sae.encode(x), sae(x)
    tensors = {"x": x, "acts": acts, "x_hat": out}
    if "skip" in case:
        tensors["x_hat_no_skip"] = sae.decode(acts)
    if case.startswith("matching_pursuit"):
        tensors |= pursuit_steps(sae, x)
    if case == "standard_expected_average":
        factor = torch.tensor([1.75])
        sae.fold_activation_norm_scaling_factor(factor.item())
        tensors |= {"norm_scaling_factor": factor, "acts_folded": sae.encode(x), "x_hat_folded": sae(x)}
    return tensors


def main(out: Path) -> None:
    warnings.simplefilter("ignore")
    logging.getLogger("sae_lens").setLevel(logging.ERROR)
    cases: dict[str, dict[str, str]] = {}
    for seed, case in enumerate([*INFERENCE, *TRAINED, *LEGACY]):
        torch.manual_seed(SEED + seed)
        note = save_case(case, out / case)
        sae = SAE.load_from_disk(out / case, dtype="float32")
        if isinstance(sae, TrainingSAE):
            raise TypeError(f"{case}: expected an inference class, got {type(sae).__name__}")
        tensors = run_case(case, sae, torch.randn(N, D_IN) * 1.5 + 0.3)
        active = (tensors["acts"] != 0).float().mean().item()
        if not 0 < active < 1 or not all(value.isfinite().all() for value in tensors.values()):
            raise ValueError(f"{case}: {active:.2f} of the latents active, or a value is not finite")
        save_file({name: value.clone().contiguous() for name, value in tensors.items()}, out / f"{case}.safetensors")
        cases[case] = {
            "library": "sae-lens",
            "version": sae_lens.__version__,
            "class": type(sae).__name__,
            "note": note,
        }
        print(f"{case}: {type(sae).__name__}, {active:.2f} of the latents active")
    (out / "cases.json").write_text(json.dumps(cases, indent=1) + "\n")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
